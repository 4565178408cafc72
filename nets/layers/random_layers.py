"""Dropout layers without random state, so a resumed run draws the same numbers.

The numbers for an example are a pure function of the run's seed, the layer's name and the
example's global sample number. They do not depend on the number of replicas, on the size of the
micro-batches or on interruptions of the run.
"""

import math
import zlib

import keras
import tensorflow as tf


def make_sample_variable() -> tf.Variable:
    """Makes the variable of a net that says which random numbers the next batch draws.

    Each replica has its own value. It is not a Keras variable, so Keras does not count, save or
    average it as a weight.

    Returns:
      int64 variable [3]: (seed, number of the batch's first sample, number of the pass).
    """
    return tf.Variable(
        [0, 0, 0],
        dtype=tf.int64,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        name="samples",
    )


def assign_samples(
    model: keras.Model,
    seed: tf.Tensor | int,
    first_sample: tf.Tensor | int,
    pass_number: int = 0,
) -> None:
    """Sets the seed, the sample numbers of the next batch and the number of its pass in a net.

    Does nothing if the net has no random layer.

    Args:
      model: the net.
      seed: the run's seed, below 2**32.
      first_sample: int64 scalar, global sample number of the first example. The sample numbers of
        the batch are consecutive.
      pass_number: of several forward passes of the same images; each draws other numbers.
    """
    if samples := find_samples(model):
        values = (tf.cast(value, tf.int64) for value in (seed, first_sample, pass_number))
        samples[0].assign([*values])


def start_pass(model: keras.Model, pass_number: int) -> None:
    """Sets the number of the pass of the batch of `assign_samples`; see there."""
    for samples in find_samples(model):
        seed, first_sample, _ = tf.unstack(tf.convert_to_tensor(samples))
        assign_samples(model, seed, first_sample, pass_number)


def find_samples(model: keras.Model) -> list[tf.Variable]:
    """Returns the variable that all random layers of a net share; empty if it has none."""
    return [layer.samples for layer in model.layers if isinstance(layer, RandomLayer)][:1]


def uniform(samples: tf.Tensor, stream: int, batch: int | tf.Tensor, units: int) -> tf.Tensor:
    """Returns random numbers in [0, 1) for each example of a batch.

    Philox (Salmon et al. 2011) generates four numbers per counter value. Each example uses
    ceil(units / 4) counter values, starting at its sample number times ceil(units / 4). So its
    numbers do not depend on where the batch begins.

    Args:
      samples: int64 [3], see `make_sample_variable`.
      stream: number of the layer's random stream, below 2**32.
      batch: B, int or scalar tensor.
      units: numbers per example.

    Returns:
      float32 [B, units].
    """
    counters_per_example = math.ceil(units / 4)
    # Seed and stream share the 64 bits of the key. TensorFlow's op that makes keys from seeds is
    # not used, because it makes different keys under XLA.
    key = tf.bitcast([samples[0] * 2**32 + stream], tf.uint64)
    counter = tf.bitcast([samples[1] * counters_per_example, samples[2]], tf.uint64)
    numbers = tf.raw_ops.StatelessRandomUniformV2(
        shape=tf.stack([batch, counters_per_example * 4]),
        key=key,
        counter=counter,
        alg=tf.constant(1),  # Philox
        dtype=tf.float32,
    )
    return numbers[:, :units]


class RandomLayer(keras.layers.Layer):
    """Base class of layers that draw random numbers for each training example.

    Args:
      rate: probability of dropping, in [0, 1).
      samples: see `make_sample_variable`.
    """

    def __init__(self, rate: float, samples: tf.Variable, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.samples = samples

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def _draw_keep_mask(self, inputs: tf.Tensor, units: int) -> tf.Tensor:
        """Returns the factors [B, units]: 0 to drop, 1 / (1 - rate) to keep.

        The factor 1 / (1 - rate) preserves the mean.
        """
        stream = zlib.crc32(self.name.encode())
        samples = tf.convert_to_tensor(self.samples)
        numbers = uniform(samples, stream, tf.shape(inputs)[0], units)
        return tf.cast(numbers >= self.rate, inputs.dtype) / (1.0 - self.rate)


class Dropout(RandomLayer):
    """Drops each feature of an example independently (Hinton et al. 2012)."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps [B, C] to [B, C]."""
        return inputs * self._draw_keep_mask(inputs, inputs.shape[-1]) if training else inputs


class StochasticDepth(RandomLayer):
    """Drops the whole residual branch of an example (Huang et al. 2016).

    The paper scales the branch down at inference. This layer scales it up in training, which has
    the same mean and leaves inference unchanged.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps [B, H, W, C] to [B, H, W, C]."""
        if not training:
            return inputs
        return inputs * self._draw_keep_mask(inputs, 1)[:, :, None, None]  # [B, 1, 1, 1]
