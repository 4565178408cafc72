"""Random batches in memory, in the form in which the input pipeline delivers them."""

import numpy as np
import tensorflow as tf


def make_random_batches(
    image_size: int, num_classes: int, batch_size: int, seed: int = 0
) -> tf.data.Dataset:
    """Returns an endless dataset of one batch of random images.

    Args:
      image_size: of the square images, in pixels.
      num_classes: labels are below this.
      batch_size: images per batch.
      seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    batch = {
        "image": rng.integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8),
        "label": rng.integers(0, num_classes, batch_size, np.int32),
        "sample": np.arange(batch_size, dtype=np.int64),
        "replaced": np.zeros(batch_size, np.int64),
    }
    return tf.data.Dataset.from_tensors(batch).repeat()


def make_random_views(image_size: int, crops: int, batch_size: int) -> tf.data.Dataset:
    """Returns an endless dataset of one batch of random views, uint8 [batch_size, V, S, S, 3]."""
    shape = (batch_size, crops, image_size, image_size, 3)
    batch = {"views": np.random.default_rng(0).integers(0, 256, shape, np.uint8)}
    return tf.data.Dataset.from_tensors(batch).repeat()
