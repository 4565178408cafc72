"""Random erasing (Zhong et al. 2020): sets a random box of a normalized image to the mean."""

import math

import numpy as np
import tensorflow as tf

from input_pipeline.augmentation import mixup_cutmix

# The paper erases in half of the images. Most later recipes erase in a quarter.
PROBABILITY = 0.25
# Bounds of the area, as fractions of the image's area, and of the aspect ratio, as in most recipes.
# The paper's largest area is 0.4.
MIN_AREA, MAX_AREA = 0.02, 1 / 3
MAX_ASPECT = 1 / 0.3


def boxes(draws: tf.Tensor, size: int) -> tf.Tensor:
    """Computes the boxes to erase.

    The area is uniform in 2 to 33 % of the image's area. The aspect ratio is log-uniform. The
    position is uniform. A box longer than the image is clipped, which happens to one box in 25. The
    paper draws again instead.

    Args:
      draws: float32 [B, 5], uniform in [0, 1).
      size: S, side of the images.

    Returns:
      float32 [B, 4]: top, bottom, left, right, in whole pixels; empty if nothing is erased.
    """
    chosen, area, aspect, *position = tf.unstack(draws, axis=1)
    area = (MIN_AREA + (MAX_AREA - MIN_AREA) * area) * size**2
    aspect = tf.exp((2.0 * aspect - 1.0) * math.log(MAX_ASPECT))
    sides = tf.stack([tf.sqrt(area / aspect), tf.sqrt(area * aspect)], axis=1)  # [B, 2]
    sides = tf.clip_by_value(tf.round(sides), 1.0, float(size))
    sides = tf.where(chosen[:, None] < PROBABILITY, sides, 0.0)
    start = tf.floor(tf.stack(position, axis=1) * (size - sides + 1.0))
    start = tf.minimum(start, size - sides)  # a draw just below 1 may round up
    corners = tf.stack([start, start + sides], axis=2)  # [B, 2, 2]
    return tf.reshape(corners, [-1, 4])


def erase(images: tf.Tensor, corners: tf.Tensor | np.ndarray) -> tf.Tensor:
    """Sets the boxes, float32 [B, 4], of normalized images [B, S, S, 3] to 0, the mean."""
    erased = mixup_cutmix.boxes_to_masks(corners, images.shape[1])
    return tf.where(erased[..., None], 0.0, images)
