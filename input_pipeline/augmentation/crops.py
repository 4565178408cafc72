"""Where crops lie, and resizing: centre crop, ten-crop, random windows of training."""

import math

import tensorflow as tf

# Crop of an evaluated image over its short side: 224 of 256, as in most papers.
CROP_FRACTION = 0.875
_ATTEMPTS = 10
# Ratio of the sides from which evaluation never holds the whole resized image.
_STRIP = 16
# `classic` stretches the long side by 0.8 to 1.25, resizes the short side to 256 to 384 and cuts
# out 224 pixels: its bounds for any size of crop.
_MIN_STRETCH, _MAX_STRETCH = 0.8, 1.25
_MIN_RESIZE, _MAX_RESIZE = 256 / 224, 384 / 224


def resize(image, height, width, interpolation="bilinear"):
    """Resizes uint8 [H, W, 3] to uint8 [height, width, 3], antialiased when shrinking."""
    resized = tf.image.resize(image, tf.stack([height, width]), interpolation, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


def resize_area(image, size):
    """Resizes uint8 [H, W, 3] to uint8 [size, size, 3] for training, at a fifth of `resize`'s cost.

    Along an axis that shrinks, the mean over what each pixel covers, as OpenCV's INTER_AREA has it
    (antialiased: nothing is left out); along one that grows, bilinear.
    """
    shape = tf.minimum(tf.shape(image)[:2], size)
    shrunk = tf.raw_ops.ResizeArea(images=image[None], size=shape)
    # Where nothing grows this only copies.
    resized = tf.raw_ops.ResizeBilinear(images=shrunk, size=[size, size], half_pixel_centers=True)
    return tf.cast(resized[0] + 0.5, tf.uint8)


def eval_short_side(size, crop_fraction=CROP_FRACTION):
    """Length in pixels of an evaluated image's short side, for crops of this size."""
    return round(size / crop_fraction)


def resized_shape(shape, length):
    """Height and width of an image whose short side becomes `length`, keeping the aspect ratio.

    Args:
      shape: int32 [2].
      length: pixels.

    Returns:
      int32 [2].
    """
    sides = tf.cast(shape, tf.float64)
    scale = tf.cast(length, tf.float64) / tf.reduce_min(sides)
    longest = float(tf.int32.max // 2)  # of a strip a million times as long as wide
    resized = tf.minimum(tf.round(sides * scale), longest)
    return tf.maximum(tf.cast(resized, tf.int32), length)


def extract_views(image, size, crops, crop_fraction=CROP_FRACTION, interpolation="bilinear"):
    """The crops of an image that evaluation looks at (Krizhevsky et al. 2012, section 4.1).

    Args:
      image: uint8 [H, W, 3].
      size: side of a crop in pixels.
      crops: 1 for the centre; 10 for the four corners and the centre and their mirror images.
      crop_fraction: the image is resized so that its short side is size / crop_fraction.
      interpolation: "bilinear" or "bicubic".

    Returns:
      uint8 [crops, size, size, 3]: upper left, upper right, lower left, lower right, centre, and
      the same mirrored.
    """
    height, width = tf.unstack(
        resized_shape(tf.shape(image)[:2], eval_short_side(size, crop_fraction))
    )
    bottom, right = height - size, width - size
    top, left = bottom // 2, right // 2  # of two middles, the upper left
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)] if crops == 10 else []
    places = [*corners, (top, left)]

    def cut_after_resizing():
        resized = resize(image, height, width, interpolation)
        return tf.stack([resized[y : y + size, x : x + size] for y, x in places])

    def cut_while_resizing():
        return tf.stack(
            [_resize_and_crop(image, height, width, y, x, size, interpolation) for y, x in places]
        )

    # The whole of an image of 1 x 5000 pixels would become a gigabyte.
    is_strip = tf.maximum(height, width) > _STRIP * tf.minimum(height, width)
    views = tf.cond(is_strip, cut_while_resizing, cut_after_resizing)
    if crops == 10:
        views = tf.concat([views, tf.reverse(views, axis=[2])], axis=0)
    return tf.reshape(views, [crops, size, size, 3])


def _resize_and_crop(image, height, width, top, left, size, interpolation):
    """The crop at (top, left) of an image resized to (height, width), and nothing but the crop."""
    kernel = {"bilinear": "triangle", "bicubic": "keyscubic"}[interpolation]
    scale = tf.cast(tf.stack([height, width]) / tf.shape(image)[:2], tf.float32)
    translation = -tf.cast(tf.stack([top, left]), tf.float32)
    part = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=[size, size],
        scale=scale,
        translation=translation,
        kernel_type=kernel,
        antialias=True,
    )
    return tf.cast(tf.clip_by_value(tf.round(part[0]), 0.0, 255.0), tf.uint8)


def random_window(shape, seed, min_area, max_aspect=4 / 3):
    """A window for a random resized crop (Szegedy et al. 2015, section 6).

    Area uniform in [min_area, 1] of the image's, aspect ratio log-uniform in [1 / max_aspect,
    max_aspect], position uniform; the first of ten draws that fits, else the whole image.

    Args:
      shape: int32 [2], height and width of the image.
      seed: int64 [2] for stateless draws.
      min_area: smallest share of the area.
      max_aspect: largest ratio of width to height.

    Returns:
      int32 [4]: top, left, height, width.
    """
    height, width = tf.unstack(tf.cast(shape, tf.float32))
    draws = tf.random.stateless_uniform([4, _ATTEMPTS], seed)
    area = height * width * (min_area + (1.0 - min_area) * draws[0])
    aspect = tf.exp((2.0 * draws[1] - 1.0) * math.log(max_aspect))
    heights = tf.round(tf.sqrt(area / aspect))
    widths = tf.round(tf.sqrt(area * aspect))
    fits = (heights <= height) & (widths <= width) & (heights >= 1.0) & (widths >= 1.0)
    # The whole image goes last, so that the first that fits always exists.
    heights = tf.concat([heights, [height]], 0)
    widths = tf.concat([widths, [width]], 0)
    first = tf.argmax(tf.concat([fits, [True]], 0))
    crop_height, crop_width = heights[first], widths[first]
    at = tf.concat([draws[2:], tf.zeros([2, 1])], 1)[:, first]
    top = tf.floor(at[0] * (height - crop_height + 1.0))
    left = tf.floor(at[1] * (width - crop_width + 1.0))
    # A draw just under 1 may round up to the position after the last.
    top, left = tf.minimum(top, height - crop_height), tf.minimum(left, width - crop_width)
    return tf.cast(tf.stack([top, left, crop_height, crop_width]), tf.int32)


def classic_window(shape, draws):
    """The window that the predecessor's three random steps amount to.

    It stretched the long side by 0.8 to 1.25, resized the image so that its short side was 256 to
    384, and cut out 224 x 224 pixels. These are the pixels of the source that are left, for any
    size of the result: resizing them does all three at once.

    Args:
      shape: int32 [2], height and width of the image.
      draws: float32 [4], uniform in [0, 1): stretch, size of the short side, top, left.

    Returns:
      int32 [4]: top, left, height, width.
    """
    sides = tf.cast(shape, tf.float32)  # [2], as are all below
    stretch = _MIN_STRETCH + (_MAX_STRETCH - _MIN_STRETCH) * draws[0]
    # Of two equal sides the height is stretched.
    stretch = tf.where(sides > tf.reverse(sides, [0]) - [0.5, 0.0], stretch, 1.0)
    zoom = _MIN_RESIZE + (_MAX_RESIZE - _MIN_RESIZE) * draws[1]
    window = tf.round(tf.reduce_min(sides * stretch) / (stretch * zoom))
    window = tf.clip_by_value(window, 1.0, sides)
    start = tf.floor(draws[2:] * (sides - window + 1.0))
    # A draw just under 1 may round up to the position after the last.
    start = tf.minimum(start, sides - window)
    return tf.cast(tf.concat([start, window], 0), tf.int32)
