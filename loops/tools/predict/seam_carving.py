"""Content-aware resizing to a square: seams of least energy leave (Avidan & Shamir 2007).

A seam is one pixel of every row, each at most one column from the pixel above it. The energy is
the paper's e1, |dI/dx| + |dI/dy|, summed over red, green and blue: backward energy, what a pixel
is worth where it stands, not what its removal would bring together (Rubinstein et al. 2008).
Everything is in integers, so that equal seams are equal; of those the leftmost goes.
"""

import numpy as np
import tensorflow as tf

from input_pipeline.augmentation import crops

# Beyond this aspect ratio a picture is squeezed first: two columns in three are no seams to spare.
MAX_ASPECT_RATIO = 3


def carve_to_square(image, size, interpolation="bilinear"):
    """Resizes the short side to `size`, then carves the long side down to it.

    Args:
      image: uint8 tensor [H, W, 3].
      size: side of the result in pixels.
      interpolation: of the resizing, "bilinear" or "bicubic".

    Returns:
      uint8 tensor [size, size, 3].
    """
    resized = resize_short_side(image, size, interpolation)
    carved = tf.numpy_function(lambda pixels: carve(pixels, size), [resized], tf.uint8)
    return tf.ensure_shape(carved, [size, size, 3])


def resize_short_side(image, size, interpolation="bilinear"):
    """What is carved: uint8 [H, W, 3] with its short side resized to `size`.

    The long side follows, but to no more than LARGEST_ASPECT * size.
    """
    sides = tf.cast(tf.shape(image)[:2], tf.float64)
    scaled = tf.round(sides * (tf.cast(size, tf.float64) / tf.reduce_min(sides)))
    most = tf.cast(MAX_ASPECT_RATIO * size, tf.float64)
    height, width = tf.unstack(tf.cast(tf.clip_by_value(scaled, size, most), tf.int32))
    return crops.resize(image, height, width, interpolation)


def carve(image, size):
    """Removes seams across the long side of an image until it is a square.

    Args:
      image: uint8 array [H, W, 3] whose short side is `size`.
      size: int.

    Returns:
      uint8 array [size, size, 3].
    """
    if image.shape[0] > image.shape[1]:
        return carve(image.swapaxes(0, 1), size).swapaxes(0, 1)
    return np.take_along_axis(image, find_kept_columns(image, size)[..., None], axis=1)


def find_removed_pixels(image, size):
    """Which pixels `carve` takes out: bool array [H, W]."""
    if image.shape[0] > image.shape[1]:
        return find_removed_pixels(image.swapaxes(0, 1), size).T
    mask = np.ones(image.shape[:2], bool)
    np.put_along_axis(mask, find_kept_columns(image, size), False, axis=1)
    return mask


def find_kept_columns(image, width):
    """The columns that are left in each row when seams have been removed one after the other.

    Args:
      image: uint8 array [H, W, 3].
      width: columns to keep, at most W.

    Returns:
      int64 array [H, width], ascending in each row.
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


def energy(planes):
    """e1 of the paper: differences between the neighbours on either side, both ways.

    Args:
      planes: int16 array [3, H, W] of values 0..255; at the border the pixel is its own neighbour.

    Returns:
      int32 array [H, W].
    """
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = np.abs(padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2])
    down = np.abs(padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1])
    # Six differences of at most 255 fit into int16.
    return (across + down).sum(axis=0, dtype=np.int32)


def find_cheapest_seam(energies):
    """The connected path from top to bottom over the least energy, by dynamic programming.

    Args:
      energies: int32 array [H, W].

    Returns:
      int64 array [H], a column for every row.
    """
    height, width = energies.shape
    # Cost of the best path from the bottom up to each pixel, walled in by what no path can cost.
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
