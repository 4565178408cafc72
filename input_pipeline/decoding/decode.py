"""From encoded bytes to RGB pixels, equal to PIL's.

Formats are told apart by their first bytes, never by the file name: ILSVRC 2012 has a PNG named
.JPEG. EXIF orientation is ignored, as everywhere in the project.
"""

import tensorflow as tf

from input_pipeline.decoding import image_header
from input_pipeline.text import tf_error_message

# Columns at either side of a window that decide over the colour of its pixels.
_CHROMA_NEIGHBORS = 2
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")


def decode_image(data):
    """Decodes a JPEG, PNG, BMP, GIF (first frame) or WebP file (first frame).

    Args:
      data: scalar string tensor, the whole file.

    Returns:
      uint8 [H, W, 3], RGB; grey is repeated, alpha is dropped. Transparent pixels of a GIF are
      black, where PIL has a colour of the palette.

    Raises:
      tf.errors.InvalidArgumentError: not an image, truncated, or refused by its header.
    """
    image = tf.cond(
        image_header.is_jpeg(data), lambda: _decode_jpeg(data), lambda: _decode_non_jpeg(data)
    )
    return tf.ensure_shape(image, [None, None, 3])


def decode_cropped(data, choose_window):
    """Decodes one window of an image, from a JPEG without decoding the rest.

    The pixels are those of the whole image.

    Args:
      data: scalar string tensor, the whole file.
      choose_window: function from int32 [2] (height, width) to int32 [4] (top, left, height,
        width) inside it.

    Returns:
      uint8 [h, w, 3] of the chosen size.
    """

    def jpeg():
        shape = image_header.read_jpeg_shape(data)
        top, left, height, width = tf.unstack(choose_window(shape))
        # The colour of the outermost columns is interpolated with their neighbours'.
        before = tf.minimum(left, _CHROMA_NEIGHBORS)
        after = tf.minimum(shape[1] - left - width, _CHROMA_NEIGHBORS)
        wider = tf.stack([top, left - before, height, before + width + after])
        image = tf.io.decode_and_crop_jpeg(data, wider, channels=3, dct_method="INTEGER_ACCURATE")
        return image[:, before : before + width]

    def other():
        image = _decode_non_jpeg(data)
        top, left, height, width = tf.unstack(choose_window(tf.shape(image)[:2]))
        return image[top : top + height, left : left + width]

    cropped = tf.cond(image_header.is_jpeg(data), jpeg, other)
    return tf.ensure_shape(cropped, [None, None, 3])


def describe_error(error):
    """Why TensorFlow did not read or decode a file, in one line."""
    if "Unknown image file format" in error.message:
        return "not a JPEG, PNG, BMP, GIF or WebP file"
    return tf_error_message(error)


def _decode_jpeg(data):
    with tf.control_dependencies([image_header.read_jpeg_shape(data)]):
        data = tf.identity(data)
    # The default method is up to 3 of 255 off; this one is as fast and equal to PIL's.
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


# Every data set of the process calls this one function, which is built when the first of such files
# comes: as a part of each graph it took longer to trace and to optimize than all the rest of them.
@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
    experimental_attributes={"_noinline": True},
)
def _decode_non_jpeg(data):
    """Decodes a file that is no JPEG."""
    data = image_header.check_header(data)
    image = tf.cond(
        image_header.is_webp(data), lambda: _decode_webp(data), lambda: _decode_png_bmp_gif(data)
    )
    return tf.ensure_shape(image, [None, None, 3])


def _decode_webp(data):
    # An animation without alpha would be written beyond the end of the tensor.
    return tf.io.decode_webp(image_header.set_animation_alpha_flag(data))[0, :, :, :3]


def _decode_png_bmp_gif(data):
    data = image_header.check_gif_frames(data)
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    # TensorFlow returns a GIF's first frame without the canvas around it.
    whole = image_header.require_whole_gif(data, tf.shape(image)[:2])
    with tf.control_dependencies([whole]):
        return tf.identity(image)
