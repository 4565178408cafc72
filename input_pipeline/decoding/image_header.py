"""Checks the header of an image file before the file is decoded.

A header of a few bytes can claim half a gigabyte of pixels, so its size is checked first.
"""

from collections.abc import Sequence

import tensorflow as tf

from input_pipeline.decoding import gif_frames

# Above this, PIL refuses an image; above half of it, it warns. Each reader thread decodes one image
# at a time, and needs up to 3 bytes per pixel (540 MB), 5 for GIF (0.9 GB), 8 for a BMP with 8 bits
# per pixel (1.4 GB), 9 for a progressive JPEG (1.6 GB), whose coefficients libjpeg keeps.
MAX_PIXELS = 178_956_970

_HEADER_BYTES = 34
# Position of the flags in the extended header of a WebP file, and two of the flags (RFC 9649).
_VP8X_FLAGS_OFFSET, _ALPHA_FLAG, _ANIMATION_FLAG = 20, 0x10, 0x02
_PARTIAL_GIF_MESSAGE = "a GIF file whose first frame does not match its canvas"
_ALL_BYTES = [bytes([byte]) for byte in range(256)]


def is_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Returns whether a scalar string tensor starts like a JPEG file."""
    return tf.strings.substr(data, 0, 3) == b"\xff\xd8\xff"


def is_webp(data: tf.Tensor) -> tf.Tensor:
    """Returns whether a scalar string tensor starts like a WebP file."""
    return _starts_with(data, b"RIFF") & _starts_with(data, b"WEBP", at=8)


def check_header(data: tf.Tensor) -> tf.Tensor:
    """Returns `data`, a whole file other than a JPEG, after checking its header.

    Raises:
      tf.errors.InvalidArgumentError: the header claims more than MAX_PIXELS. For a WebP file, all
        frames count because TensorFlow decodes all of them. Or the file is a BMP of an unusual
        kind, of which TensorFlow or we would read wrong pixels.
    """
    frames = tf.cond(
        _is_webp_animation(data), lambda: _count_webp_frames(data), lambda: tf.constant(1, tf.int64)
    )
    few = _require_few_pixels([tf.reduce_prod(_read_size(data)), frames])
    head = _decode_header(data)
    header_size, bits = _read_little_endian(head, 14, 4), _read_little_endian(head, 28, 2)
    compression = _read_little_endian(head, 30, 4)
    is_usual = (header_size >= 40) & ((bits > 8) | ((bits == 8) & (compression == 0)))
    known = _require(
        is_usual | ~_starts_with(data, b"BM"),
        "a BMP file of OS/2, compressed, or with fewer than 8 bits per pixel",
    )
    # The decoder reads the result, so it cannot start before the checks.
    with tf.control_dependencies([few, known]):
        return tf.identity(data)


def is_palette_bmp(data: tf.Tensor) -> tf.Tensor:
    """Returns whether a file is a BMP file of 8 bits per pixel."""
    return _starts_with(data, b"BM") & (_read_little_endian(_decode_header(data), 28, 2) == 8)


def decode_palette_bmp(data: tf.Tensor) -> tf.Tensor:
    """Decodes a BMP file of 8 bits per pixel (BITMAPINFOHEADER). TensorFlow ignores the palette.

    Args:
      data: scalar string tensor, a whole file that `check_header` has checked.

    Returns:
      uint8 [H, W, 3].

    Raises:
      tf.errors.InvalidArgumentError: the file is truncated.
    """
    content = tf.io.decode_raw(data, tf.uint8)
    long_enough = _require(tf.size(content) >= 54, "a truncated BMP file")
    with tf.control_dependencies([long_enough]):
        head = tf.cast(content[:54], tf.int64)
    first_pixel, header_size = _read_little_endian(head, 10, 4), _read_little_endian(head, 14, 4)
    num_colors = _read_little_endian(head, 46, 4)
    num_colors = tf.where(num_colors == 0, tf.constant(256, tf.int64), tf.minimum(num_colors, 256))
    height, width = tf.unstack(_read_size(data))
    stride = (width + 3) // 4 * 4  # rows are padded to four bytes
    first_color = 14 + header_size
    end = tf.maximum(first_pixel + stride * height, first_color + 4 * num_colors)
    whole = _require(end <= tf.size(content, tf.int64), "a truncated BMP file")
    with tf.control_dependencies([whole]):
        content = tf.identity(content)
    colors = tf.reshape(content[first_color : first_color + 4 * num_colors], [-1, 4])
    colors = tf.pad(colors[:, 2::-1], [[0, 256 - num_colors], [0, 0]])  # blue comes first
    rows = tf.reshape(content[first_pixel : first_pixel + stride * height], [height, stride])
    is_bottom_up = _read_little_endian(head, 22, 4) < 2**31  # a negative height means top-down
    rows = tf.raw_ops.Reverse(tensor=rows, dims=tf.stack([is_bottom_up, False]))
    return tf.gather(colors, tf.cast(rows[:, :width], tf.int32))


def set_animation_alpha_flag(data: tf.Tensor) -> tf.Tensor:
    """Returns a WebP file with the alpha flag set if it is an animation.

    If the flag is not set, TensorFlow's decoder allocates three channels but writes four for an
    animation, which crashes the process. The flag does not change the first three channels.
    """

    def set_flag() -> tf.Tensor:
        flags = tf.gather(_ALL_BYTES, _decode_header(data)[_VP8X_FLAGS_OFFSET] | _ALPHA_FLAG)
        head = tf.strings.substr(data, 0, _VP8X_FLAGS_OFFSET)
        return head + flags + tf.strings.substr(data, _VP8X_FLAGS_OFFSET + 1, 2**31 - 1)

    return tf.cond(_is_webp_animation(data), set_flag, lambda: data)


def _is_webp_animation(data: tf.Tensor) -> tf.Tensor:
    """Returns whether a file is an animated WebP file."""
    is_extended = is_webp(data) & _starts_with(data, b"VP8X", at=12)
    return is_extended & (_decode_header(data)[_VP8X_FLAGS_OFFSET] & _ANIMATION_FLAG > 0)


def _count_webp_frames(data: tf.Tensor) -> tf.Tensor:
    """Counts the frame chunks of a WebP file; at least 1."""
    count = tf.size(tf.strings.split(data, b"ANMF"), tf.int64) - 1
    return tf.maximum(count, 1)


def read_jpeg_shape(data: tf.Tensor) -> tf.Tensor:
    """Returns height and width of a JPEG, int32 [2], after checking them.

    Raises:
      tf.errors.InvalidArgumentError: the header claims more than MAX_PIXELS.
    """
    shape = tf.image.extract_jpeg_shape(data)[:2]
    with tf.control_dependencies([_require_few_pixels(tf.cast(shape, tf.int64))]):
        return tf.identity(shape)


def check_gif_frames(data: tf.Tensor) -> tf.Tensor:
    """Returns `data`, after checking the frames of a GIF file. Other formats are not checked.

    TensorFlow decodes all frames, of any size, to return the first one.

    Raises:
      tf.errors.InvalidArgumentError: the frames have more than MAX_PIXELS in total. Or the first
        frame does not cover the canvas, and TensorFlow would leave the rest black.
    """
    no_frames = gif_frames.GifFrames(tf.constant(0, tf.int64), tf.constant(True))
    frames = tf.cond(
        _starts_with(data, b"GIF8"), lambda: gif_frames.scan_frames(data), lambda: no_frames
    )
    few = _require_few_pixels([frames.num_pixels])
    whole = _require(frames.first_fills_canvas, _PARTIAL_GIF_MESSAGE)
    with tf.control_dependencies([few, whole]):
        return tf.identity(data)


def require_whole_gif(data: tf.Tensor, shape: tf.Tensor) -> tf.Operation:
    """Makes the operation that fails if a decoded GIF does not have the size of its canvas.

    TensorFlow makes a GIF as large as its largest frame.

    Args:
      data: scalar string tensor, a whole file. Other formats always pass.
      shape: int32 [2], height and width of the decoded image.
    """
    fills = tf.reduce_all(tf.cast(shape, tf.int64) == _read_size(data))
    return _require(fills | ~_starts_with(data, b"GIF8"), _PARTIAL_GIF_MESSAGE)


def _require_few_pixels(shape: tf.Tensor | Sequence[tf.Tensor]) -> tf.Operation:
    return _require(tf.reduce_prod(shape) <= MAX_PIXELS, "the image claims too many pixels")


def _require(condition: tf.Tensor, message: str) -> tf.Operation:
    """Makes a raw assertion; `tf.debugging.Assert` adds a branch, which costs more."""
    return tf.raw_ops.Assert(condition=condition, data=[tf.constant(message)])


def _read_size(data: tf.Tensor) -> tf.Tensor:
    """Returns height and width, int64 [2]; zeros for an unknown format."""
    head = _decode_header(data)

    def read_bmp_size() -> tf.Tensor:  # a negative height means that rows are stored top-down
        signed = [
            tf.bitcast(tf.cast(_read_little_endian(head, at, 4), tf.uint32), tf.int32)
            for at in (22, 18)
        ]
        return tf.abs(tf.cast(tf.stack(signed), tf.int64))

    return tf.case(
        [
            (_starts_with(data, b"\x89PNG"), lambda: _read_big_endian_pair(head, 20, 16)),
            (
                _starts_with(data, b"GIF8"),
                lambda: tf.stack(
                    [_read_little_endian(head, 8, 2), _read_little_endian(head, 6, 2)]
                ),
            ),
            (_starts_with(data, b"BM"), read_bmp_size),
            (is_webp(data), lambda: _read_webp_size(data, head)),
        ],
        default=lambda: tf.zeros([2], tf.int64),
    )


def _read_webp_size(data: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
    """Returns height and width from the first chunk: extended, lossless or lossy (RFC 9649)."""

    def extended() -> tf.Tensor:
        return tf.stack([_read_little_endian(head, 27, 3), _read_little_endian(head, 24, 3)]) + 1

    def lossless() -> tf.Tensor:  # 14 bits each, after the signature byte
        bits = _read_little_endian(head, 21, 4)
        return tf.stack([(bits // 2**14) % 2**14, bits % 2**14]) + 1

    def lossy() -> tf.Tensor:
        return (
            tf.stack([_read_little_endian(head, 28, 2), _read_little_endian(head, 26, 2)]) % 2**14
        )

    cases = [
        (_starts_with(data, b"VP8X", at=12), extended),
        (_starts_with(data, b"VP8L", at=12), lossless),
    ]
    return tf.case(cases, default=lossy)


def _starts_with(data: tf.Tensor, magic: bytes, at: int = 0) -> tf.Tensor:
    return tf.strings.substr(_read_padded_header(data), at, len(magic)) == magic


def _read_padded_header(data: tf.Tensor) -> tf.Tensor:
    """Returns the first bytes of a file; zeros pad a short file."""
    return tf.strings.substr(
        tf.strings.substr(data, 0, _HEADER_BYTES) + b"\0" * _HEADER_BYTES, 0, _HEADER_BYTES
    )


def _decode_header(data: tf.Tensor) -> tf.Tensor:
    """Returns the values of the first bytes, int64 [_HEADER_BYTES]."""
    return tf.cast(tf.io.decode_raw(_read_padded_header(data), tf.uint8), tf.int64)


def _read_little_endian(head: tf.Tensor, at: int, length: int) -> tf.Tensor:
    """Reads a little-endian number of `length` bytes."""
    return tf.reduce_sum(head[at : at + length] * [256**i for i in range(length)])


def _read_big_endian_pair(head: tf.Tensor, first: int, second: int) -> tf.Tensor:
    """Reads two big-endian numbers of four bytes at the given positions: int64 [2]."""
    powers = [256**i for i in (3, 2, 1, 0)]
    return tf.stack([tf.reduce_sum(head[at : at + 4] * powers) for at in (first, second)])
