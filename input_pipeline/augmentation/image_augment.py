"""Augmentations of one image: pure functions of (encoded file, seed), traced inside tf.data."""

import tensorflow as tf

from input_pipeline.augmentation import augment_spec, crops, rand_augment
from input_pipeline.decoding import decode

# Every random decision of a sample draws from a seed of its own.
_WINDOW, _MIRROR, _POLICY, _CLASSIC = range(4)


def crop_and_flip_standard(data, seed, config):
    """Random resized crop and random mirror image, as most ImageNet recipes have."""
    draw = tf.random.stateless_uniform([], _derive_seed(seed, _MIRROR))
    window = _decode_standard_window(data, seed, config.min_crop_area)
    return _maybe_flip(crops.resize_area(window, config.image_size), draw)


def _decode_standard_window(data, seed, min_crop_area):
    window_seed = _derive_seed(seed, _WINDOW)
    return decode.decode_cropped(
        data, lambda shape: crops.random_window(shape, window_seed, min_crop_area)
    )


def crop_and_flip_classic(data, seed, config):
    """The predecessor's stretch, scale, crop and mirror image, as one window and one resizing."""
    image, draw = _decode_classic_window(data, seed)
    return _maybe_flip(crops.resize_area(image, config.image_size), draw)


def _decode_classic_window(data, seed):
    """The window, and the draw that mirrors it: one call of the generator gives them all."""
    draws = tf.random.stateless_uniform([5], _derive_seed(seed, _CLASSIC))
    image = decode.decode_cropped(data, lambda shape: crops.classic_window(shape, draws[:4]))
    return image, draws[4]


def crop_center(data, seed, config):
    """The centre crop that evaluation uses."""
    del seed
    how = (config.image_size, 1, config.crop_fraction, config.interpolation)
    return crops.extract_views(decode.decode_image(data), *how)[0]


CROP_FUNCTIONS = {
    "standard": crop_and_flip_standard,
    "none": crop_center,
    "classic": crop_and_flip_classic,
}


def decode_window(data, seed, config):
    """The pixels that `augment` decodes before it resizes them, for measurements.

    Args:
      data, seed, config: see `augment`.

    Returns:
      uint8 [H, W, 3].
    """
    window = augment_spec.parse(config.augment).window
    if window == "none":
        return decode.decode_image(data)
    if window == "classic":
        return _decode_classic_window(data, seed)[0]
    return _decode_standard_window(data, seed, config.min_crop_area)


def augment(data, seed, config):
    """What `--augment` does to one image; the rest is done to batches, see `batch_augment`.

    Args:
      data: scalar string tensor, an encoded image.
      seed: int64 [2], the run's seed and the global sample number.
      config: DataConfig with its sizes resolved.

    Returns:
      uint8 [image_size, image_size, 3].
    """
    parts = augment_spec.parse(config.augment)
    size = config.image_size
    image = CROP_FUNCTIONS[parts.window](data, seed, config)
    image = tf.ensure_shape(image, [size, size, 3])
    if parts.policy == "randaugment":
        layers, magnitude = augment_spec.parse_randaugment(config.randaugment)
        image = rand_augment.rand_augment(image, _derive_seed(seed, _POLICY), layers, magnitude)
    elif parts.policy == "trivialaugment":
        image = rand_augment.trivial_augment(image, _derive_seed(seed, _POLICY))
    return image


def _derive_seed(seed, purpose):
    return tf.random.experimental.stateless_fold_in(seed, purpose)


def _maybe_flip(image, draw):
    """The mirror image where the draw is below 1/2. The bare operation takes the decision as a
    tensor, without a branch."""
    return tf.raw_ops.Reverse(tensor=image, dims=tf.stack([False, draw < 0.5, False]))
