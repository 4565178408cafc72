"""What is done to a whole batch, on the accelerator: bytes become normalised floats."""

from typing import NamedTuple

import tensorflow as tf


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


def make_prepare(config):
    """Makes the function that turns a training batch into what the net and the loss take.

    Args:
      config: DataConfig with its mean and std.

    Returns:
      function from the dict of `pipeline.train_dataset` to (float32 images [B, S, S, 3], Targets).
    """

    def prepare(batch):
        images = normalize(batch["image"], config.mean, config.std)
        label = batch["label"]
        return images, Targets(label, label, tf.ones(tf.shape(label), tf.float32))

    return prepare


def normalize(images, mean, std):
    """Subtracts the mean and divides by the standard deviation of the training pixels.

    Args:
      images: uint8 [..., 3], RGB.
      mean, std: three floats each, 0..255.

    Returns:
      float32 of the same shape.
    """
    scale = 1.0 / tf.constant(std, tf.float32)
    return (tf.cast(images, tf.float32) - tf.constant(mean, tf.float32)) * scale
