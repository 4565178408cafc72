"""Augmentations of one image: pure functions of (encoded file, seed), traced inside tf.data."""

import tensorflow as tf

from input_pipeline import crops, decode

# Every random decision of a sample draws from a seed of its own.
_WINDOW, _MIRROR = range(2)


def _seed(seed, purpose):
    return tf.random.experimental.stateless_fold_in(seed, purpose)


def standard(data, seed, size, min_crop_area):
    """Random resized crop and random mirror image, as most ImageNet recipes train."""
    window_seed = _seed(seed, _WINDOW)
    image = decode.decode_cropped(
        data, lambda shape: crops.random_window(shape, window_seed, min_crop_area)
    )
    image = crops.resize(image, size, size)
    mirrored = tf.random.stateless_uniform([], _seed(seed, _MIRROR)) < 0.5
    return tf.cond(mirrored, lambda: tf.reverse(image, axis=[1]), lambda: image)


def none(data, seed, size, min_crop_area):
    """The centre crop that evaluation uses."""
    del seed, min_crop_area
    return crops.views(decode.decode(data), size, 1)[0]


AUGMENTATIONS = {"standard": standard, "none": none}


def augment(name, data, seed, size, min_crop_area):
    """Runs the augmentation of a name.

    Args:
      name: key of AUGMENTATIONS.
      data: scalar string tensor, an encoded image.
      seed: int64 [2], the run's seed and the global sample number.
      size: side of the result in pixels.
      min_crop_area: see `crops.random_window`.

    Returns:
      uint8 [size, size, 3].
    """
    image = AUGMENTATIONS[name](data, seed, size, min_crop_area)
    return tf.ensure_shape(image, [size, size, 3])
