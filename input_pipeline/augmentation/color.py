"""Color augmentation of a batch: HSV jitter, and AlexNet's PCA lighting noise."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def hsv_jitter(draws: tf.Tensor, hue: float, min_factor: float, max_factor: float) -> tf.Tensor:
    """Scales uniform draws to random changes of hue, saturation and value.

    Args:
      draws: float32 [B, 3], uniform in [0, 1).
      hue: largest change of the hue in degrees.
      min_factor, max_factor: bounds of the factors of saturation and value.

    Returns:
      float32 [B, 3]: degrees to add to the hue, and the factors of saturation and value.
    """
    low = tf.constant([-hue, min_factor, min_factor], tf.float32)
    high = tf.constant([hue, max_factor, max_factor], tf.float32)
    return low + (high - low) * draws


def adjust_hsv(images: tf.Tensor, changes: tf.Tensor) -> tf.Tensor:
    """Rotates the hue, and multiplies saturation and value, clipped at their maximum.

    Computes the hexcone model (Smith 1978) without converting to HSV and back. A channel equals
    value * (1 - saturation * w). The weight w depends on the angle between the hue and the
    channel's primary color: 0 up to 60 degrees, then linear up to 1 at 120 degrees.

    Args:
      images: float32 [B, S, S, 3], RGB, 0..255.
      changes: float32 [B, 3], see `hsv_jitter`. The hue changes by at most 120 degrees.

    Returns:
      float32 [B, S, S, 3], 0..255.
    """
    degrees, saturation, value = tf.unstack(changes[:, :, None, None], axis=1)  # each [B, 1, 1]
    red, green, blue = tf.unstack(images, axis=-1)  # each [B, S, S]
    most = tf.maximum(tf.maximum(red, green), blue)
    chroma = most - tf.minimum(tf.minimum(red, green), blue)
    # Gray has no chroma, so any hue will do. A chroma of 1e-6 is no color, even if the levels are
    # not integers.
    unit = 1.0 / tf.maximum(chroma, 1e-6)
    hue = tf.where(
        most == red,
        (green - blue) * unit,
        tf.where(most == green, 2.0 + (blue - red) * unit, 4.0 + (red - green) * unit),
    )
    hue += degrees / 60.0  # in units of 60 degrees, -3 to 7
    new_most = tf.minimum(most * value, 255.0)
    new_chroma = tf.minimum(new_most * saturation * chroma / tf.maximum(most, 1e-6), new_most)
    channels = []
    for primary_hue in (0.0, 2.0, 4.0):
        distance = tf.abs(hue - primary_hue)
        distance = tf.minimum(distance, 6.0 - distance)  # negative for more than a full circle
        channels.append(new_most - new_chroma * tf.clip_by_value(tf.abs(distance) - 1.0, 0.0, 1.0))
    return tf.stack(channels, axis=-1)


def to_grayscale(images: tf.Tensor) -> tf.Tensor:
    """Sets the three channels of float32 [..., 3], RGB, to the luma of ITU-R BT.601."""
    luma = tf.tensordot(images, tf.constant([0.299, 0.587, 0.114]), 1)
    return tf.repeat(luma[..., None], 3, axis=-1)


def lighting_shift(
    draws: tf.Tensor | np.ndarray,
    eigenvalues: Sequence[float],
    eigenvectors: Sequence[float],
    std: float,
) -> tf.Tensor:
    """Returns the shift of all pixels of an image (Krizhevsky et al. 2012, section 4.1).

    It is the sum of the principal components of the training pixels, each times its eigenvalue and
    a normal number. As in the paper's published values, the
    eigenvalues are for pixels in 0..1.

    Args:
      draws: float32 [B, 3], standard normal.
      eigenvalues: three floats, of the covariance of pixels in 0..255.
      eigenvectors: nine floats, row by row the matrix whose columns are the components.
      std: standard deviation of the normal numbers; 0.1 in the paper.

    Returns:
      float32 [B, 3], to add to pixels in 0..255.
    """
    scale = tf.constant(eigenvalues, tf.float32) / 255.0 * std
    matrix = tf.reshape(tf.constant(eigenvectors, tf.float32), [3, 3])
    return tf.reduce_sum((draws * scale)[:, None, :] * matrix, axis=2)
