"""Mixup and CutMix between adjacent samples: sample g is mixed with sample g XOR 1.

Both images of a pair are in the same batch if its size is even. The result does not depend on how
samples are divided into batches and replicas.
"""

import numpy as np
import tensorflow as tf


def swap_within_pairs(values: tf.Tensor) -> tf.Tensor:
    """Swaps adjacent entries along the first axis, whose length is even: g becomes g XOR 1."""
    shape = tf.shape(values)
    pairs = tf.reshape(values, tf.concat([[shape[0] // 2, 2], shape[1:]], 0))  # [B / 2, 2, ...]
    return tf.ensure_shape(tf.reshape(tf.reverse(pairs, axis=[1]), shape), values.shape)


def cutmix_boxes(share: tf.Tensor, centers: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the box that CutMix takes from the partner of each image (Yun et al. 2019, eq. 2).

    The sides are sqrt(1 - share) times the image's side. The center is uniform. The box is clipped
    to the image.

    Args:
      share: float32 [B], 0..1, weight of the image's own label.
      centers: float32 [B, 2], uniform in [0, 1).
      size: S, side of the images.

    Returns:
      corners: float32 [B, 4], top, bottom, left, right, in whole pixels. Bottom and right are
        exclusive.
      share: float32 [B], weight of the image's own label after clipping.
    """
    # Float32, because TensorFlow runs int32 operations on the host.
    half = tf.floor(tf.floor(size * tf.sqrt(1.0 - share)) / 2.0)  # [B]
    middle = tf.floor(centers * size)  # [B, 2]
    low = tf.maximum(middle - half[:, None], 0.0)
    high = tf.minimum(middle + half[:, None], float(size))
    area = tf.reduce_prod(high - low, axis=1)
    corners = tf.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
    return corners, 1.0 - area / size**2


def boxes_to_masks(corners: tf.Tensor | np.ndarray, size: int) -> tf.Tensor:
    """Converts boxes, float32 [B, 4] as from `cutmix_boxes`, to masks, bool [B, S, S]."""
    at = tf.range(float(size))[None]  # [1, S]
    top, bottom, left, right = tf.split(corners, 4, axis=1)  # each [B, 1]
    rows, columns = (at >= top) & (at < bottom), (at >= left) & (at < right)  # [B, S]
    return rows[:, :, None] & columns[:, None, :]


def mix_pairs(images: tf.Tensor, weights: tf.Tensor | np.ndarray) -> tf.Tensor:
    """Returns images + weights * (partners - images); weights are [B, S or 1, S or 1, 1]."""
    return images + weights * (swap_within_pairs(images) - images)
