"""Mixup and CutMix between neighbours: the partner of sample g is g XOR 1.

So both images of a pair are in one batch, of any even size, and the mixture does not depend on
how samples are cut into batches and replicas.
"""

import tensorflow as tf


def swap_within_pairs(values):
    """Swaps neighbours along the first axis, whose length is even: sample g becomes g XOR 1."""
    shape = tf.shape(values)
    pairs = tf.reshape(values, tf.concat([[shape[0] // 2, 2], shape[1:]], 0))  # [B / 2, 2, ...]
    return tf.ensure_shape(tf.reshape(tf.reverse(pairs, axis=[1]), shape), values.shape)


def cutmix_boxes(share, centres, size):
    """The rectangle of each image that CutMix takes from the partner (Yun et al. 2019, eq. 2).

    Its sides are sqrt(1 - share) of the image's and its centre is uniform; what juts out is cut.

    Args:
      share: float32 [B], 0..1, of the image's own class.
      centres: float32 [B, 2], uniform in [0, 1).
      size: S, side of the images.

    Returns:
      (float32 [B, 4] of top, bottom, left, right, whole pixels, the last row and column excluded,
      float32 [B], the share that is left to the image once the rectangle was cut).
    """
    # Floats, as a GPU's int32 are reckoned with on the host.
    half = tf.floor(tf.floor(size * tf.sqrt(1.0 - share)) / 2.0)  # [B]
    middle = tf.floor(centres * size)  # [B, 2]
    low = tf.maximum(middle - half[:, None], 0.0)
    high = tf.minimum(middle + half[:, None], float(size))
    area = tf.reduce_prod(high - low, axis=1)
    corners = tf.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
    return corners, 1.0 - area / size**2


def boxes_to_masks(corners, size):
    """Masks of rectangles: bool [B, S, S] from float32 [B, 4], see `cutmix_boxes`."""
    at = tf.range(float(size))[None]  # [1, S]
    top, bottom, left, right = tf.split(corners, 4, axis=1)  # each [B, 1]
    rows, columns = (at >= top) & (at < bottom), (at >= left) & (at < right)  # [B, S]
    return rows[:, :, None] & columns[:, None, :]


def mix_pairs(images, weights):
    """images + weights * (partners - images), weights being float32 [B, S or 1, S or 1, 1]."""
    return images + weights * (swap_within_pairs(images) - images)
