"""Content-aware resizing to a square by seam carving (Avidan & Shamir 2007).

A seam contains one pixel of each row, at most one column away from its pixel in the next row. The
seam with the least energy is removed first. The energy is e1 of the paper, |dI/dx| + |dI/dy|,
summed over red, green and blue. This is backward energy: the energy of the removed pixels, not of
the edges that their removal creates (Rubinstein et al. 2008).

All arithmetic is in integers, so that ties are exact. Of equal seams the leftmost is removed.
"""

import numpy as np
import tensorflow as tf

from input_pipeline.augmentation import crops

# A longer image is first squeezed to this aspect ratio. Carving it would remove more than two
# columns in three, and with them the content.
MAX_ASPECT_RATIO = 3


def carve_to_square(image: tf.Tensor, size: int, interpolation: str = "bilinear") -> tf.Tensor:
    """Resizes the short side to `size`, then carves the long side to the same length.

    Args:
      image: uint8 [H, W, 3].
      size: side of the result in pixels.
      interpolation: "bilinear" or "bicubic", for resizing.

    Returns:
      uint8 [size, size, 3].
    """
    resized = resize_short_side(image, size, interpolation)
    carved = tf.numpy_function(lambda pixels: carve(pixels, size), [resized], tf.uint8)
    return tf.ensure_shape(carved, [size, size, 3])


def resize_short_side(image: tf.Tensor, size: int, interpolation: str = "bilinear") -> tf.Tensor:
    """Resizes the short side of uint8 [H, W, 3] to `size`.

    The aspect ratio is kept up to MAX_ASPECT_RATIO.
    """
    sides = tf.cast(tf.shape(image)[:2], tf.float64)
    scaled = tf.round(sides * (tf.cast(size, tf.float64) / tf.reduce_min(sides)))
    max_side = tf.cast(MAX_ASPECT_RATIO * size, tf.float64)
    height, width = tf.unstack(tf.cast(tf.clip_by_value(scaled, size, max_side), tf.int32))
    return crops.resize(image, height, width, interpolation)


def carve(image: np.ndarray, size: int) -> np.ndarray:
    """Removes seams across the long side of an image until it is a square.

    Args:
      image: uint8 [H, W, 3] whose short side is `size`.
      size: side of the result in pixels.

    Returns:
      uint8 [size, size, 3].
    """
    if image.shape[0] > image.shape[1]:
        return carve(image.swapaxes(0, 1), size).swapaxes(0, 1)
    return np.take_along_axis(image, find_kept_columns(image, size)[..., None], axis=1)


def find_removed_pixels(image: np.ndarray, size: int) -> np.ndarray:
    """Returns the mask of the pixels that `carve` removes: bool [H, W]."""
    if image.shape[0] > image.shape[1]:
        return find_removed_pixels(image.swapaxes(0, 1), size).T
    mask = np.ones(image.shape[:2], bool)
    np.put_along_axis(mask, find_kept_columns(image, size), False, axis=1)
    return mask


def find_kept_columns(image: np.ndarray, width: int) -> np.ndarray:
    """Returns the columns of each row that remain after seams are removed one by one.

    Args:
      image: uint8 [H, W, 3].
      width: number of columns to keep, at most W.

    Returns:
      int64 [H, width], ascending in each row.
    """
    planes = np.ascontiguousarray(np.moveaxis(image, -1, 0), np.int16)  # [3, H, W]
    columns = np.broadcast_to(np.arange(image.shape[1]), image.shape[:2])
    while columns.shape[1] > width:
        seam = find_cheapest_seam(energy(planes))
        keep = np.arange(columns.shape[1]) != seam[:, None]  # [H, W]
        shape = (columns.shape[0], columns.shape[1] - 1)
        columns = columns[keep].reshape(shape)
        planes = np.stack([plane[keep].reshape(shape) for plane in planes])
    return columns.astype(np.int64)


def energy(planes: np.ndarray) -> np.ndarray:
    """Returns e1 of the paper: absolute differences of the two adjacent pixels, in x and in y.

    Args:
      planes: int16 [3, H, W] of values 0..255. Border pixels are replicated.

    Returns:
      int32 [H, W].
    """
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = np.abs(padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2])
    down = np.abs(padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1])
    # int16 holds the sum of six differences of at most 255.
    return (across + down).sum(axis=0, dtype=np.int32)


def find_cheapest_seam(energies: np.ndarray) -> np.ndarray:
    """Finds the connected path from top to bottom with the least energy by dynamic programming.

    Args:
      energies: int32 [H, W].

    Returns:
      int64 [H], the column of the seam in each row.
    """
    height, width = energies.shape
    # Cost of the best path from the bottom to each pixel. The columns at both sides have a cost
    # that no path can reach.
    costs = np.full((height, width + 2), np.iinfo(np.int32).max // 2, np.int32)
    costs[:, 1:-1] = energies
    for row in range(height - 2, -1, -1):
        below = costs[row + 1]
        costs[row, 1:-1] += np.minimum(np.minimum(below[:-2], below[1:-1]), below[2:])
    seam = np.empty(height, np.int64)
    column = int(np.argmin(costs[0, 1:-1]))
    seam[0] = column
    for row in range(1, height):
        column += int(np.argmin(costs[row, column : column + 3])) - 1
        seam[row] = column
    return seam
