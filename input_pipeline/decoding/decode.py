"""Decodes image files to the same RGB pixels as PIL.

The format is detected from the first bytes and not from the file name, because ILSVRC 2012
contains a PNG file named .JPEG. EXIF orientation is ignored unless `exif` is "apply".
"""

from collections.abc import Callable

import tensorflow as tf

from input_pipeline.decoding import image_header
from input_pipeline.decoding.exif import (
    read_orientation,
    to_stored_window,
    turn_upright,
    upright_shape,
)
from input_pipeline.text import tf_error_message

# Columns on each side of a window that affect the color of its pixels.
_CHROMA_NEIGHBORS = 2
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")


def decode_image(data: tf.Tensor, exif: str = "ignore") -> tf.Tensor:
    """Decodes a JPEG, PNG, BMP, GIF (first frame) or WebP file (first frame).

    Args:
      data: scalar string tensor, the whole file; or its decoded image, uint8 [H, W, 3].
      exif: "apply" turns a JPEG upright by its EXIF orientation, "ignore" does not.

    Returns:
      uint8 [H, W, 3], RGB. Gray is repeated, alpha is dropped. Transparent pixels of a GIF are
      black; in PIL they have a color of the palette.

    Raises:
      tf.errors.InvalidArgumentError: not an image, a truncated image, or an unsafe header.
    """
    data = tf.convert_to_tensor(data)
    if data.dtype == tf.uint8:
        return data
    image = tf.cond(
        image_header.is_jpeg(data), lambda: _decode_jpeg(data, exif), lambda: _decode_non_jpeg(data)
    )
    return tf.ensure_shape(image, [None, None, 3])


def decode_cropped(
    data: tf.Tensor, choose_window: Callable[[tf.Tensor], tf.Tensor], exif: str = "ignore"
) -> tf.Tensor:
    """Decodes one window of an image. Of a JPEG file, it decodes only the window.

    The pixels are equal to the same window of the decoded image.

    Args:
      data: see `decode_image`.
      choose_window: function from the image's size, int32 [2] (height, width), to a window inside
        it, int32 [4] (top, left, height, width).
      exif: see `decode_image`. Size and window are those of the upright image.

    Returns:
      uint8 [height, width, 3] of the window.
    """

    def decode_jpeg_window() -> tf.Tensor:
        shape = image_header.read_jpeg_shape(data)
        if exif == "apply":
            orientation = read_orientation(data)
            upright = upright_shape(shape, orientation)
            window = to_stored_window(choose_window(upright), upright, orientation)
            return turn_upright(decode_stored_window(shape, window), orientation)
        return decode_stored_window(shape, choose_window(shape))

    def decode_stored_window(shape: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        top, left, height, width = tf.unstack(window)
        # The color of the outermost columns is interpolated with the adjacent columns.
        before = tf.minimum(left, _CHROMA_NEIGHBORS)
        after = tf.minimum(shape[1] - left - width, _CHROMA_NEIGHBORS)
        wider = tf.stack([top, left - before, height, before + width + after])
        image = tf.io.decode_and_crop_jpeg(data, wider, channels=3, dct_method="INTEGER_ACCURATE")
        return image[:, before : before + width]

    data = tf.convert_to_tensor(data)

    def crop(image: tf.Tensor) -> tf.Tensor:
        top, left, height, width = tf.unstack(choose_window(tf.shape(image)[:2]))
        return image[top : top + height, left : left + width]

    def decode_then_crop() -> tf.Tensor:
        return crop(_decode_non_jpeg(data))

    if data.dtype == tf.uint8:
        return crop(data)
    cropped = tf.cond(image_header.is_jpeg(data), decode_jpeg_window, decode_then_crop)
    return tf.ensure_shape(cropped, [None, None, 3])


def describe_error(error: tf.errors.OpError) -> str:
    """Returns in one line why TensorFlow did not read or decode a file."""
    if "Unknown image file format" in error.message:
        return "not a JPEG, PNG, BMP, GIF or WebP file"
    return tf_error_message(error)


def _decode_jpeg(data: tf.Tensor, exif: str) -> tf.Tensor:
    with tf.control_dependencies([image_header.read_jpeg_shape(data)]):
        data = tf.identity(data)
    # The default method differs from PIL by up to 3 of 255. This one is equal and as fast.
    image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    return turn_upright(image, read_orientation(data)) if exif == "apply" else image


# All datasets of the process call this one function, which is built for the first file that needs
# it. Inlined into each dataset's graph, it took longer to trace and to optimize than the rest.
@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
    experimental_attributes={"_noinline": True},
)
def _decode_non_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Decodes a file that is not a JPEG."""
    data = image_header.check_header(data)
    image = tf.case(
        [
            (image_header.is_webp(data), lambda: _decode_webp(data)),
            (image_header.is_palette_bmp(data), lambda: image_header.decode_palette_bmp(data)),
        ],
        default=lambda: _decode_png_bmp_gif(data),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _decode_webp(data: tf.Tensor) -> tf.Tensor:
    # Without the flag, the decoder writes past the end of the tensor for an animation.
    return tf.io.decode_webp(image_header.set_animation_alpha_flag(data))[0, :, :, :3]


def _decode_png_bmp_gif(data: tf.Tensor) -> tf.Tensor:
    data = image_header.check_gif_frames(data)
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    # TensorFlow returns a GIF's first frame without the surrounding canvas.
    whole = image_header.require_whole_gif(data, tf.shape(image)[:2])
    with tf.control_dependencies([whole]):
        return tf.identity(image)
