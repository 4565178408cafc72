"""Operations on one image with the results of PIL's, for RandAugment and its kin.

Each maps uint8 [H, W, 3] to the same; strengths are tensors or numbers. Most of them are a table of
256 entries through which every pixel goes.
"""

import math

import tensorflow as tf

# What comes into view from outside of the image.
FILL_VALUE = 128.0


def brightness(image, factor):
    """`ImageEnhance.Brightness`: 0 is black, 1 the image."""
    return _apply_table(image, _blend(0.0, _levels(), factor))


def contrast(image, factor):
    """`ImageEnhance.Contrast`: 0 is the mean grey, 1 the image."""
    mean = tf.floor(tf.reduce_mean(tf.cast(_to_grayscale(image), tf.float32)) + 0.5)
    return _apply_table(image, _blend(mean, _levels(), factor))


def color(image, factor):
    """`ImageEnhance.Color`: 0 is the grey image, 1 the image."""
    grey = tf.cast(_to_grayscale(image), tf.float32)[..., None]
    return _blend(grey, tf.cast(image, tf.float32), factor)


def sharpness(image, factor):
    """`ImageEnhance.Sharpness`: 0 is smoothed over 3 x 3 pixels, 1 the image."""
    pixels = tf.cast(image, tf.float32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    around = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]  # [H - 2, W - 2, 3]
    middle = tf.floor((around + 4.0 * pixels[1:-1, 1:-1]) / 13.0 + 0.5)
    # The outermost pixels have no neighbours and stay.
    middle = tf.concat([pixels[1:-1, :1], middle, pixels[1:-1, -1:]], axis=1)
    smooth = tf.concat([pixels[:1], middle, pixels[-1:]], axis=0)
    return _blend(smooth, pixels, factor)


def posterize(image, bits):
    """`ImageOps.posterize`: keeps so many of the 8 bits, an int from 1 to 8."""
    lost = tf.bitwise.left_shift(1, 8 - tf.cast(bits, tf.int32)) - 1
    return tf.bitwise.bitwise_and(image, tf.cast(255 - lost, tf.uint8))


def solarize(image, threshold):
    """`ImageOps.solarize`: levels from the threshold on are inverted."""
    levels = _levels()
    return _apply_table(
        image, tf.cast(tf.where(levels < threshold, levels, 255.0 - levels), tf.uint8)
    )


def autocontrast(image):
    """`ImageOps.autocontrast`: each channel's levels are stretched to 0..255."""
    low, high = (
        tf.cast(extreme(image, axis=[0, 1]), tf.float64)[:, None]
        for extreme in (tf.reduce_min, tf.reduce_max)
    )
    levels = tf.cast(_levels(), tf.float64)[None]
    scale = tf.math.divide_no_nan(tf.constant(255.0, tf.float64), high - low)  # [3, 1]
    stretched = tf.clip_by_value(levels * scale - low * scale, 0.0, 255.0)
    return _apply_table(image, tf.cast(tf.where(high > low, stretched, levels), tf.uint8))


def equalize(image):
    """`ImageOps.equalize`: each channel's levels become about equally frequent."""
    of_channel = tf.reshape(_channel_levels(image), [-1])
    counts = tf.math.bincount(of_channel, minlength=768, maxlength=768)
    counts = tf.reshape(counts, [3, 256])
    # The count of the highest level that there is.
    last = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), axis=1, keepdims=True)
    last = tf.gather(counts, last, axis=1, batch_dims=1)  # [3, 1]
    step = (tf.reduce_sum(counts, axis=1, keepdims=True) - last) // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    table = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    return _apply_table(image, tf.cast(tf.where(step > 0, table, tf.range(256)), tf.uint8))


def shear_x(image, shear):
    """Shifts each row by `shear` times its distance from the upper edge."""
    return _warp(image, [1.0, shear, 0.0, 0.0, 1.0, 0.0])


def shear_y(image, shear):
    """Shifts each column by `shear` times its distance from the left edge."""
    return _warp(image, [1.0, 0.0, 0.0, shear, 1.0, 0.0])


def translate_x(image, pixels):
    """Shifts the image to the left."""
    return _warp(image, [1.0, 0.0, pixels, 0.0, 1.0, 0.0])


def translate_y(image, pixels):
    """Shifts the image upwards."""
    return _warp(image, [1.0, 0.0, 0.0, 0.0, 1.0, pixels])


def rotate(image, degrees):
    """Turns the image about its centre, counter-clockwise."""
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    angle = tf.cast(degrees, tf.float32) * (math.pi / 180.0)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    x, y = width / 2.0, height / 2.0
    return _warp(
        image,
        [cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y],
    )


def _warp(image, matrix):
    """Output pixel (x, y) is the input at (a x + b y + c, d x + e y + f), bilinear.

    Coordinates are those of PIL's `Image.transform`: the centre of the first pixel is (1/2, 1/2),
    where TensorFlow's operation has (0, 0).
    """
    a, b, c, d, e, f = (tf.cast(value, tf.float32) for value in matrix)
    half = [(a + b - 1.0) / 2.0, (d + e - 1.0) / 2.0]
    transform = tf.stack([a, b, c + half[0], d, e, f + half[1], 0.0, 0.0])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=transform[None],
        output_shape=tf.shape(image)[:2],
        fill_value=FILL_VALUE,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[0]


def _levels():
    return tf.range(256, dtype=tf.float32)


def _to_grayscale(image):
    """PIL's conversion to mode L: int32 [H, W]."""
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    weighted = 19595 * red + 38470 * green + 7471 * blue + 2**15
    return tf.bitwise.right_shift(weighted, 16)


def _blend(degenerate, pixels, factor):
    """`Image.blend`: a mixture, or beyond 1 an extrapolation; fractions are cut off."""
    result = degenerate + tf.cast(factor, tf.float32) * (pixels - degenerate)
    return tf.cast(tf.clip_by_value(result, 0.0, 255.0), tf.uint8)


def _channel_levels(image):
    """Levels plus 256 times the number of the channel: int32 [H, W, 3]."""
    return tf.cast(image, tf.int32) + tf.constant([0, 256, 512])


def _apply_table(image, table):
    """Takes every pixel through a table uint8 [256], or one for each channel [3, 256]."""
    if table.shape.rank == 1:
        return tf.gather(table, tf.cast(image, tf.int32))
    return tf.gather(tf.reshape(table, [-1]), _channel_levels(image))
