"""Image operations of RandAugment and TrivialAugment, with the same results as PIL.

Each operation maps uint8 [H, W, 3] to uint8 [H, W, 3]. Most operations look up each pixel in a
table of 256 entries. A geometric operation moves in pixels of the level `fill` from outside.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import tensorflow as tf

# Factor, angle or other strength of an operation.
_Scalar: TypeAlias = float | int | tf.Tensor


def brightness(image: tf.Tensor, factor: _Scalar) -> tf.Tensor:
    """Applies `ImageEnhance.Brightness`. Factor 0 gives black, factor 1 the image."""
    return _apply_table(image, _blend(0.0, _levels(), factor))


def contrast(image: tf.Tensor, factor: _Scalar) -> tf.Tensor:
    """Applies `ImageEnhance.Contrast`. Factor 0 gives the mean gray, factor 1 the image."""
    mean = tf.floor(tf.reduce_mean(tf.cast(_to_grayscale(image), tf.float32)) + 0.5)
    return _apply_table(image, _blend(mean, _levels(), factor))


def color(image: tf.Tensor, factor: _Scalar) -> tf.Tensor:
    """Applies `ImageEnhance.Color`. Factor 0 gives the grayscale image, factor 1 the image."""
    gray = tf.cast(_to_grayscale(image), tf.float32)[..., None]
    return _blend(gray, tf.cast(image, tf.float32), factor)


def sharpness(image: tf.Tensor, factor: _Scalar) -> tf.Tensor:
    """Applies `ImageEnhance.Sharpness`. Factor 0 smooths over 3 x 3 pixels, 1 gives the image."""
    pixels = tf.cast(image, tf.float32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    around = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]  # [H - 2, W - 2, 3]
    middle = tf.floor((around + 4.0 * pixels[1:-1, 1:-1]) / 13.0 + 0.5)
    # Pixels at the border lack neighbors and are not smoothed.
    middle = tf.concat([pixels[1:-1, :1], middle, pixels[1:-1, -1:]], axis=1)
    smooth = tf.concat([pixels[:1], middle, pixels[-1:]], axis=0)
    return _blend(smooth, pixels, factor)


def posterize(image: tf.Tensor, bits: int | tf.Tensor) -> tf.Tensor:
    """Applies `ImageOps.posterize`: keeps the upper `bits` bits, from 1 to 8."""
    lost = tf.bitwise.left_shift(1, 8 - tf.cast(bits, tf.int32)) - 1
    return tf.bitwise.bitwise_and(image, tf.cast(255 - lost, tf.uint8))


def solarize(image: tf.Tensor, threshold: _Scalar) -> tf.Tensor:
    """Applies `ImageOps.solarize`: inverts levels that are at or above the threshold."""
    levels = _levels()
    return _apply_table(
        image, tf.cast(tf.where(levels < threshold, levels, 255.0 - levels), tf.uint8)
    )


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Applies `ImageOps.autocontrast`: stretches the levels of each channel to 0..255."""
    low, high = (
        tf.cast(extreme(image, axis=[0, 1]), tf.float64)[:, None]
        for extreme in (tf.reduce_min, tf.reduce_max)
    )
    levels = tf.cast(_levels(), tf.float64)[None]
    scale = tf.math.divide_no_nan(tf.constant(255.0, tf.float64), high - low)  # [3, 1]
    stretched = tf.clip_by_value(levels * scale - low * scale, 0.0, 255.0)
    return _apply_table(image, tf.cast(tf.where(high > low, stretched, levels), tf.uint8))


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Applies `ImageOps.equalize`: flattens the histogram of each channel."""
    levels = tf.reshape(_channel_levels(image), [-1])
    counts = tf.math.bincount(levels, minlength=768, maxlength=768)
    counts = tf.reshape(counts, [3, 256])
    # The number of pixels at the highest level that occurs.
    last = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), axis=1, keepdims=True)
    last = tf.gather(counts, last, axis=1, batch_dims=1)  # [3, 1]
    step = (tf.reduce_sum(counts, axis=1, keepdims=True) - last) // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    table = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    return _apply_table(image, tf.cast(tf.where(step > 0, table, tf.range(256)), tf.uint8))


def shear_x(image: tf.Tensor, shear: _Scalar, fill: float) -> tf.Tensor:
    """Shifts each row by `shear` times its distance from the top."""
    return _warp(image, [1.0, shear, 0.0, 0.0, 1.0, 0.0], fill)


def shear_y(image: tf.Tensor, shear: _Scalar, fill: float) -> tf.Tensor:
    """Shifts each column by `shear` times its distance from the left edge."""
    return _warp(image, [1.0, 0.0, 0.0, shear, 1.0, 0.0], fill)


def translate_x(image: tf.Tensor, pixels: _Scalar, fill: float) -> tf.Tensor:
    """Shifts the image to the left."""
    return _warp(image, [1.0, 0.0, pixels, 0.0, 1.0, 0.0], fill)


def translate_y(image: tf.Tensor, pixels: _Scalar, fill: float) -> tf.Tensor:
    """Shifts the image up."""
    return _warp(image, [1.0, 0.0, 0.0, 0.0, 1.0, pixels], fill)


def rotate(image: tf.Tensor, degrees: _Scalar, fill: float) -> tf.Tensor:
    """Rotates the image counterclockwise around its center."""
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    angle = tf.cast(degrees, tf.float32) * (math.pi / 180.0)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    x, y = width / 2.0, height / 2.0
    return _warp(
        image,
        [cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y],
        fill,
    )


def _warp(image: tf.Tensor, matrix: Sequence[_Scalar], fill: float) -> tf.Tensor:
    """Sets output pixel (x, y) to the input at (a x + b y + c, d x + e y + f), bilinear.

    Coordinates are as in PIL's `Image.transform`, where the center of the first pixel is
    (1/2, 1/2). In TensorFlow's operation it is (0, 0). Pixels from outside get the level `fill`.
    """
    a, b, c, d, e, f = (tf.cast(value, tf.float32) for value in matrix)
    half = [(a + b - 1.0) / 2.0, (d + e - 1.0) / 2.0]
    transform = tf.stack([a, b, c + half[0], d, e, f + half[1], 0.0, 0.0])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=transform[None],
        output_shape=tf.shape(image)[:2],
        fill_value=float(fill),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[0]


def _levels() -> tf.Tensor:
    return tf.range(256, dtype=tf.float32)


def _to_grayscale(image: tf.Tensor) -> tf.Tensor:
    """Converts to int32 [H, W], as PIL converts to mode L."""
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    weighted = 19595 * red + 38470 * green + 7471 * blue + 2**15
    return tf.bitwise.right_shift(weighted, 16)


def _blend(degenerate: float | tf.Tensor, pixels: tf.Tensor, factor: _Scalar) -> tf.Tensor:
    """Applies `Image.blend`: interpolates, or extrapolates above factor 1, then truncates."""
    result = degenerate + tf.cast(factor, tf.float32) * (pixels - degenerate)
    return tf.cast(tf.clip_by_value(result, 0.0, 255.0), tf.uint8)


def _channel_levels(image: tf.Tensor) -> tf.Tensor:
    """Returns the levels plus 256 times the channel's index: int32 [H, W, 3]."""
    return tf.cast(image, tf.int32) + tf.constant([0, 256, 512])


def _apply_table(image: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Looks up each pixel in a table, uint8 [256], or in one table per channel [3, 256]."""
    if table.shape.rank == 1:
        return tf.gather(table, tf.cast(image, tf.int32))
    return tf.gather(tf.reshape(table, [-1]), _channel_levels(image))
