"""Random numbers per sample of a batch, each a function of (seed, global sample number).

TensorFlow's stateless operations take one seed per tensor. Their numbers would depend on the
position in the batch, and so on the division into batches and replicas. This module hashes a
counter for each sample with the finalizer of SplitMix64 (Steele et al. 2014, figure 16). The hash
is plain integer arithmetic, so it runs on any device and under XLA.
"""

import dataclasses
import hashlib
import math

import tensorflow as tf

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_FIRST_MULTIPLIER = 0xBF58476D1CE4E5B9
_SECOND_MULTIPLIER = 0x94D049BB133111EB


def uniform(seed: int | tf.Tensor, samples: tf.Tensor, purpose: int, count: int) -> tf.Tensor:
    """Draws uniform numbers in [0, 1), multiples of 2**-24.

    Args:
      seed: the run's seed, 0 <= seed < 2**32.
      samples: int64 [B], global numbers of samples or of pairs of samples; or one number, [].
      purpose: a small number, or one of `get_purpose`. Numbers of different purposes are
        independent.
      count: K, numbers per sample.

    Returns:
      float32 [B, K], or [K] for one sample.
    """
    stream = _hash(_hash(tf.convert_to_tensor(seed, tf.int64)) + purpose)
    starts = _hash(_hash(samples) ^ stream)  # [B] or []
    steps = tf.constant([_to_signed(_GOLDEN_GAMMA * (k + 1)) for k in range(count)], tf.int64)
    bits = _hash(starts[..., None] + steps)  # [B, K] or [K]
    return tf.cast(_logical_right_shift(bits, 40), tf.float32) * 2.0**-24


def normal(seed: int, samples: tf.Tensor, purpose: int, count: int) -> tf.Tensor:
    """Draws standard normal numbers (Box and Muller 1958).

    Args:
      seed, samples, purpose, count: see `uniform`.

    Returns:
      float32 [B, K].
    """
    return _to_normal(uniform(seed, samples, purpose, 2 * count))


def _to_normal(draws: tf.Tensor) -> tf.Tensor:
    """Turns 2K uniform numbers per sample into K normal ones."""
    radius, angle = tf.split(draws, 2, axis=-1)
    # 1 - radius is never 0.
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - radius))
    return radius * tf.cos(2.0 * math.pi * angle)


def symmetric_beta(seed: int, samples: tf.Tensor, purpose: int, alpha: float) -> tf.Tensor:
    """Draws numbers from the distribution Beta(alpha, alpha).

    Draws Student's t with 2 alpha degrees of freedom by the polar method (Bailey 1994). A change of
    variable turns it into this beta distribution (Devroye 1996, section 3).

    Args:
      seed, samples, purpose: see `uniform`.
      alpha: positive.

    Returns:
      float32 [B].
    """
    first, second = tf.unstack(uniform(seed, samples, purpose, 2), axis=1)
    q = (1.0 - first) ** (1.0 / alpha)
    cosine = tf.cos(2.0 * math.pi * second)
    # z = sqrt(1 / q - 1) * cosine would overflow for small alpha. z**2 / (1 + z**2) does not.
    numerator = (1.0 - q) * cosine**2
    share = tf.math.divide_no_nan(numerator, q + numerator)
    return 0.5 + 0.5 * tf.sign(cosine) * tf.sqrt(share)


@dataclasses.dataclass
class Draws:
    """The random numbers of one purpose, for the samples of a batch or for one sample.

    Each call returns new numbers. They depend on the seed, the sample and the calls before, but not
    on the division into batches, replicas and threads.

    Attributes:
      seed, samples, purpose: see `uniform`.
    """

    seed: int | tf.Tensor
    samples: tf.Tensor
    purpose: int
    _count: int = 0  # numbers per sample that were drawn

    def uniform(self, count: int) -> tf.Tensor:
        """Draws `count` uniform numbers in [0, 1) per sample: float32 [B, count], or [count]."""
        first, self._count = self._count, self._count + count
        return uniform(self.seed, self.samples, self.purpose, self._count)[..., first:]

    def normal(self, count: int) -> tf.Tensor:
        """Draws `count` standard normal numbers per sample: float32 [B, count], or [count]."""
        return _to_normal(self.uniform(2 * count))

    def stateless_seed(self) -> tf.Tensor:
        """Draws a seed per sample for TensorFlow's stateless operations: int64 [B, 2], or [2]."""
        return tf.cast(self.uniform(2) * 2.0**24, tf.int64)


def get_purpose(name: str) -> int:
    """Returns the purpose of the numbers of a function in a user's file, by its name."""
    return 2**56 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])


def _hash(bits: tf.Tensor) -> tf.Tensor:
    """Applies the finalizer of SplitMix64 to int64."""
    bits = (bits ^ _logical_right_shift(bits, 30)) * _to_signed(_FIRST_MULTIPLIER)
    bits = (bits ^ _logical_right_shift(bits, 27)) * _to_signed(_SECOND_MULTIPLIER)
    return bits ^ _logical_right_shift(bits, 31)


def _logical_right_shift(bits: tf.Tensor, count: int) -> tf.Tensor:
    """Shifts right and fills with zeros. TensorFlow's operation fills with the sign bit."""
    return tf.bitwise.right_shift(bits, tf.constant(count, tf.int64)) & (2 ** (64 - count) - 1)


def _to_signed(word: int) -> int:
    """Returns the signed integer that has the same 64 bits."""
    word %= 2**64
    return word - 2**64 if word >= 2**63 else word
