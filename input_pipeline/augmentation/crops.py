"""Resizing and crop geometry: center crop, ten-crop, and the random crops of training."""

import math

import tensorflow as tf

# Crop size of an evaluated image as a fraction of its short side: 224 of 256, as in most papers.
CROP_FRACTION = 0.875
# Draws per random resized crop.
_ATTEMPTS = 10
# Above this aspect ratio, evaluation computes only the crops and not the whole resized image.
_MAX_ASPECT_RATIO = 16
# The side of the crop for which the arguments of `classic` give the short side of the image.
_CLASSIC_CROP = 224


def resize(
    image: tf.Tensor,
    height: int | tf.Tensor,
    width: int | tf.Tensor,
    interpolation: str = "bilinear",
    as_pil: bool = False,
) -> tf.Tensor:
    """Resizes uint8 [H, W, 3] to uint8 [height, width, 3], antialiased if it shrinks.

    With `as_pil`, the width changes first, and pixels are clipped and rounded, a half up, before
    the height changes. Where bicubic interpolation overshoots, pixels differ by ten of 255.
    """
    passes = [(tf.shape(image)[0], width)] if as_pil else []
    for shape in [*passes, (height, width)]:
        pixels = tf.image.resize(image, tf.stack(shape), interpolation, antialias=True)
        image = _to_uint8(pixels, as_pil)
    return image


def _to_uint8(pixels: tf.Tensor, half_up: bool = False) -> tf.Tensor:
    """Rounds and clips float32 pixels; a half becomes even unless `half_up`."""
    rounded = tf.floor(pixels + 0.5) if half_up else tf.round(pixels)
    return tf.cast(tf.clip_by_value(rounded, 0.0, 255.0), tf.uint8)


def resize_area(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes uint8 [H, W, 3] to uint8 [size, size, 3] for training, 5 times faster than `resize`.

    Along an axis that shrinks, a pixel is the mean of the area that it covers, as in OpenCV's
    INTER_AREA, which also antialiases. Along an axis that grows, interpolation is bilinear.
    """
    shape = tf.minimum(tf.shape(image)[:2], size)
    shrunk = tf.raw_ops.ResizeArea(images=image[None], size=shape)
    # Only copies if no axis grows.
    resized = tf.raw_ops.ResizeBilinear(images=shrunk, size=[size, size], half_pixel_centers=True)
    return tf.cast(resized[0] + 0.5, tf.uint8)


def eval_short_side(
    size: int, crop_fraction: float = CROP_FRACTION, torchvision_rounding: bool = False
) -> int:
    """Returns the short side in pixels to which evaluation resizes an image before cropping."""
    return int(size / crop_fraction) if torchvision_rounding else round(size / crop_fraction)


def resized_shape(shape: tf.Tensor, length: int, torchvision_rounding: bool = False) -> tf.Tensor:
    """Returns the size of an image whose short side becomes `length`, at the same aspect ratio.

    Args:
      shape: int32 [2], height and width.
      length: pixels.
      torchvision_rounding: see `extract_views`.

    Returns:
      int32 [2], height and width.
    """
    sides = tf.cast(shape, tf.float64)
    target, shortest = tf.cast(length, tf.float64), tf.reduce_min(sides)
    if torchvision_rounding:
        resized = tf.floor(target * sides / shortest)
    else:
        resized = tf.round(sides * (target / shortest))
    longest = float(tf.int32.max // 2)  # reached by strips a million times as long as wide
    resized = tf.minimum(resized, longest)
    return tf.maximum(tf.cast(resized, tf.int32), length)


def extract_views(
    image: tf.Tensor,
    size: int,
    crops: int,
    crop_fraction: float = CROP_FRACTION,
    interpolation: str = "bilinear",
    torchvision_rounding: bool = False,
) -> tf.Tensor:
    """Returns the crops that evaluation uses (Krizhevsky et al. 2012, section 4.1).

    Args:
      image: uint8 [H, W, 3].
      size: side of a crop in pixels.
      crops: 1 for the center crop; 10 for four corners, the center and their mirror images.
      crop_fraction: the image is resized so that its short side is size / crop_fraction.
      interpolation: "bilinear" or "bicubic".
      torchvision_rounding: round as torchvision and timm do. Both sides of the resized image are
        rounded down. The offset of the center crop is rounded to the nearest integer, a half to
        the even one. Pixels are those of PIL, see `resize`.

    Returns:
      uint8 [crops, size, size, 3]. Ten crops are upper left, upper right, lower left, lower right
      and center, then the same mirrored.
    """
    short_side = eval_short_side(size, crop_fraction, torchvision_rounding)
    height, width = tf.unstack(resized_shape(tf.shape(image)[:2], short_side, torchvision_rounding))
    bottom, right = height - size, width - size
    if torchvision_rounding:
        top, left = (tf.cast(tf.round(space / 2), tf.int32) for space in (bottom, right))
    else:
        top, left = bottom // 2, right // 2  # rounded to the upper left
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)] if crops == 10 else []
    positions = [*corners, (top, left)]

    def crop_after_resizing() -> tf.Tensor:
        resized = resize(image, height, width, interpolation, as_pil=torchvision_rounding)
        return tf.stack([resized[y : y + size, x : x + size] for y, x in positions])

    def crop_while_resizing() -> tf.Tensor:
        how = ((height, width), (size, size), interpolation, torchvision_rounding)
        return tf.stack([_resize_and_crop(image, position, *how) for position in positions])

    # Resizing the whole of a 1 x 5000 image would take a gigabyte.
    is_strip = tf.maximum(height, width) > _MAX_ASPECT_RATIO * tf.minimum(height, width)
    views = tf.cond(is_strip, crop_while_resizing, crop_after_resizing)
    if crops == 10:
        views = tf.concat([views, tf.reverse(views, axis=[2])], axis=0)
    return tf.reshape(views, [crops, size, size, 3])


def _resize_and_crop(
    image: tf.Tensor,
    corner: tuple[int | tf.Tensor, int | tf.Tensor],
    resized_shape: tuple[int | tf.Tensor, int | tf.Tensor],
    crop_shape: tuple[int | tf.Tensor, int | tf.Tensor],
    interpolation: str,
    as_pil: bool,
) -> tf.Tensor:
    """Computes only the crop at `corner` of an image resized to `resized_shape`, see `resize`."""
    kernel = {"bilinear": "triangle", "bicubic": "keyscubic"}[interpolation]
    passes = [(corner, resized_shape, crop_shape)]
    if as_pil:
        (top, left), (height, width), columns = corner, resized_shape, crop_shape[1]
        rows = tf.shape(image)[0]
        passes = [
            ((0, left), (rows, width), (rows, columns)),
            ((top, 0), (height, columns), crop_shape),
        ]
    for offset, whole, part in passes:
        resized = tf.raw_ops.ScaleAndTranslate(
            images=image[None],
            size=tf.stack(part),
            scale=tf.cast(tf.stack(whole) / tf.shape(image)[:2], tf.float32),
            translation=-tf.cast(tf.stack(offset), tf.float32),
            kernel_type=kernel,
            antialias=True,
        )
        image = _to_uint8(resized[0], as_pil)
    return image


def random_window(
    shape: tf.Tensor,
    seed: tf.Tensor,
    min_area: float,
    max_area: float,
    min_aspect: float,
    max_aspect: float,
) -> tf.Tensor:
    """Draws the window of a random resized crop (Szegedy et al. 2015, section 6).

    The area is uniform in [min_area, max_area] times the image's area. The aspect ratio is
    log-uniform in [min_aspect, max_aspect]. The position is uniform. Returns the first of ten draws
    that fits into the image, or the whole image if no draw fits.

    Args:
      shape: int32 [2], height and width of the image.
      seed: int64 [2], for stateless random operations.
      min_area, max_area: bounds of the area as fractions of the image's area.
      min_aspect, max_aspect: bounds of the ratio of width to height.

    Returns:
      int32 [4]: top, left, height, width.
    """
    height, width = tf.unstack(tf.cast(shape, tf.float32))
    draws = tf.random.stateless_uniform([4, _ATTEMPTS], seed)
    area = height * width * (min_area + (max_area - min_area) * draws[0])
    # 0 and log(4 / 3) by default, exactly, so that older runs are reproduced.
    middle = math.log(min_aspect * max_aspect) / 2
    aspect = tf.exp(middle + (2.0 * draws[1] - 1.0) * (math.log(max_aspect) - middle))
    heights = tf.round(tf.sqrt(area / aspect))
    widths = tf.round(tf.sqrt(area * aspect))
    fits = (heights <= height) & (widths <= width) & (heights >= 1.0) & (widths >= 1.0)
    # Append the whole image, so that one candidate always fits.
    heights = tf.concat([heights, [height]], 0)
    widths = tf.concat([widths, [width]], 0)
    first = tf.argmax(tf.concat([fits, [True]], 0))
    crop_height, crop_width = heights[first], widths[first]
    position = tf.concat([draws[2:], tf.zeros([2, 1])], 1)[:, first]
    top = tf.floor(position[0] * (height - crop_height + 1.0))
    left = tf.floor(position[1] * (width - crop_width + 1.0))
    # A draw just below 1 may round up to one past the last position.
    top, left = tf.minimum(top, height - crop_height), tf.minimum(left, width - crop_width)
    return tf.cast(tf.stack([top, left, crop_height, crop_width]), tf.int32)


def classic_window(
    shape: tf.Tensor,
    draws: tf.Tensor,
    min_stretch: float,
    max_stretch: float,
    min_side: float,
    max_side: float,
) -> tf.Tensor:
    """Returns the window that is equivalent to the three random steps of the project's predecessor.

    The predecessor stretched the long side by 0.8 to 1.25, resized the short side to 256 to 384
    pixels (the arguments), and cropped 224 x 224 pixels. The window contains the source pixels of
    that crop, for any output size. Resizing the window does all three steps at once.

    Args:
      shape: int32 [2], height and width of the image.
      draws: float32 [4], uniform in [0, 1), for stretch, short side, top and left.
      min_stretch, max_stretch: bounds of the factor of the long side.
      min_side, max_side: bounds of the short side in pixels, for a crop of 224 pixels.

    Returns:
      int32 [4]: top, left, height, width.
    """
    sides = tf.cast(shape, tf.float32)  # [2], as are all tensors below
    min_zoom, max_zoom = min_side / _CLASSIC_CROP, max_side / _CLASSIC_CROP
    stretch = min_stretch + (max_stretch - min_stretch) * draws[0]
    # Of two equal sides, the height is stretched.
    stretch = tf.where(sides > tf.reverse(sides, [0]) - [0.5, 0.0], stretch, 1.0)
    zoom = min_zoom + (max_zoom - min_zoom) * draws[1]
    window = tf.round(tf.reduce_min(sides * stretch) / (stretch * zoom))
    window = tf.clip_by_value(window, 1.0, sides)
    start = tf.floor(draws[2:] * (sides - window + 1.0))
    # A draw just below 1 may round up to one past the last position.
    start = tf.minimum(start, sides - window)
    return tf.cast(tf.concat([start, window], 0), tf.int32)
