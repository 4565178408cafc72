"""Augmentations: gray images of a batch on the accelerator, and one inverted image on the host."""

import tensorflow as tf

from input_pipeline.augmentation import augmentations


@augmentations.batch
def grayscale(images, draws, probability=0.2):
    """Makes each image gray with a probability."""
    gray = tf.reduce_sum(images * [0.299, 0.587, 0.114], axis=-1, keepdims=True)
    is_gray = draws.uniform(1)[:, 0] < probability
    return tf.where(is_gray[:, None, None, None], gray, images)


@augmentations.image
def solarize(image, draws, threshold=128):
    """Inverts the bright pixels of half of the images."""
    inverted = tf.where(image < threshold, image, 255 - image)
    return tf.where(draws.uniform(1)[0] < 0.5, inverted, image)
