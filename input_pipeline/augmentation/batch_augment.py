"""What is done to a whole batch, on the accelerator: bytes become normalised, mixed floats.

Every random number is a function of the run's seed and the global sample number, so that the
result does not depend on how samples are cut into batches, micro-batches and replicas.
"""

from typing import NamedTuple

import tensorflow as tf

from input_pipeline.augmentation import (
    augment_spec,
    color,
    mixup_cutmix,
    per_sample_random,
    random_erasing,
)
from input_pipeline.errors import UsageError

# Every random decision draws numbers of its own.
_HSV, _LIGHTING, _ERASING, _MIXUP, _CUTMIX, _BOX, _CHOICE = range(7)


class Targets(NamedTuple):
    """What the net should say about each image: a share of one class, the rest of another.

    Attributes:
      label: int32 [B].
      partner: int32 [B], the class of the image that was mixed in.
      share: float32 [B], 0..1, of `label`; 1 where nothing was mixed in.
    """

    label: tf.Tensor
    partner: tf.Tensor
    share: tf.Tensor


def make_preprocess_fn(config, seed=0, xla=False):
    """Makes the function that turns a training batch into what the net and the loss take.

    Args:
      config: DataConfig with its mean, std and principal components.
      seed: the run's seed.
      xla: whether a GPU's stages are compiled; a CPU's always are.

    Returns:
      function from the dict of `pipeline.train_dataset` to (float32 images [B, S, S, 3], Targets).
    """
    stages = augment_spec.parse(config.augment).stages

    # Forty passes over a batch in a CPU's memory become one. A GPU has the bandwidth to do without
    # a compiler that not every machine has.
    @tf.function(jit_compile=xla or not tf.config.list_physical_devices("GPU"), autograph=False)
    def pixels(images, labels, samples):
        images = tf.cast(images, tf.float32)
        if "hsv" in stages:
            draws = per_sample_random.uniform(seed, samples, _HSV, 3)
            images = color.adjust_hsv(images, color.hsv_jitter(draws))
        if "lighting" in stages:
            draws = per_sample_random.normal(seed, samples, _LIGHTING, 3)
            shift = color.lighting_shift(draws, config.pca_values, config.pca_vectors)
            images += shift[:, None, None]
        images = normalize(images, config.mean, config.std)
        if "erasing" in stages:
            draws = per_sample_random.uniform(seed, samples, _ERASING, 5)
            images = random_erasing.erase(images, random_erasing.boxes(draws, images.shape[1]))
        return _mixed(images, labels, samples)

    def _mixed(images, labels, samples):
        share = tf.ones_like(labels, tf.float32)
        if not is_mixing(config):
            return images, Targets(labels, labels, share)
        weights, share = _draw_mixing_weights(config, seed, samples // 2, images.shape[1])
        return mixup_cutmix.mix_pairs(images, weights), Targets(
            labels, mixup_cutmix.swap_within_pairs(labels), share
        )

    return lambda batch: pixels(batch["image"], batch["label"], batch["sample"])


def is_mixing(config):
    """Whether a DataConfig asks for mixup or CutMix."""
    return config.mixup > 0 or config.cutmix > 0


def require_even_batch(config, batch_size):
    """Raises UsageError where images are mixed in pairs and a batch cuts a pair in two.

    Args:
      config: DataConfig.
      batch_size: images that one replica takes at a time.
    """
    if is_mixing(config) and batch_size % 2:
        flag = "mixup" if config.mixup > 0 else "cutmix"
        raise UsageError(
            f"--batch_size={config.batch_size}: --{flag} mixes pairs of images, and a replica would"
            f" take {batch_size} at a time; choose a batch size that makes this even"
        )


def normalize(images, mean, std):
    """Subtracts the mean and divides by the standard deviation of the training pixels.

    Args:
      images: uint8 or float32 [..., 3], RGB, 0..255.
      mean, std: three floats each, 0..255.

    Returns:
      float32 of the same shape.
    """
    scale = 1.0 / tf.constant(std, tf.float32)
    return (tf.cast(images, tf.float32) - tf.constant(mean, tf.float32)) * scale


def denormalize(images, mean, std):
    """Undoes `normalize`, for eyes: float32 [..., 3] to uint8, stopped at 0 and 255."""
    pixels = images * tf.constant(std, tf.float32) + tf.constant(mean, tf.float32)
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)


def format_captions(targets, names):
    """What to write below images: the class, or both with their shares, the larger first.

    Args:
      targets: Targets of numpy arrays.
      names: the classes' names, by label.

    Returns:
      list of B strings.
    """
    shown = []
    for label, partner, share in zip(*targets, strict=True):
        percent = round(100 * float(share)) if label != partner else 100
        shares = sorted([(percent, names[label]), (100 - percent, names[partner])], reverse=True)
        mixture = ", ".join(f"{percent}% {name}" for percent, name in shares)
        shown.append(shares[0][1] if shares[0][0] == 100 else mixture)
    return shown


def _draw_mixing_weights(config, seed, pairs, size):
    """How much of its partner each pixel of an image is, and what is left of its own label.

    Args:
      config: DataConfig.
      seed: the run's seed.
      pairs: int64 [B], number of the pair of each image: both of a pair draw the same.
      size: S, side of the images.

    Returns:
      (float32 [B, 1 or S, 1 or S, 1], float32 [B]).
    """

    def of_mixup():
        share = per_sample_random.symmetric_beta(seed, pairs, _MIXUP, config.mixup)
        return (1.0 - share)[:, None, None, None], share

    def of_cutmix():
        share = per_sample_random.symmetric_beta(seed, pairs, _CUTMIX, config.cutmix)
        corners, share = mixup_cutmix.cutmix_boxes(
            share, per_sample_random.uniform(seed, pairs, _BOX, 2), size
        )
        return tf.cast(mixup_cutmix.boxes_to_masks(corners, size), tf.float32)[..., None], share

    if not config.cutmix:
        return of_mixup()
    if not config.mixup:
        return of_cutmix()
    (mixup_weights, mixup_share), (box_weights, box_share) = of_mixup(), of_cutmix()
    choice = per_sample_random.uniform(seed, pairs, _CHOICE, 1)[:, 0] < 0.5
    weights = tf.where(choice[:, None, None, None], mixup_weights, box_weights)
    return weights, tf.where(choice, mixup_share, box_share)
