"""From encoded bytes to RGB pixels, equal to PIL's.

Formats are told apart by their first bytes, never by the file name: ILSVRC 2012 has a PNG named
.JPEG. EXIF orientation is ignored, as everywhere in the project.
"""

import tensorflow as tf

# PIL's limit for images of unknown origin. A header of 28 kB can claim half a gigabyte of pixels.
MAX_PIXELS = 89_478_485

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")


def _is_jpeg(data):
    return tf.strings.substr(data, 0, 3) == b"\xff\xd8\xff"


def _is_webp(data):
    return (tf.strings.substr(data, 0, 4) == b"RIFF") & (tf.strings.substr(data, 8, 4) == b"WEBP")


def decode(data):
    """Decodes a JPEG, PNG, BMP, GIF (first frame) or WebP file.

    Args:
      data: scalar string tensor, the whole file.

    Returns:
      uint8 [H, W, 3], RGB; grey is repeated, alpha is dropped.

    Raises:
      tf.errors.InvalidArgumentError: not an image, truncated, or over MAX_PIXELS.
    """
    decoders = [
        (_is_jpeg(data), lambda: _decode_jpeg(data)),
        (_is_webp(data), lambda: _decode_webp(data)),
    ]
    image = tf.case(decoders, default=lambda: _decode_other(data))
    return tf.ensure_shape(image, [None, None, 3])


def decode_cropped(data, choose_window):
    """Decodes one window of an image, from a JPEG without decoding the rest.

    Args:
      data: scalar string tensor, the whole file.
      choose_window: function from int32 [2] (height, width) to int32 [4] (top, left, height,
        width) inside it.

    Returns:
      uint8 [h, w, 3] of the chosen size.
    """

    def jpeg():
        shape = _jpeg_shape(data)
        window = choose_window(shape[:2])
        return tf.io.decode_and_crop_jpeg(data, window, channels=3, dct_method="INTEGER_ACCURATE")

    def other():
        image = decode(data)
        top, left, height, width = tf.unstack(choose_window(tf.shape(image)[:2]))
        return image[top : top + height, left : left + width]

    return tf.ensure_shape(tf.cond(_is_jpeg(data), jpeg, other), [None, None, 3])


def reason(error):
    """What a TensorFlow error says, without the names of its operations."""
    return error.message.split("}} ")[-1].split(" [Op:")[0].strip()


def _jpeg_shape(data):
    shape = tf.image.extract_jpeg_shape(data)
    _check_pixels(tf.cast(shape[0], tf.int64) * tf.cast(shape[1], tf.int64))
    return shape


def _decode_jpeg(data):
    with tf.control_dependencies([_jpeg_shape(data)]):
        # The default method is up to 3 of 255 off; this one is as fast and equal to PIL's.
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_webp(data):
    return tf.io.decode_webp(data, channels=3)[0]


def _decode_other(data):
    return tf.io.decode_image(data, channels=3, expand_animations=False)


def _check_pixels(pixels):
    tf.debugging.assert_less_equal(
        pixels, tf.constant(MAX_PIXELS, tf.int64), "the image claims too many pixels"
    )
