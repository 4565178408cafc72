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
    """Makes the variable of a net for the seed and the number of the batch's first sample.

    Each replica has its own value. It is not a Keras variable, so Keras does not count, save or
    average it as a weight.

    Returns:
      int64 variable [2]: (seed, first sample number).
    """
    return tf.Variable(
        [0, 0],
        dtype=tf.int64,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        name="samples",
    )


def assign_samples(model: keras.Model, seed: int, first_sample: tf.Tensor | int) -> None:
    """Sets the seed and the sample numbers of the next batch in a net.

    Does nothing if the net has no random layer.

    Args:
      model: the net.
      seed: the run's seed, below 2**32.
      first_sample: int64 scalar, global sample number of the first example. The sample numbers of
        the batch are consecutive.
    """
    for layer in model.layers:
        if isinstance(layer, RandomLayer):
            layer.samples.assign([tf.constant(seed, tf.int64), first_sample])
            return  # all layers of a net share the variable


def uniform(samples: tf.Tensor, stream: int, batch: int | tf.Tensor, units: int) -> tf.Tensor:
    """Returns random numbers in [0, 1) for each example of a batch.

    Philox (Salmon et al. 2011) generates four numbers per counter value. Each example uses
    ceil(units / 4) counter values, starting at its sample number times ceil(units / 4). So its
    numbers do not depend on where the batch begins.

    Args:
      samples: int64 [2], see `make_sample_variable`.
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
    counter = tf.bitcast([samples[1] * counters_per_example, 0], tf.uint64)
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
