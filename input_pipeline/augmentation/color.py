"""Colour of a batch: hue, saturation and value, and the lighting of Krizhevsky et al."""

import tensorflow as tf

# What the predecessor used: degrees of 360, and factors.
MAX_HUE_DEGREES = 36.0
MIN_FACTOR, MAX_FACTOR = 0.6, 1.4
LIGHTING_STD = 0.1


def hsv_jitter(draws):
    """Random changes of hue, saturation and value.

    Args:
      draws: float32 [B, 3], uniform in [0, 1).

    Returns:
      float32 [B, 3]: degrees to add to the hue, in +-36; factors of saturation and of value, in
      0.6 to 1.4.
    """
    low = tf.constant([-MAX_HUE_DEGREES, MIN_FACTOR, MIN_FACTOR])
    high = tf.constant([MAX_HUE_DEGREES, MAX_FACTOR, MAX_FACTOR])
    return low + (high - low) * draws


def adjust_hsv(images, changes):
    """Turns the hue, multiplies saturation and value, and stops them at their largest.

    The hexagonal cone of Smith 1978, without a detour over the three numbers: a channel is
    value * (1 - saturation * w), where w, from 0 to 1, follows from how far the hue is from the
    channel's own: nothing up to 60 degrees, then rising to 1 at 120.

    Args:
      images: float32 [B, S, S, 3], RGB, 0..255.
      changes: float32 [B, 3], see `hsv_jitter`; the hue by at most 120 degrees.

    Returns:
      float32 [B, S, S, 3], 0..255.
    """
    degrees, saturation, value = tf.unstack(changes[:, :, None, None], axis=1)  # each [B, 1, 1]
    red, green, blue = tf.unstack(images, axis=-1)  # each [B, S, S]
    most = tf.maximum(tf.maximum(red, green), blue)
    chroma = most - tf.minimum(tf.minimum(red, green), blue)
    # Grey has no hue, and without chroma none is needed. Whole levels or not, 1e-6 is none.
    unit = 1.0 / tf.maximum(chroma, 1e-6)
    hue = tf.where(
        most == red,
        (green - blue) * unit,
        tf.where(most == green, 2.0 + (blue - red) * unit, 4.0 + (red - green) * unit),
    )
    hue += degrees / 60.0  # in sixths of the circle, -3 to 7
    new_most = tf.minimum(most * value, 255.0)
    new_chroma = tf.minimum(new_most * saturation * chroma / tf.maximum(most, 1e-6), new_most)
    channels = []
    for own_hue in (0.0, 2.0, 4.0):
        distance = tf.abs(hue - own_hue)
        distance = tf.minimum(distance, 6.0 - distance)  # below 0 beyond the whole circle
        channels.append(new_most - new_chroma * tf.clip_by_value(tf.abs(distance) - 1.0, 0.0, 1.0))
    return tf.stack(channels, axis=-1)


def lighting_shift(draws, eigenvalues, eigenvectors):
    """What lighting adds to every pixel of an image (Krizhevsky et al. 2012, section 4.1).

    The principal components of the training pixels, times their eigenvalues, times normal numbers
    of deviation 0.1. The eigenvalues are those of pixels in 0..1, as in the paper's figures.

    Args:
      draws: float32 [B, 3], standard normal.
      eigenvalues: three floats, of the covariance of pixels in 0..255.
      eigenvectors: nine floats, the rows of the matrix whose columns are the components.

    Returns:
      float32 [B, 3], to be added to pixels in 0..255.
    """
    scale = tf.constant(eigenvalues, tf.float32) / 255.0 * LIGHTING_STD
    matrix = tf.reshape(tf.constant(eigenvectors, tf.float32), [3, 3])
    return tf.reduce_sum((draws * scale)[:, None, :] * matrix, axis=2)
