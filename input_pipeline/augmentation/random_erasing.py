"""Random erasing (Zhong et al. 2020): a rectangle of the normalised image becomes the mean."""

import math

import tensorflow as tf

from input_pipeline.augmentation import mixup_cutmix

# The paper erases in one image of two; the recipes that use it since then, in one of four.
PROBABILITY = 0.25
# Shares of the image's area, and sides, as most recipes have them; the paper goes up to 0.4.
MIN_AREA, MAX_AREA = 0.02, 1 / 3
MAX_ASPECT = 1 / 0.3


def boxes(draws, size):
    """Rectangles to erase.

    Area uniform in 2 to 33 % of the image's, aspect ratio log-uniform, position uniform. A
    rectangle longer than the image is cut to it, where the paper draws again: at these bounds
    that is one in 25.

    Args:
      draws: float32 [B, 5], uniform in [0, 1).
      size: S, side of the images.

    Returns:
      float32 [B, 4]: top, bottom, left, right, whole pixels; empty where nothing is to be erased.
    """
    chosen, area, aspect, *place = tf.unstack(draws, axis=1)
    area = (MIN_AREA + (MAX_AREA - MIN_AREA) * area) * size**2
    aspect = tf.exp((2.0 * aspect - 1.0) * math.log(MAX_ASPECT))
    sides = tf.stack([tf.sqrt(area / aspect), tf.sqrt(area * aspect)], axis=1)  # [B, 2]
    sides = tf.clip_by_value(tf.round(sides), 1.0, float(size))
    sides = tf.where(chosen[:, None] < PROBABILITY, sides, 0.0)
    start = tf.floor(tf.stack(place, axis=1) * (size - sides + 1.0))
    start = tf.minimum(start, size - sides)  # a draw just under 1 may round up
    corners = tf.stack([start, start + sides], axis=2)  # [B, 2, 2]
    return tf.reshape(corners, [-1, 4])


def erase(images, corners):
    """Sets the rectangles float32 [B, 4] of normalised images [B, S, S, 3] to 0, the mean."""
    hidden = mixup_cutmix.boxes_to_masks(corners, images.shape[1])
    return tf.where(hidden[..., None], 0.0, images)
