"""Which batch a benchmark takes where none is typed, and what it is filled with."""

import numpy as np
import tensorflow as tf
from absl import logging

from loops import benchmark_machine

# A benchmark's steps, warm-up included, should not take longer than this by default.
_SECONDS = 75.0
_STEPS = 23
# What a net reaches of the rate of plain matrix products, about.
_SHARE = 0.75
# Images of one replica: enough for all cores, few enough for memory.
_MOST = {"CPU": 32, "GPU": 128}


def choose(wanted, operations_per_image, operations_per_second, parts, replicas):
    """The batch for `--benchmark=step` and `train` where `--batch_size` is not typed.

    Args:
      wanted: the data set's own.
      operations_per_image: of a training step, a multiply-add counting as two.
      operations_per_second: of matrix products on one device.
      parts: the batch must be a multiple of this.
      replicas: that share it.

    Returns:
      int: the data set's own batch, halved until a replica has room for its share and until the
      steps of a benchmark take about a minute at most.
    """
    rate = _SHARE * operations_per_second * benchmark_machine.shares(replicas)
    room = _MOST["GPU" if tf.config.list_logical_devices("GPU") else "CPU"] * replicas
    most = min(room, _SECONDS / _STEPS * rate / operations_per_image)
    batch_size = wanted
    while batch_size > max(most, parts):
        batch_size //= 2
    batch_size = max(parts, batch_size // parts * parts)
    logging.info("--batch_size=%d, so that the benchmark takes about a minute", batch_size)
    return batch_size


def training_images(data, num_classes, per_replica):
    """Endless batches of random images, in the form that the input pipeline gives them.

    Args:
      data: DataConfig with its sizes resolved.
      num_classes: labels are below.
      per_replica: images of each batch.

    Returns:
      tf.data.Dataset of one batch that is held in memory.
    """
    rng = np.random.default_rng(0)
    size = data.image_size
    batch = {
        "image": rng.integers(0, 256, (per_replica, size, size, 3), np.uint8),
        "label": rng.integers(0, num_classes, per_replica, np.int32),
        "sample": np.arange(per_replica, dtype=np.int64),
        "replaced": np.zeros(per_replica, np.int64),
    }
    return tf.data.Dataset.from_tensors(batch).repeat()


def views(data, crops, per_replica):
    """Endless batches of the views of random images, uint8 [per_replica, V, S, S, 3]."""
    shape = (per_replica, crops, data.image_size, data.image_size, 3)
    batch = {"views": np.random.default_rng(0).integers(0, 256, shape, np.uint8)}
    return tf.data.Dataset.from_tensors(batch).repeat()
