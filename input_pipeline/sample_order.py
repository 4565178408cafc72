"""Sample order: maps a global sample number to an image, as a pure function of the seed.

Let N be the number of images. Global sample g belongs to epoch g // N and has position g % N in
the permutation of that epoch. Nothing is stored, so a run can resume at any step, and each worker
computes its own slice.
"""

from typing import NamedTuple

import tensorflow as tf

_SHUFFLES = 2


class ReplicaSlice(NamedTuple):
    """The replicas that one worker feeds. Replicas are numbered across all workers.

    Attributes:
      first_replica: number of the worker's first replica.
      local_replicas: number of replicas on this worker.
      total_replicas: number of replicas on all workers.
    """

    first_replica: int
    local_replicas: int
    total_replicas: int


def image_index(
    seed: int, epoch: int | tf.Tensor, position: int | tf.Tensor, num_examples: int
) -> tf.Tensor:
    """Returns the index of the image at a position of an epoch's permutation.

    Args:
      seed: the run's seed, below 2**32.
      epoch: int64 scalar.
      position: int64 tensor of any shape, 0 <= position < num_examples.
      num_examples: N, the number of images in the split.

    Returns:
      int64 tensor with the shape of `position`, 0 <= index < N.
    """
    # Below 65,000 images, `index_shuffle` uses only the low eight bits of each number of its key,
    # so seed 256 would repeat seed 0. For this reason the keys are drawn from seed and epoch. Two
    # keys are needed because sixteen bits cannot distinguish the epochs of many runs.
    seeds = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    keys = tf.random.stateless_uniform([_SHUFFLES, 2], seeds, None, None, tf.int64)
    last = tf.constant(num_examples - 1, tf.int64)
    index = tf.cast(position, tf.int64)
    for key in tf.unstack(keys):
        index = tf.random.experimental.index_shuffle(index, key, last)
    return index


def repeat_positions(position: tf.Tensor, repeats: int) -> tf.Tensor:
    """Returns the positions of the images for repeated augmentation (Hoffer et al. 2020).

    Two adjacent images alternate until each was used `repeats` times, so that mixup never mixes an
    image with itself.

    Args:
      position: int64 tensor of any shape.
      repeats: how often each image is used.

    Returns:
      int64 tensor of the same shape, at most `position`.
    """
    return position // (2 * repeats) * 2 + position % 2 if repeats > 1 else position


def sample_seed(seed: int, sample: int | tf.Tensor) -> tf.Tensor:
    """Returns the seed for all random decisions about a global sample: int64 [2]."""
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(sample, tf.int64)])


def sample_numbers(
    first_sample: int, batch_size: int, replica_slice: ReplicaSlice | None = None
) -> tf.data.Dataset:
    """Returns the global sample numbers that a worker reads, in order.

    Batches are assigned to the replicas round-robin. A worker reads only the batches of its
    replicas.

    Args:
      first_sample: global number of the first sample, over all workers.
      batch_size: images per batch of one replica.
      replica_slice: the worker's replicas; None for all replicas.

    Returns:
      Infinite dataset of int64 scalars.
    """
    if replica_slice is None or replica_slice.local_replicas == replica_slice.total_replicas:
        return tf.data.Dataset.range(first_sample, 2**62)
    first_replica, local_replicas, total_replicas = replica_slice

    def to_global(number: tf.Tensor) -> tf.Tensor:
        batch, offset = number // batch_size, number % batch_size
        step, replica = batch // local_replicas, first_replica + batch % local_replicas
        return first_sample + (step * total_replicas + replica) * batch_size + offset

    return tf.data.Dataset.range(2**61 // total_replicas).map(to_global)
