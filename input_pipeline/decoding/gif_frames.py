"""Scans the frames of a GIF file without decoding them (GIF89a specification)."""

from typing import NamedTuple

import tensorflow as tf

_IMAGE_SEPARATOR, _EXTENSION_INTRODUCER = 0x2C, 0x21
# Zero bytes that are appended to the file, more than the fixed part of any block.
_PADDING = 16


class GifFrames(NamedTuple):
    """Sizes of the frames of a GIF file.

    Attributes:
      num_pixels: int64 scalar, pixels of all frames together.
      first_fills_canvas: bool scalar, whether the first frame covers the canvas; true if the file
        has no frame.
    """

    num_pixels: tf.Tensor
    first_fills_canvas: tf.Tensor


def scan_frames(data: tf.Tensor) -> GifFrames:
    """Scans a GIF file from block to block.

    Args:
      data: scalar string tensor, a GIF file, which may be damaged.
    """
    content = tf.io.decode_raw(data, tf.uint8)
    size = tf.size(content)
    padded = tf.concat([content, tf.zeros([_PADDING], tf.uint8)], axis=0)

    def read_byte(at: int | tf.Tensor) -> tf.Tensor:
        return tf.cast(padded[at], tf.int32)

    def read_uint16(at: int | tf.Tensor) -> tf.Tensor:
        return tf.cast(read_byte(at) + 256 * read_byte(at + 1), tf.int64)

    def color_table_bytes(at: int | tf.Tensor) -> tf.Tensor:
        """Returns the size of the color table that the byte of flags at `at` announces."""
        flags = read_byte(at)
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)

    def scan_block(at, inside, pixels, whole):
        """Advances by one piece.

        A block begins with its kind. Inside a block (`inside`), each piece begins with its length.
        """
        first = read_byte(at)
        is_frame = ~inside & (first == _IMAGE_SEPARATOR)
        is_extension = ~inside & (first == _EXTENSION_INTRODUCER)
        left, top, width, height = (read_uint16(at + n) for n in (1, 3, 5, 7))
        fills = (left == 0) & (top == 0) & (width == read_uint16(6)) & (height == read_uint16(8))
        whole = tf.where(is_frame & (pixels == 0), fills, whole)
        pixels += tf.where(is_frame, width * height, 0)
        outside = tf.where(is_extension, at + 2, size)  # the end of the file otherwise
        outside = tf.where(is_frame, at + 11 + color_table_bytes(at + 9), outside)
        inside_next = tf.where(inside, first > 0, is_frame | is_extension)
        return tf.where(inside, at + 1 + first, outside), inside_next, pixels, whole

    start = 13 + color_table_bytes(10)
    state = (start, tf.constant(False), tf.constant(0, tf.int64), tf.constant(True))
    _, _, pixels, whole = tf.while_loop(lambda at, *_: at < size, scan_block, state)
    return GifFrames(pixels, whole)
