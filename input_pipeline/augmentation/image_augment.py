"""Augmentation of one image: pure functions of (encoded file, seed), traced inside tf.data."""

from collections.abc import Callable

import tensorflow as tf

from input_pipeline.augmentation import augment_spec, crops, rand_augment
from input_pipeline.config import DataConfig
from input_pipeline.decoding import decode

# Purposes of random numbers. Each purpose has a separate seed.
_WINDOW, _MIRROR, _POLICY, _CLASSIC = range(4)


def crop_and_flip_standard(data: tf.Tensor, seed: tf.Tensor, config: DataConfig) -> tf.Tensor:
    """Random resized crop and random horizontal flip, as in most ImageNet recipes."""
    draw = tf.random.stateless_uniform([], _derive_seed(seed, _MIRROR))
    window = _decode_standard_window(data, seed, config)
    return _maybe_flip(crops.resize_area(window, config.image_size), draw)


def _decode_standard_window(data: tf.Tensor, seed: tf.Tensor, config: DataConfig) -> tf.Tensor:
    window_seed = _derive_seed(seed, _WINDOW)
    return decode.decode_cropped(
        data,
        lambda shape: crops.random_window(shape, window_seed, config.min_crop_area),
        config.exif,
    )


def crop_and_flip_classic(data: tf.Tensor, seed: tf.Tensor, config: DataConfig) -> tf.Tensor:
    """The predecessor's stretch, scale, crop and flip, as one crop and one resize."""
    image, draw = _decode_classic_window(data, seed, config)
    return _maybe_flip(crops.resize_area(image, config.image_size), draw)


def _decode_classic_window(
    data: tf.Tensor, seed: tf.Tensor, config: DataConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the window and the draw for the flip, both from one random operation."""
    draws = tf.random.stateless_uniform([5], _derive_seed(seed, _CLASSIC))
    image = decode.decode_cropped(
        data, lambda shape: crops.classic_window(shape, draws[:4]), config.exif
    )
    return image, draws[4]


def crop_center(data: tf.Tensor, seed: tf.Tensor, config: DataConfig) -> tf.Tensor:
    """The center crop that evaluation uses."""
    del seed
    return crops.center_crop(
        decode.decode_image(data, config.exif),
        image_size=config.image_size,
        crop_fraction=config.crop_fraction,
        interpolation=config.interpolation,
    )


# Function of (encoded image, int64 [2] seed, config), by crop policy. Each one returns uint8
# [image_size, image_size, 3].
CROP_FUNCTIONS: dict[str, Callable[[tf.Tensor, tf.Tensor, DataConfig], tf.Tensor]] = {
    "standard": crop_and_flip_standard,
    "none": crop_center,
    "classic": crop_and_flip_classic,
}


def decode_window(data: tf.Tensor, seed: tf.Tensor, config: DataConfig) -> tf.Tensor:
    """Returns the pixels that `augment` decodes before it resizes them; used by benchmarks.

    Args:
      data, seed, config: see `augment`.

    Returns:
      uint8 [H, W, 3].
    """
    window = augment_spec.parse(config.augment).window
    if window == "none":
        return decode.decode_image(data, config.exif)
    if window == "classic":
        return _decode_classic_window(data, seed, config)[0]
    return _decode_standard_window(data, seed, config)


def augment(data: tf.Tensor, seed: tf.Tensor, config: DataConfig) -> tf.Tensor:
    """Applies the part of `--augment` that works on one image; `batch_augment` does the rest.

    Args:
      data: scalar string tensor, an encoded image.
      seed: int64 [2], the run's seed and the global sample number.
      config: DataConfig with its sizes resolved.

    Returns:
      uint8 [image_size, image_size, 3].
    """
    spec = augment_spec.parse(config.augment)
    size = config.image_size
    image = CROP_FUNCTIONS[spec.window](data, seed, config)
    image = tf.ensure_shape(image, [size, size, 3])
    if spec.policy == "randaugment":
        layers, magnitude = augment_spec.parse_randaugment(config.randaugment)
        image = rand_augment.rand_augment(image, _derive_seed(seed, _POLICY), layers, magnitude)
    elif spec.policy == "trivialaugment":
        image = rand_augment.trivial_augment(image, _derive_seed(seed, _POLICY))
    return image


def _derive_seed(seed: tf.Tensor, purpose: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, purpose)


def _maybe_flip(image: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    """Flips the image horizontally if the draw is below 1/2.

    The raw operation takes the decision as a tensor, so that no branch is needed.
    """
    return tf.raw_ops.Reverse(tensor=image, dims=tf.stack([False, draw < 0.5, False]))
