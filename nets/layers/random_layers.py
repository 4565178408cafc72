"""Layers that draw random numbers in training, without any state that a resumed run would lose.

What is drawn for an example is a pure function of the run's seed, the layer's name and the
example's global sample number. So one replica draws what many draw, micro-batches draw what the
whole batch would, and a resumed run goes on as if nothing had happened.
"""

import zlib

import keras
import tensorflow as tf


def make_sample_variable():
    """Makes a net's variable int64 [2]: the run's seed, the number of the batch's first sample.

    Every replica holds its own value. It is no Keras variable, so that it is neither counted nor
    saved nor averaged as a weight is.
    """
    return tf.Variable(
        [0, 0],
        dtype=tf.int64,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        name="samples",
    )


def assign_samples(model, seed, first_sample):
    """Tells a net which examples it is about to see; does nothing where no layer draws.

    Args:
      model: keras.Model.
      seed: the run's seed, below 2**32.
      first_sample: int64 scalar, global sample number of the batch's first example; those of the
        others follow it without a gap.
    """
    for layer in model.layers:
        if isinstance(layer, RandomLayer):
            layer.samples.assign([tf.constant(seed, tf.int64), first_sample])
            return  # all layers of a net share the variable


def uniform(samples, stream, batch, units):
    """Numbers in [0, 1) for each example of a batch.

    Philox (Salmon et al. 2011) yields four numbers for every value of its counter. An example
    owns the values from its sample number times ceil(units / 4) on, wherever the batch begins.

    Args:
      samples: int64 [2], see `make_sample_variable`.
      stream: int below 2**32 that tells one layer's numbers from another's.
      batch: B, int or scalar tensor.
      units: numbers per example.

    Returns:
      float32 [B, units].
    """
    groups = -(-units // 4)
    # Seed and stream share the 64 bits of the key. Not the op that makes keys from seeds: under
    # XLA it makes others.
    key = tf.bitcast([samples[0] * 2**32 + stream], tf.uint64)
    counter = tf.bitcast([samples[1] * groups, 0], tf.uint64)
    drawn = tf.raw_ops.StatelessRandomUniformV2(
        shape=tf.stack([batch, groups * 4]),
        key=key,
        counter=counter,
        alg=tf.constant(1),  # Philox
        dtype=tf.float32,
    )
    return drawn[:, :units]


class RandomLayer(keras.layers.Layer):
    """A layer that draws for every example of a training batch.

    Args:
      rate: probability of dropping, in [0, 1).
      samples: see `make_sample_variable`.
    """

    def __init__(self, rate, samples, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.samples = samples

    def compute_output_shape(self, input_shape):
        return input_shape

    def _draw_keep_mask(self, inputs, units):
        """What to multiply by: 0, or 1 / (1 - rate) to keep the mean; [B, units]."""
        stream = zlib.crc32(self.name.encode())
        drawn = uniform(tf.convert_to_tensor(self.samples), stream, tf.shape(inputs)[0], units)
        return tf.cast(drawn >= self.rate, inputs.dtype) / (1.0 - self.rate)


class Dropout(RandomLayer):
    """Drops each feature of an example on its own (Hinton et al. 2012)."""

    def call(self, inputs, training=False):
        """Maps [B, C] to [B, C]."""
        return inputs * self._draw_keep_mask(inputs, inputs.shape[-1]) if training else inputs


class StochasticDepth(RandomLayer):
    """Drops the whole residual branch of an example (Huang et al. 2016).

    The paper scales the branch when it infers; here it is scaled up in training instead, which
    has the same mean and leaves inference as it is.
    """

    def call(self, inputs, training=False):
        """Maps [B, H, W, C] to [B, H, W, C]."""
        if not training:
            return inputs
        return inputs * self._draw_keep_mask(inputs, 1)[:, :, None, None]  # [B, 1, 1, 1]
