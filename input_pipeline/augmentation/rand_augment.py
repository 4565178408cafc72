"""RandAugment and TrivialAugment: random operations on one image.

Keras's layers of this name draw from a state and take batches; here a sample's operations follow
from its seed alone, and run on uint8 inside tf.data.
"""

import dataclasses

import tensorflow as tf

from input_pipeline.augmentation import pil_ops as operations


@dataclasses.dataclass(frozen=True)
class MagnitudeRanges:
    """How far each operation goes at strength 1; most go as far in both directions.

    Attributes:
      shear: shift per pixel of distance.
      translation: share of the image's side.
      rotation: degrees.
      enhancement: difference of the factor from 1.
      lost_bits: of 8, by posterising.
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

# Function of (image, signed strength in -1..1, Ranges). Both papers have these fourteen.
OPERATIONS = {
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
    "colour": lambda image, s, r: operations.color(image, 1.0 + s * r.enhancement),
    "sharpness": lambda image, s, r: operations.sharpness(image, 1.0 + s * r.enhancement),
    "posterize": lambda image, s, r: operations.posterize(
        image, 8 - tf.cast(tf.round(tf.abs(s) * r.lost_bits), tf.int32)
    ),
    "solarize": lambda image, s, r: operations.solarize(image, 256.0 * (1.0 - tf.abs(s))),
    "autocontrast": lambda image, s, r: operations.autocontrast(image),
    "equalize": lambda image, s, r: operations.equalize(image),
}


def rand_augment(image, seed, layers, magnitude):
    """RandAugment (Cubuk et al. 2020): random operations of one strength, one after another.

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


def trivial_augment(image, seed):
    """TrivialAugment (Müller and Hutter 2021): one operation of random strength.

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


def _apply_drawn_operation(image, draw, strength, ranges):
    """Runs the operation that a uniform draw chooses; the others cost nothing."""
    branches = [
        lambda function=function: tf.ensure_shape(function(image, strength, ranges), image.shape)
        for function in OPERATIONS.values()
    ]
    # A draw just under 1 may round up; the last branch is also that of an index beyond it.
    return tf.switch_case(tf.cast(draw * len(branches), tf.int32), branches)
