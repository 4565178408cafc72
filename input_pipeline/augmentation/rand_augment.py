"""RandAugment and TrivialAugment: random operations on one image.

Keras's layers of these names draw from a random state and process batches. In this module, the
operations of a sample depend only on its seed, and they process uint8 images inside tf.data.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from input_pipeline.augmentation import pil_ops


class Ranges(NamedTuple):
    """Effect of each operation at strength 1. Most operations also work in the other direction.

    Attributes:
      shear: shift per pixel of distance.
      translation: as a fraction of the image's side.
      rotation: degrees.
      enhancement: difference of the factor from 1.
      lost_bits: number of the 8 bits that posterize removes.
      fill: level of the pixels that an operation moves in from outside the image.
    """

    shear: float
    translation: float
    rotation: float
    enhancement: float
    lost_bits: float
    fill: float


# Purposes of random numbers besides the choice of operations and signs.
_MAGNITUDE = 0
_APPLY = 1

# Function of (image, signed strength in -1..1, ranges), by name. Both papers use these fourteen.
OPERATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor, Ranges], tf.Tensor]] = {
    "identity": lambda image, s, r: image,
    "shear_x": lambda image, s, r: pil_ops.shear_x(image, s * r.shear, r.fill),
    "shear_y": lambda image, s, r: pil_ops.shear_y(image, s * r.shear, r.fill),
    "translate_x": lambda image, s, r: pil_ops.translate_x(
        image, s * r.translation * image.shape[1], r.fill
    ),
    "translate_y": lambda image, s, r: pil_ops.translate_y(
        image, s * r.translation * image.shape[0], r.fill
    ),
    "rotate": lambda image, s, r: pil_ops.rotate(image, s * r.rotation, r.fill),
    "brightness": lambda image, s, r: pil_ops.brightness(image, 1.0 + s * r.enhancement),
    "contrast": lambda image, s, r: pil_ops.contrast(image, 1.0 + s * r.enhancement),
    "color": lambda image, s, r: pil_ops.color(image, 1.0 + s * r.enhancement),
    "sharpness": lambda image, s, r: pil_ops.sharpness(image, 1.0 + s * r.enhancement),
    "posterize": lambda image, s, r: pil_ops.posterize(
        image, 8 - tf.cast(tf.round(tf.abs(s) * r.lost_bits), tf.int32)
    ),
    "solarize": lambda image, s, r: pil_ops.solarize(image, 256.0 * (1.0 - tf.abs(s))),
    "autocontrast": lambda image, s, r: pil_ops.autocontrast(image),
    "equalize": lambda image, s, r: pil_ops.equalize(image),
}


def rand_augment(
    image: tf.Tensor,
    seed: tf.Tensor,
    operations: int,
    magnitude: float,
    magnitude_std: float,
    probability: float,
    **ranges: float,
) -> tf.Tensor:
    """Applies RandAugment (Cubuk et al. 2020): random operations of the same strength in sequence.

    Args:
      image: uint8 [S, S, 3].
      seed: int64 [2].
      operations: number of operations.
      magnitude: 0 to 10.
      magnitude_std: standard deviation of the magnitude of each operation, clipped to 0 to 10.
      probability: of each operation; else the identity takes its place.
      **ranges: see `Ranges`.

    Returns:
      uint8 [S, S, 3].
    """
    draws = tf.random.stateless_uniform([operations, 2], seed)
    for layer in range(operations):
        strength = draw_strength(seed, layer, draws[layer, 1], magnitude, magnitude_std)
        changed = _apply_drawn_operation(image, draws[layer, 0], strength, Ranges(**ranges))
        if probability < 1:
            draw = tf.random.stateless_uniform([], _derive_seed(seed, _APPLY, layer))
            changed = tf.where(draw < probability, changed, image)
        image = changed
    return image


def draw_strength(
    seed: tf.Tensor, layer: int, draw: tf.Tensor, magnitude: float, magnitude_std: float
) -> tf.Tensor:
    """Returns the signed strength, -1 to 1, of one operation of RandAugment.

    Args:
      seed, magnitude, magnitude_std: see `rand_augment`.
      layer: position of the operation.
      draw: uniform in [0, 1), for the sign.
    """
    if magnitude_std:
        noise = tf.random.stateless_normal([], _derive_seed(seed, _MAGNITUDE, layer))
        magnitude = tf.clip_by_value(magnitude + magnitude_std * noise, 0.0, 10.0)
    return tf.where(draw < 0.5, -1.0, 1.0) * (magnitude / 10.0)


def trivial_augment(
    image: tf.Tensor, seed: tf.Tensor, strengths: int, **ranges: float
) -> tf.Tensor:
    """Applies TrivialAugment (Müller and Hutter 2021): one operation of random strength.

    Args:
      image: uint8 [S, S, 3].
      seed: int64 [2].
      strengths: number of strengths, equally spaced from 0 to 1.
      **ranges: see `Ranges`.

    Returns:
      uint8 [S, S, 3].
    """
    draws = tf.random.stateless_uniform([3], seed)
    strength = draw_trivial_strength(draws[1:], strengths)
    return _apply_drawn_operation(image, draws[0], strength, Ranges(**ranges))


def draw_trivial_strength(draws: tf.Tensor, strengths: int) -> tf.Tensor:
    """Returns the signed strength, -1 to 1, of TrivialAugment's operation.

    Args:
      draws: float32 [2], uniform in [0, 1), for sign and strength.
      strengths: see `trivial_augment`.
    """
    strength = tf.floor(draws[1] * strengths) / (strengths - 1)
    return tf.where(draws[0] < 0.5, -1.0, 1.0) * tf.minimum(strength, 1.0)


# Function of (int64 [2] seed, arguments) -> signed strength of the first operation, by policy.
STRENGTHS: dict[str, Callable[[tf.Tensor, dict[str, float]], tf.Tensor]] = {
    "randaugment": lambda seed, arguments: draw_strength(
        seed,
        0,
        tf.random.stateless_uniform([], seed),
        arguments["magnitude"],
        arguments["magnitude_std"],
    ),
    "trivialaugment": lambda seed, arguments: draw_trivial_strength(
        tf.random.stateless_uniform([3], seed)[1:], int(arguments["strengths"])
    ),
}


def apply_operation(
    name: str, image: tf.Tensor, strength: tf.Tensor, arguments: dict[str, float]
) -> tf.Tensor:
    """Applies one of `OPERATIONS`; the arguments are all those of a policy."""
    ranges = Ranges(**{field: arguments[field] for field in Ranges._fields})
    return OPERATIONS[name](image, strength, ranges)


def _apply_drawn_operation(
    image: tf.Tensor, draw: tf.Tensor, strength: tf.Tensor, ranges: Ranges
) -> tf.Tensor:
    """Runs only the operation that a uniform draw selects."""
    branches = [
        lambda function=function: tf.ensure_shape(function(image, strength, ranges), image.shape)
        for function in OPERATIONS.values()
    ]
    # A draw just below 1 may round up. `switch_case` then runs the last branch.
    return tf.switch_case(tf.cast(draw * len(branches), tf.int32), branches)


def _derive_seed(seed: tf.Tensor, purpose: int, layer: int) -> tf.Tensor:
    fold_in = tf.random.experimental.stateless_fold_in
    return fold_in(fold_in(seed, purpose), layer)
