"""What the first bytes of an image file say, before anything is decoded.

A header of a few bytes can claim half a gigabyte of pixels: sizes are checked first.
"""

import tensorflow as tf

from input_pipeline.decoding import gif_frames

# PIL's limit for images of unknown origin.
MAX_PIXELS = 89_478_485

_HEADER_BYTES = 32
# Of a WebP file's extended header: where its flags are, and two of them (RFC 9649).
_VP8X_FLAGS_OFFSET, _ALPHA_FLAG, _ANIMATION_FLAG = 20, 0x10, 0x02
_PARTIAL_GIF_MESSAGE = "a GIF file whose first frame is a part of it"
_ALL_BYTES = [bytes([byte]) for byte in range(256)]


def is_jpeg(data):
    """Whether a scalar string tensor starts like a JPEG file."""
    return tf.strings.substr(data, 0, 3) == b"\xff\xd8\xff"


def is_webp(data):
    """Whether it starts like a WebP file."""
    return _starts_with(data, b"RIFF") & _starts_with(data, b"WEBP", at=8)


def check_header(data):
    """Returns `data`, a whole file other than a JPEG, once its header is found harmless.

    Raises:
      tf.errors.InvalidArgumentError: the header claims more than MAX_PIXELS (of a WebP file, in
        all its frames: TensorFlow decodes every one), or is a BMP file's with a palette, whose
        colours TensorFlow does not look up.
    """
    frames = tf.cond(
        _is_webp_animation(data), lambda: _count_webp_frames(data), lambda: tf.constant(1, tf.int64)
    )
    few = _require_few_pixels([tf.reduce_prod(_read_size(data)), frames])
    palette = _starts_with(data, b"BM") & (_read_little_endian(_decode_header(data), 28, 2) <= 8)
    known = _require(~palette, "a BMP file with a palette")
    # The decoder takes the result, so it cannot start beside the checks.
    with tf.control_dependencies([few, known]):
        return tf.identity(data)


def set_animation_alpha_flag(data):
    """Returns a WebP file, with the flag of an alpha channel set if it is an animation.

    TensorFlow's decoder makes room for three channels where the flag is not set, and writes four
    of an animation: the process ends. The first three are the same with the flag.
    """

    def marked():
        flags = tf.gather(_ALL_BYTES, _decode_header(data)[_VP8X_FLAGS_OFFSET] | _ALPHA_FLAG)
        head = tf.strings.substr(data, 0, _VP8X_FLAGS_OFFSET)
        return head + flags + tf.strings.substr(data, _VP8X_FLAGS_OFFSET + 1, 2**31 - 1)

    return tf.cond(_is_webp_animation(data), marked, lambda: data)


def _is_webp_animation(data):
    """Whether a file is a WebP file of several frames."""
    is_extended = is_webp(data) & _starts_with(data, b"VP8X", at=12)
    return is_extended & (_decode_header(data)[_VP8X_FLAGS_OFFSET] & _ANIMATION_FLAG > 0)


def _count_webp_frames(data):
    """How many chunks of frames a WebP file has, at least 1."""
    found = tf.size(tf.strings.split(data, b"ANMF"), tf.int64) - 1
    return tf.maximum(found, 1)


def read_jpeg_shape(data):
    """Height and width of a JPEG, int32 [2], once they are found harmless.

    Raises:
      tf.errors.InvalidArgumentError: it claims more than MAX_PIXELS.
    """
    shape = tf.image.extract_jpeg_shape(data)[:2]
    with tf.control_dependencies([_require_few_pixels(tf.cast(shape, tf.int64))]):
        return tf.identity(shape)


def check_gif_frames(data):
    """Returns `data`, once its frames are found harmless if it is a GIF file.

    TensorFlow reads every frame, whatever their sizes, to return the first.

    Raises:
      tf.errors.InvalidArgumentError: they have more than MAX_PIXELS together, or the first one is a
        part of the canvas, around which TensorFlow would leave black.
    """
    none = (tf.constant(0, tf.int64), tf.constant(True))
    frames = tf.cond(
        _starts_with(data, b"GIF8"), lambda: gif_frames.scan_frames(data), lambda: none
    )
    few = _require_few_pixels([frames[0]])
    with tf.control_dependencies([few, _require(frames[1], _PARTIAL_GIF_MESSAGE)]):
        return tf.identity(data)


def require_whole_gif(data, shape):
    """The operation that fails unless a decoded GIF, int32 [2], has the size of its canvas:
    TensorFlow makes it as large as the largest of its frames."""
    fills = tf.reduce_all(tf.cast(shape, tf.int64) == _read_size(data))
    return _require(fills | ~_starts_with(data, b"GIF8"), _PARTIAL_GIF_MESSAGE)


def _require_few_pixels(shape):
    return _require(tf.reduce_prod(shape) <= MAX_PIXELS, "the image claims too many pixels")


def _require(condition, message):
    """The bare operation: `tf.debugging.Assert` wraps it into a branch, which costs more."""
    return tf.raw_ops.Assert(condition=condition, data=[tf.constant(message)])


def _read_size(data):
    """Height and width, int64 [2]; zeros for a format that is not known here."""
    head = _decode_header(data)

    def of_bmp():  # a negative height means that rows go downwards
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
            (_starts_with(data, b"BM"), of_bmp),
            (is_webp(data), lambda: _read_webp_size(data, head)),
        ],
        default=lambda: tf.zeros([2], tf.int64),
    )


def _read_webp_size(data, head):
    """Height and width from the first chunk: extended, lossless or lossy (RFC 9649)."""

    def extended():
        return tf.stack([_read_little_endian(head, 27, 3), _read_little_endian(head, 24, 3)]) + 1

    def lossless():  # 14 bits each, after the signature byte
        bits = _read_little_endian(head, 21, 4)
        return tf.stack([(bits // 2**14) % 2**14, bits % 2**14]) + 1

    def lossy():
        return (
            tf.stack([_read_little_endian(head, 28, 2), _read_little_endian(head, 26, 2)]) % 2**14
        )

    kinds = [
        (_starts_with(data, b"VP8X", at=12), extended),
        (_starts_with(data, b"VP8L", at=12), lossless),
    ]
    return tf.case(kinds, default=lossy)


def _starts_with(data, magic, at=0):
    return tf.strings.substr(_read_padded_header(data), at, len(magic)) == magic


def _read_padded_header(data):
    """The first bytes, with zeros behind the end of a short file."""
    return tf.strings.substr(
        tf.strings.substr(data, 0, _HEADER_BYTES) + b"\0" * _HEADER_BYTES, 0, _HEADER_BYTES
    )


def _decode_header(data):
    return tf.cast(tf.io.decode_raw(_read_padded_header(data), tf.uint8), tf.int64)  # [_HEAD]


def _read_little_endian(head, at, length):
    """The little-endian number of `length` bytes."""
    return tf.reduce_sum(head[at : at + length] * [256**i for i in range(length)])


def _read_big_endian_pair(head, first, second):
    powers = [256**i for i in (3, 2, 1, 0)]
    return tf.stack([tf.reduce_sum(head[at : at + 4] * powers) for at in (first, second)])
