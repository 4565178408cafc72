"""Random numbers for the images of a batch, each a function of (seed, global sample number).

TensorFlow's stateless operations take one seed for a whole tensor: their numbers would follow the
place in the batch, and so the cut into batches and replicas. Here every sample has numbers of its
own: a counter is hashed by the finaliser of SplitMix64 (Steele et al. 2014, figure 16), which is
plain integer arithmetic and runs on any device and under XLA.
"""

import math

import tensorflow as tf

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_FIRST_MULTIPLIER = 0xBF58476D1CE4E5B9
_SECOND_MULTIPLIER = 0x94D049BB133111EB


def uniform(seed, samples, purpose, count):
    """Uniform numbers in [0, 1), multiples of 2**-24.

    Args:
      seed: the run's seed, 0 <= seed < 2**32.
      samples: int64 [B], global numbers of samples (or of pairs of them).
      purpose: small int; numbers of different purposes are independent.
      count: K, numbers per sample.

    Returns:
      float32 [B, K].
    """
    stream = _hash(_hash(tf.constant(seed, tf.int64)) + purpose)
    of_sample = _hash(_hash(samples) ^ stream)  # [B]
    steps = tf.constant([_to_signed(_GOLDEN_GAMMA * (k + 1)) for k in range(count)], tf.int64)
    bits = _hash(of_sample[:, None] + steps)  # [B, K]
    return tf.cast(_logical_right_shift(bits, 40), tf.float32) * 2.0**-24


def normal(seed, samples, purpose, count):
    """Standard normal numbers, float32 [B, K] (Box and Muller 1958); arguments as of `uniform`."""
    radius, angle = tf.split(uniform(seed, samples, purpose, 2 * count), 2, axis=1)
    # 1 - u is never 0.
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - radius))
    return radius * tf.cos(2.0 * math.pi * angle)


def symmetric_beta(seed, samples, purpose, alpha):
    """Numbers of the distribution Beta(alpha, alpha), alpha > 0: float32 [B].

    Student's t with 2 alpha degrees of freedom by the polar method (Bailey 1994), which becomes
    this beta by a change of variable (Devroye 1996, section 3). Other arguments as of `uniform`.
    """
    first, second = tf.unstack(uniform(seed, samples, purpose, 2), axis=1)
    q = (1.0 - first) ** (1.0 / alpha)
    cosine = tf.cos(2.0 * math.pi * second)
    # z = sqrt(1 / q - 1) * cosine would overflow for small alpha; z**2 / (1 + z**2) does not.
    numerator = (1.0 - q) * cosine**2
    share = tf.math.divide_no_nan(numerator, q + numerator)
    return 0.5 + 0.5 * tf.sign(cosine) * tf.sqrt(share)


def _hash(bits):
    bits = (bits ^ _logical_right_shift(bits, 30)) * _to_signed(_FIRST_MULTIPLIER)
    bits = (bits ^ _logical_right_shift(bits, 27)) * _to_signed(_SECOND_MULTIPLIER)
    return bits ^ _logical_right_shift(bits, 31)


def _logical_right_shift(bits, count):
    """Shift to the right that fills up with zeros; TensorFlow's own repeats the sign."""
    return tf.bitwise.right_shift(bits, tf.constant(count, tf.int64)) & (2 ** (64 - count) - 1)


def _to_signed(word):
    """The signed number of the same 64 bits."""
    word %= 2**64
    return word - 2**64 if word >= 2**63 else word
