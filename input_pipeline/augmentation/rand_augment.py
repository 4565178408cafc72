"""RandAugment and TrivialAugment: random operations on one image.

Keras's layers of these names draw from a random state and process batches. In this module, the
operations of a sample depend only on its seed, and they process uint8 images inside tf.data.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from input_pipeline.augmentation import pil_ops as operations


@dataclasses.dataclass(frozen=True)
class MagnitudeRanges:
    """Effect of each operation at strength 1. Most operations also work in the other direction.

    Attributes:
      shear: shift per pixel of distance.
      translation: as a fraction of the image's side.
      rotation: degrees.
      enhancement: difference of the factor from 1.
      lost_bits: number of the 8 bits that posterize removes.
    """

    shear: float
    translation: float
    rotation: float
    enhancement: float
    lost_bits: int


# Cubuk et al. 2020, with shifts relative to the side (100 of 224 pixels).
_RANDAUGMENT_RANGES = MagnitudeRanges(
    shear=0.3, translation=0.45, rotation=30.0, enhancement=0.9, lost_bits=4
)
# The wide space of Müller and Hutter 2021, with shifts of 32 of 224 pixels.
_TRIVIALAUGMENT_RANGES = MagnitudeRanges(
    shear=0.99, translation=1 / 7, rotation=135.0, enhancement=0.99, lost_bits=6
)
_TRIVIALAUGMENT_STEPS = 30  # strengths are multiples of 1/30

# Function of (image, signed strength in -1..1, ranges), by name. Both papers use these fourteen.
OPERATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor, MagnitudeRanges], tf.Tensor]] = {
    "identity": lambda image, s, r: image,
    "shear_x": lambda image, s, r: operations.shear_x(image, s * r.shear),
    "shear_y": lambda image, s, r: operations.shear_y(image, s * r.shear),
    "translate_x": lambda image, s, r: operations.translate_x(
        image, s * r.translation * image.shape[1]
    ),
    "translate_y": lambda image, s, r: operations.translate_y(
        image, s * r.translation * image.shape[0]
    ),
    "rotate": lambda image, s, r: operations.rotate(image, s * r.rotation),
    "brightness": lambda image, s, r: operations.brightness(image, 1.0 + s * r.enhancement),
    "contrast": lambda image, s, r: operations.contrast(image, 1.0 + s * r.enhancement),
    "color": lambda image, s, r: operations.color(image, 1.0 + s * r.enhancement),
    "sharpness": lambda image, s, r: operations.sharpness(image, 1.0 + s * r.enhancement),
    "posterize": lambda image, s, r: operations.posterize(
        image, 8 - tf.cast(tf.round(tf.abs(s) * r.lost_bits), tf.int32)
    ),
    "solarize": lambda image, s, r: operations.solarize(image, 256.0 * (1.0 - tf.abs(s))),
    "autocontrast": lambda image, s, r: operations.autocontrast(image),
    "equalize": lambda image, s, r: operations.equalize(image),
}


def rand_augment(image: tf.Tensor, seed: tf.Tensor, layers: int, magnitude: float) -> tf.Tensor:
    """Applies RandAugment (Cubuk et al. 2020): random operations of the same strength in sequence.

    Args:
      image: uint8 [S, S, 3].
      seed: int64 [2].
      layers: number of operations.
      magnitude: 0 to 10.

    Returns:
      uint8 [S, S, 3].
    """
    draws = tf.random.stateless_uniform([layers, 2], seed)
    for layer in range(layers):
        strength = tf.where(draws[layer, 1] < 0.5, -1.0, 1.0) * (magnitude / 10.0)
        image = _apply_drawn_operation(image, draws[layer, 0], strength, _RANDAUGMENT_RANGES)
    return image


def trivial_augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Applies TrivialAugment (Müller and Hutter 2021): one operation of random strength.

    Args:
      image: uint8 [S, S, 3].
      seed: int64 [2].

    Returns:
      uint8 [S, S, 3].
    """
    draws = tf.random.stateless_uniform([3], seed)
    strength = tf.floor(draws[2] * (_TRIVIALAUGMENT_STEPS + 1)) / _TRIVIALAUGMENT_STEPS
    strength = tf.where(draws[1] < 0.5, -1.0, 1.0) * tf.minimum(strength, 1.0)
    return _apply_drawn_operation(image, draws[0], strength, _TRIVIALAUGMENT_RANGES)


def _apply_drawn_operation(
    image: tf.Tensor, draw: tf.Tensor, strength: tf.Tensor, ranges: MagnitudeRanges
) -> tf.Tensor:
    """Runs only the operation that a uniform draw selects."""
    branches = [
        lambda function=function: tf.ensure_shape(function(image, strength, ranges), image.shape)
        for function in OPERATIONS.values()
    ]
    # A draw just below 1 may round up. `switch_case` then runs the last branch.
    return tf.switch_case(tf.cast(draw * len(branches), tf.int32), branches)
