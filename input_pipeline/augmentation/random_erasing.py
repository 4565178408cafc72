"""Random erasing (Zhong et al. 2020): sets a random box of a normalized image to the mean."""

import math

import numpy as np
import tensorflow as tf

from input_pipeline.augmentation import mixup_cutmix


def boxes(
    draws: tf.Tensor,
    size: int,
    probability: float,
    min_area: float,
    max_area: float,
    max_aspect: float,
) -> tf.Tensor:
    """Computes the boxes to erase.

    The area is uniform. The aspect ratio is log-uniform. The position is uniform. A box longer than
    the image is clipped, which happens to one box in 25 with the usual arguments. The paper draws
    again instead.

    Args:
      draws: float32 [B, 5], uniform in [0, 1).
      size: S, side of the images.
      probability: fraction of the images with a box. The paper erases in half of the images. Most
        later recipes erase in a quarter.
      min_area, max_area: bounds of the area, as fractions of the image's area. The paper's largest
        area is 0.4; in most later recipes it is 1/3.
      max_aspect: largest ratio of height to width, and of width to height.

    Returns:
      float32 [B, 4]: top, bottom, left, right, in whole pixels; empty if nothing is erased.
    """
    chosen, area, aspect, *position = tf.unstack(draws, axis=1)
    area = (min_area + (max_area - min_area) * area) * size**2
    aspect = tf.exp((2.0 * aspect - 1.0) * math.log(max_aspect))
    sides = tf.stack([tf.sqrt(area / aspect), tf.sqrt(area * aspect)], axis=1)  # [B, 2]
    sides = tf.clip_by_value(tf.round(sides), 1.0, float(size))
    sides = tf.where(chosen[:, None] < probability, sides, 0.0)
    start = tf.floor(tf.stack(position, axis=1) * (size - sides + 1.0))
    start = tf.minimum(start, size - sides)  # a draw just below 1 may round up
    corners = tf.stack([start, start + sides], axis=2)  # [B, 2, 2]
    return tf.reshape(corners, [-1, 4])


def erase(images: tf.Tensor, corners: tf.Tensor | np.ndarray) -> tf.Tensor:
    """Sets the boxes, float32 [B, 4], of normalized images [B, S, S, 3] to 0, the mean."""
    erased = mixup_cutmix.boxes_to_masks(corners, images.shape[1])
    return tf.where(erased[..., None], 0.0, images)
