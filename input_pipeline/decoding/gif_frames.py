"""The frames of a GIF file, found without decoding them (GIF89a specification)."""

import tensorflow as tf

_IMAGE_SEPARATOR, _EXTENSION_INTRODUCER = 0x2C, 0x21
# Further than a block's fixed part reaches.
_PADDING = 16


def scan_frames(data):
    """Goes from block to block.

    Args:
      data: scalar string tensor, a GIF file, however damaged.

    Returns:
      (pixels of all frames together, int64 scalar; whether the first frame fills the canvas, bool
      scalar, true where there is none).
    """
    read = tf.io.decode_raw(data, tf.uint8)
    size = tf.size(read)
    padded = tf.concat([read, tf.zeros([_PADDING], tf.uint8)], axis=0)

    def byte(at):
        return tf.cast(padded[at], tf.int32)

    def number(at):
        return tf.cast(byte(at) + 256 * byte(at + 1), tf.int64)

    def table(at):  # bytes of the colours that a byte of flags announces
        flags = byte(at)
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)

    def one_block(at, inside, pixels, whole):
        """A block begins with its kind; inside of one, pieces begin with their lengths."""
        first = byte(at)
        is_frame = ~inside & (first == _IMAGE_SEPARATOR)
        is_extension = ~inside & (first == _EXTENSION_INTRODUCER)
        left, top, width, height = (number(at + n) for n in (1, 3, 5, 7))
        fills = (left == 0) & (top == 0) & (width == number(6)) & (height == number(8))
        whole = tf.where(is_frame & (pixels == 0), fills, whole)
        pixels += tf.where(is_frame, width * height, 0)
        outside = tf.where(is_extension, at + 2, size)  # or the end, or nothing that is known
        outside = tf.where(is_frame, at + 11 + table(at + 9), outside)
        inside_next = tf.where(inside, first > 0, is_frame | is_extension)
        return tf.where(inside, at + 1 + first, outside), inside_next, pixels, whole

    start = 13 + table(10)
    state = (start, tf.constant(False), tf.constant(0, tf.int64), tf.constant(True))
    _, _, pixels, whole = tf.while_loop(lambda at, *_: at < size, one_block, state)
    return pixels, whole
