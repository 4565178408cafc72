"""Batch augmentation on the accelerator: uint8 batches become normalized, mixed float batches.

All random numbers depend only on the run's seed and the global sample number. The result does not
depend on how samples are divided into batches, micro-batches and replicas.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from input_pipeline import augment_spec
from input_pipeline.augmentation import (
    augmentations,
    color,
    mixup_cutmix,
    per_sample_random,
    random_erasing,
)
from input_pipeline.augmentation.per_sample_random import Draws
from input_pipeline.config import DataConfig
from input_pipeline.errors import UsageError

# Purposes of random numbers. Numbers of different purposes are independent. Another number changes
# the images of every run that uses it, so a new purpose gets a new number.
_HSV = 0
_LIGHTING = 1
_ERASING = 2
_MIXUP = 3
_CUTMIX = 4
_BOX = 5
_CHOICE = 6
_GRAYSCALE = 7


class Targets(NamedTuple):
    """Training targets: each image has a label, or a mixture of two labels.

    Attributes:
      label: int32 [B].
      partner: int32 [B], label of the image that was mixed in.
      share: float32 [B], 0..1, weight of `label`; 1 if nothing was mixed in.
    """

    label: tf.Tensor | np.ndarray
    partner: tf.Tensor | np.ndarray
    share: tf.Tensor | np.ndarray


def make_preprocess_fn(
    config: DataConfig, seed: int = 0, xla: bool = False, num_mixed: int | None = None
) -> Callable[[dict[str, tf.Tensor]], tuple[tf.Tensor, Targets]]:
    """Makes the function that turns a training batch into inputs of the model and the loss.

    Args:
      config: DataConfig with its pixel statistics.
      seed: the run's seed.
      xla: whether to compile with XLA on a GPU. On a CPU it is always compiled.
      num_mixed: number of samples at the start of training that are mixed; None for all.

    Returns:
      Function from a batch of `pipeline.train_dataset` to (float32 images [B, S, S, 3], Targets).
    """
    spec = augment_spec.read(config)

    # On a CPU, XLA fuses forty passes over the batch into one. A GPU has enough bandwidth without
    # XLA, which needs a compiler that some machines lack. A function in a user's file may have
    # operations that XLA does not support.
    is_on_gpu = bool(tf.config.list_physical_devices("GPU"))
    is_compiled = xla or not (is_on_gpu or spec.load_functions("batch"))

    @tf.function(jit_compile=is_compiled, autograph=False)
    def preprocess(
        images: tf.Tensor, labels: tf.Tensor, samples: tf.Tensor
    ) -> tuple[tf.Tensor, Targets]:
        images = tf.cast(images, tf.float32)
        for stages in (PIXEL_STAGES, NORMALIZED_STAGES):
            if stages is NORMALIZED_STAGES:
                images = augmentations.apply_functions("batch", spec, images, seed, samples)
                images = normalize(images, config.mean, config.std)
            for name, (function, purpose) in stages.items():
                if name in spec:
                    draws = Draws(seed, samples, purpose)
                    images = function(images, draws, config, **spec[name])
        return _mix(spec, seed, images, labels, samples, num_mixed)

    return lambda batch: preprocess(batch["image"], batch["label"], batch["sample"])


def _jitter_hsv(images: tf.Tensor, draws: Draws, _: DataConfig, **bounds: float) -> tf.Tensor:
    return color.adjust_hsv(images, color.hsv_jitter(draws.uniform(3), **bounds))


def _light(images: tf.Tensor, draws: Draws, config: DataConfig, std: float) -> tf.Tensor:
    shift = color.lighting_shift(draws.normal(3), config.pca_values, config.pca_vectors, std)
    return images + shift[:, None, None]


def _make_gray(images: tf.Tensor, draws: Draws, _: DataConfig, probability: float) -> tf.Tensor:
    is_gray = draws.uniform(1)[:, :, None, None] < probability
    return tf.where(is_gray, color.to_grayscale(images), images)


def _erase(images: tf.Tensor, draws: Draws, _: DataConfig, **bounds: float) -> tf.Tensor:
    boxes = random_erasing.boxes(draws.uniform(5), images.shape[1], **bounds)
    return random_erasing.erase(images, boxes)


# Function of (float32 [B, S, S, 3], Draws, DataConfig, **arguments) -> float32 [B, S, S, 3], and
# the purpose of its random numbers, by name, in the order of application: first those of pixels in
# 0..255, then those of normalized pixels.
PIXEL_STAGES: dict[str, tuple[Callable[..., tf.Tensor], int]] = {
    "hsv": (_jitter_hsv, _HSV),
    "lighting": (_light, _LIGHTING),
    "grayscale": (_make_gray, _GRAYSCALE),
}
NORMALIZED_STAGES: dict[str, tuple[Callable[..., tf.Tensor], int]] = {"erasing": (_erase, _ERASING)}


def is_mixing(config: DataConfig) -> bool:
    """Returns whether mixup or CutMix is enabled."""
    return _is_mixing(augment_spec.read(config))


def _is_mixing(spec: augment_spec.AugmentSpec) -> bool:
    return "mixup" in spec or "cutmix" in spec


def require_even_batch(config: DataConfig, batch_size: int) -> None:
    """Checks that a batch consists of whole pairs if images are mixed in pairs.

    Args:
      config: DataConfig.
      batch_size: images that one replica processes at a time.

    Raises:
      UsageError: images are mixed and `batch_size` is odd.
    """
    if is_mixing(config) and batch_size % 2:
        name = "mixup" if "mixup" in augment_spec.read(config) else "cutmix"
        raise UsageError(
            f"--batch_size={config.batch_size}: {name} mixes pairs of images, but a replica"
            f" would process {batch_size} at a time; choose a batch size that makes this even"
        )


def normalize(
    images: tf.Tensor | np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> tf.Tensor:
    """Subtracts the mean of the training pixels and divides by their standard deviation.

    Args:
      images: uint8 or float32 [..., 3], RGB, 0..255.
      mean, std: three floats each, 0..255.

    Returns:
      float32 of the same shape.
    """
    scale = 1.0 / tf.constant(std, tf.float32)
    return (tf.cast(images, tf.float32) - tf.constant(mean, tf.float32)) * scale


def denormalize(
    images: tf.Tensor | np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> tf.Tensor:
    """Inverts `normalize` for display: float32 [..., 3] becomes uint8, clipped to 0..255."""
    pixels = images * tf.constant(std, tf.float32) + tf.constant(mean, tf.float32)
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)


def format_captions(targets: Targets, names: Sequence[str]) -> list[str]:
    """Formats a caption per image: its class, or both classes and their shares, larger first.

    Args:
      targets: B targets as NumPy arrays.
      names: class names by label.

    Returns:
      B strings.
    """
    captions = []
    for label, partner, share in zip(*targets, strict=True):
        percent = round(100 * float(share)) if label != partner else 100
        shares = sorted([(percent, names[label]), (100 - percent, names[partner])], reverse=True)
        mixture = ", ".join(f"{percent}% {name}" for percent, name in shares)
        captions.append(shares[0][1] if shares[0][0] == 100 else mixture)
    return captions


def _mix(
    spec: augment_spec.AugmentSpec,
    seed: int,
    images: tf.Tensor,
    labels: tf.Tensor,
    samples: tf.Tensor,
    num_mixed: int | None,
) -> tuple[tf.Tensor, Targets]:
    """Mixes pairs of images with mixup or CutMix, if either is enabled."""
    share = tf.ones_like(labels, tf.float32)
    if not _is_mixing(spec):
        return images, Targets(labels, labels, share)
    weights, share = _draw_mixing_weights(spec, seed, samples // 2, images.shape[1])
    if num_mixed is not None:
        is_mixed = samples // 2 * 2 < num_mixed  # the same for both images of a pair
        weights = tf.where(is_mixed[:, None, None, None], weights, 0.0)
        share = tf.where(is_mixed, share, 1.0)
    return mixup_cutmix.mix_pairs(images, weights), Targets(
        labels, mixup_cutmix.swap_within_pairs(labels), share
    )


def _draw_mixing_weights(
    spec: augment_spec.AugmentSpec, seed: int, pairs: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws the weight of the partner in each pixel, and the share that the own label keeps.

    Args:
      spec: the augmentations, mixup or CutMix among them.
      seed: the run's seed.
      pairs: int64 [B], number of each image's pair. Both images of a pair draw the same numbers.
      size: S, side of the images.

    Returns:
      (weights, float32 [B, 1 or S, 1 or S, 1]; shares, float32 [B]).
    """

    def draw_mixup() -> tuple[tf.Tensor, tf.Tensor]:
        share = per_sample_random.symmetric_beta(seed, pairs, _MIXUP, **spec["mixup"])
        return (1.0 - share)[:, None, None, None], share

    def draw_cutmix() -> tuple[tf.Tensor, tf.Tensor]:
        share = per_sample_random.symmetric_beta(seed, pairs, _CUTMIX, **spec["cutmix"])
        corners, share = mixup_cutmix.cutmix_boxes(
            share, per_sample_random.uniform(seed, pairs, _BOX, 2), size
        )
        return tf.cast(mixup_cutmix.boxes_to_masks(corners, size), tf.float32)[..., None], share

    if "cutmix" not in spec:
        return draw_mixup()
    if "mixup" not in spec:
        return draw_cutmix()
    (mixup_weights, mixup_share), (box_weights, box_share) = draw_mixup(), draw_cutmix()
    choice = per_sample_random.uniform(seed, pairs, _CHOICE, 1)[:, 0] < 0.5
    weights = tf.where(choice[:, None, None, None], mixup_weights, box_weights)
    return weights, tf.where(choice, mixup_share, box_share)
