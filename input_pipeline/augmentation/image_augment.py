"""Augmentation of one image: pure functions of (encoded file, seed), traced inside tf.data."""

from collections.abc import Callable

import tensorflow as tf

from input_pipeline import augment_spec
from input_pipeline.augmentation import augmentations, crops, rand_augment
from input_pipeline.config import DataConfig
from input_pipeline.decoding import decode

# Purposes of random numbers. Each purpose has a separate seed. Another number changes the images of
# every run that uses it, so a new purpose gets a new number.
_WINDOW = 0
_MIRROR = 1
_POLICY = 2
_CLASSIC = 3
_VERTICAL_MIRROR = 4


def crop_and_flip_standard(data: tf.Tensor, seed: tf.Tensor, config: DataConfig) -> tf.Tensor:
    """Random resized crop and random horizontal flip, as in most ImageNet recipes."""
    spec = augment_spec.read(config)
    draw = tf.random.stateless_uniform([], _derive_seed(seed, _MIRROR))
    window = _decode_standard_window(data, seed, config)
    return _maybe_flip(crops.resize_area(window, config.image_size), draw, axis=1, **spec["flip"])


def _decode_standard_window(data: tf.Tensor, seed: tf.Tensor, config: DataConfig) -> tf.Tensor:
    spec = augment_spec.read(config)
    window_seed = _derive_seed(seed, _WINDOW)
    return decode.decode_cropped(
        data,
        lambda shape: crops.random_window(shape, window_seed, **spec["crop"]),
        config.exif,
    )


def crop_and_flip_classic(data: tf.Tensor, seed: tf.Tensor, config: DataConfig) -> tf.Tensor:
    """The predecessor's stretch, scale, crop and flip, as one crop and one resize."""
    spec = augment_spec.read(config)
    image, draw = _decode_classic_window(data, seed, config)
    return _maybe_flip(crops.resize_area(image, config.image_size), draw, axis=1, **spec["flip"])


def _decode_classic_window(
    data: tf.Tensor, seed: tf.Tensor, config: DataConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the window and the draw for the flip, both from one random operation."""
    draws = tf.random.stateless_uniform([5], _derive_seed(seed, _CLASSIC))
    image = decode.decode_cropped(
        data,
        lambda shape: crops.classic_window(
            shape, draws[:4], **augment_spec.read(config)["classic"]
        ),
        config.exif,
    )
    return image, draws[4]


def crop_center(data: tf.Tensor, seed: tf.Tensor, config: DataConfig) -> tf.Tensor:
    """The center crop that evaluation uses."""
    del seed
    return crops.extract_views(
        decode.decode_image(data, config.exif),
        config.image_size,
        1,
        config.crop_fraction,
        config.interpolation,
        config.torchvision_rounding,
    )[0]


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
    window = augment_spec.read(config).window
    if window == "none":
        return decode.decode_image(data, config.exif)
    if window == "classic":
        return _decode_classic_window(data, seed, config)[0]
    return _decode_standard_window(data, seed, config)


def flip_vertically(image: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Turns an image, uint8 [S, S, 3], upside down with a probability."""
    draw = tf.random.stateless_uniform([], seed)
    return _maybe_flip(image, draw, probability, axis=0)


# Function of (uint8 [S, S, 3], int64 [2] seed, **arguments) -> uint8 [S, S, 3], and the purpose of
# its random numbers, by name.
IMAGE_STAGES: dict[str, tuple[Callable[..., tf.Tensor], int]] = {
    "vflip": (flip_vertically, _VERTICAL_MIRROR),
    "randaugment": (rand_augment.rand_augment, _POLICY),
    "trivialaugment": (rand_augment.trivial_augment, _POLICY),
}


def augment(data: tf.Tensor, seed: tf.Tensor, config: DataConfig) -> tf.Tensor:
    """Applies the part of `--augment` that works on one image; `batch_augment` does the rest.

    Args:
      data: scalar string tensor, an encoded image.
      seed: int64 [2], the run's seed and the global sample number.
      config: DataConfig with its sizes resolved.

    Returns:
      uint8 [image_size, image_size, 3].
    """
    spec = augment_spec.read(config)
    size = config.image_size
    image = CROP_FUNCTIONS[spec.window](data, seed, config)
    image = tf.ensure_shape(image, [size, size, 3])
    for name in augment_spec.names("image"):
        if name in spec:
            image = apply_stage(name, image, seed, spec[name])
    return augmentations.apply_functions("image", spec, image, seed[0], seed[1])


def apply_stage(
    name: str, image: tf.Tensor, seed: tf.Tensor, arguments: dict[str, float]
) -> tf.Tensor:
    """Applies one of `IMAGE_STAGES` to uint8 [S, S, 3]; the seed is that of the sample."""
    function, purpose = IMAGE_STAGES[name]
    return function(image, _derive_seed(seed, purpose), **arguments)


def _derive_seed(seed: tf.Tensor, purpose: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, purpose)


def _maybe_flip(image: tf.Tensor, draw: tf.Tensor, probability: float, axis: int) -> tf.Tensor:
    """Reverses an axis of the image if the draw is below the probability.

    The raw operation takes the decision as a tensor, so that no branch is needed.
    """
    dims = [draw < probability if at == axis else False for at in range(3)]
    return tf.raw_ops.Reverse(tensor=image, dims=tf.stack(dims))
