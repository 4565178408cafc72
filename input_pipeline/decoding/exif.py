"""Turns photographs upright by the orientation in their EXIF data (Exif 2.32, tag 0x0112)."""

import tensorflow as tf

_MAX_HEAD_BYTES = 2**17  # a segment has at most 65,537 bytes, and EXIF data is in the first ones
_PADDING = 16  # zero bytes behind the head, more than is read at a position
_EXIF = (0xE1, *b"Exif")
_TAG, _LONG = 0x0112, 4


def read_orientation(data: tf.Tensor) -> tf.Tensor:
    """Returns the orientation of a JPEG file, int32 1 to 8; 1 (upright) if it has none.

    Args:
      data: scalar string tensor, a JPEG file, which may be damaged.
    """
    content = tf.io.decode_raw(tf.strings.substr(data, 0, _MAX_HEAD_BYTES), tf.uint8)
    size = tf.size(content)
    padded = tf.cast(tf.concat([content, tf.zeros([_PADDING], tf.uint8)], 0), tf.int32)

    def is_application_segment(at: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        at = tf.minimum(at, size)
        is_marker = (padded[at] == 0xFF) & (padded[at + 1] >= 0xE0) & (padded[at + 1] <= 0xEF)
        return ~found & is_marker

    def next_segment(at: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        del found
        kind = tf.gather(padded, at + tf.constant([1, 4, 5, 6, 7]))
        is_exif = tf.reduce_all(kind == tf.constant(_EXIF))
        length = 256 * padded[at + 2] + padded[at + 3]
        return tf.where(is_exif, at, tf.minimum(at + 2 + length, size)), is_exif

    start = tf.constant(2), tf.constant(False)
    at, found = tf.while_loop(is_application_segment, next_segment, start)
    start_of_tiff = tf.minimum(at + 10, size)
    is_little = padded[start_of_tiff] == b"I"[0]

    def read_uint16(values: tf.Tensor) -> tf.Tensor:  # of the last axis
        first, second = values[..., 0], values[..., 1]
        return tf.where(is_little, first + 256 * second, 256 * first + second)

    offset = padded[start_of_tiff + 4 : start_of_tiff + 8]
    is_near = tf.where(is_little, offset[2] + offset[3], offset[0] + offset[1]) == 0
    offset = read_uint16(tf.where(is_little, offset[:2], offset[2:]))
    directory = tf.minimum(start_of_tiff + offset, size)
    count = read_uint16(padded[directory : directory + 2])
    count = tf.maximum(0, tf.minimum(count, (size - directory - 2) // 12))
    entries = tf.reshape(padded[directory + 2 : directory + 2 + 12 * count], [count, 12])
    is_low_half_last = ~is_little & (read_uint16(entries[:, 2:4]) == _LONG)
    values = tf.where(is_low_half_last[:, None], entries[:, 10:12], entries[:, 8:10])
    is_orientation = read_uint16(entries[:, :2]) == _TAG
    value = tf.reduce_max(tf.where(is_orientation, read_uint16(values), 0))
    is_valid = found & is_near & (count > 0) & (value >= 1) & (value <= 8)
    return tf.where(is_valid, value, 1)


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image, [H, W, 3], as a viewer shows it: [H, W, 3] or [W, H, 3]."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    vertical, horizontal = _flips(orientation)
    dims = tf.stack([vertical, horizontal, tf.constant(False)])
    return tf.raw_ops.Reverse(tensor=image, dims=dims)


def upright_shape(shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns height and width as a viewer shows the image, from those of the file: int32 [2]."""
    return tf.where(orientation >= 5, shape[::-1], shape)


def to_stored_window(window: tf.Tensor, shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Converts a window of the upright image to that of the stored image.

    Args:
      window: int32 [4] (top, left, height, width).
      shape: int32 [2], of the upright image.
      orientation: int32 scalar.

    Returns:
      int32 [4].
    """
    top, left, height, width = tf.unstack(window)
    vertical, horizontal = _flips(orientation)
    top = tf.where(vertical, shape[0] - top - height, top)
    left = tf.where(horizontal, shape[1] - left - width, left)
    straight, transposed = (
        tf.stack([top, left, height, width]),
        tf.stack([left, top, width, height]),
    )
    return tf.where(orientation >= 5, transposed, straight)


def _flips(orientation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns whether to flip vertically and horizontally, after the transposition of 5 to 8."""
    vertical = tf.reduce_any(orientation == tf.constant([3, 4, 7, 8]))
    return vertical, tf.reduce_any(orientation == tf.constant([2, 3, 6, 7]))
