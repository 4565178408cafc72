"""The decorators of augmentations in a user's file; calls such functions."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from input_pipeline import augment_spec, user_code
from input_pipeline.augmentation.per_sample_random import Draws, get_purpose
from input_pipeline.errors import UsageError

# The decorators: `image(image, draws, **arguments)` changes one image on the host, uint8
# [S, S, 3]. `batch(images, draws, **arguments)` changes a batch on the accelerator, float32
# [B, S, S, 3] in 0..255. `draws` is the `Draws` of the sample, or of the batch.
image = functools.partial(augment_spec.FUNCTIONS, runs="image")
batch = functools.partial(augment_spec.FUNCTIONS, runs="batch")


def apply_functions(
    runs: augment_spec.FunctionRuns,
    spec: augment_spec.AugmentSpec,
    images: tf.Tensor,
    seed: int | tf.Tensor,
    samples: tf.Tensor,
) -> tf.Tensor:
    """Applies the functions in users' files that run there, in the order of `--augment`.

    Args:
      runs: the kind of the functions.
      spec: the augmentations.
      images: one image or a batch, see the decorators.
      seed, samples: see `Draws`; one sample for one image.

    Returns:
      tensor of the same shape and type as `images`.
    """
    for name, (function, arguments) in spec.load_functions(runs).items():
        images = apply_function(name, function, arguments, images, seed, samples)
    return images


def apply_function(
    name: str,
    function: Callable[..., Any],
    arguments: dict[str, float],
    images: tf.Tensor,
    seed: int | tf.Tensor,
    samples: tf.Tensor,
) -> tf.Tensor:
    """Applies one function, see `apply_functions`.

    Raises:
      UsageError: it fails, or returns another shape or type.
    """
    draws = Draws(seed, samples, get_purpose(user_code.function_names(name)))
    with user_code.errors_in_one_line():
        result = function(images, draws, **arguments)
    if tf.is_tensor(result):
        returned = f"{result.dtype.name} {result.shape}"
        if result.dtype == images.dtype and result.shape.is_compatible_with(images.shape):
            return tf.ensure_shape(result, images.shape)
    else:
        returned = type(result).__name__
    raise UsageError(
        f"--augment={user_code.display_name(name)}: returned {returned}, and must return"
        f" {images.dtype.name} {images.shape}"
    )
