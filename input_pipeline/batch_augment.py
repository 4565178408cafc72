"""What is done to a whole batch, on the accelerator: bytes become normalised floats."""

import tensorflow as tf


def normalize(images, mean, std):
    """Subtracts the mean and divides by the standard deviation of the training pixels.

    Args:
      images: uint8 [..., 3], RGB.
      mean, std: three floats each, 0..255.

    Returns:
      float32 of the same shape.
    """
    scale = 1.0 / tf.constant(std, tf.float32)
    return (tf.cast(images, tf.float32) - tf.constant(mean, tf.float32)) * scale
