"""Which image is sample g: a pure function of seed, epoch and position.

Global sample g is image `permutation(seed, epoch)[position]` with epoch = g // N and
position = g % N. Nothing is stored, so a run resumes at any step, and any worker can compute
its own slice.
"""

import tensorflow as tf

_SHUFFLES = 2


def image_index(seed, epoch, position, num_examples):
    """Index of the image at a position of an epoch's permutation.

    Args:
      seed: the run's seed, below 2**32.
      epoch: int64 scalar.
      position: int64 tensor of any shape, 0 <= position < num_examples.
      num_examples: N, images of the split.

    Returns:
      int64 tensor of position's shape, 0 <= index < N.
    """
    # In a set of fewer than 65,000 images the shuffle looks at the low eight bits of either number
    # of its key, no more: seed 256 would repeat seed 0. So the keys are drawn from seed and epoch,
    # and there are two, since sixteen bits would be too few to tell the epochs of many runs apart.
    seeds = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    keys = tf.random.stateless_uniform([_SHUFFLES, 2], seeds, None, None, tf.int64)
    last = tf.constant(num_examples - 1, tf.int64)
    index = tf.cast(position, tf.int64)
    for key in tf.unstack(keys):
        index = tf.random.experimental.index_shuffle(index, key, last)
    return index


def sample_seed(seed, sample):
    """Seed of everything random about global sample g: int64 [2]."""
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(sample, tf.int64)])


def sample_numbers(first_sample, batch_size, deal=None):
    """The global sample numbers that a worker reads, in its order.

    Batches go to the replicas in turn, and a worker reads those of its own replicas only.

    Args:
      first_sample: global number of the first sample of all.
      batch_size: images of one replica's batch.
      deal: (number of the worker's first replica, how many it has, how many there are), or None
        for all of them.

    Returns:
      tf.data.Dataset of int64 scalars, without end.
    """
    if deal is None or deal[1] == deal[2]:
        return tf.data.Dataset.range(first_sample, 2**62)
    first_replica, local, replicas = deal

    def to_global(n):
        batch, within = n // batch_size, n % batch_size
        step, replica = batch // local, first_replica + batch % local
        return first_sample + (step * replicas + replica) * batch_size + within

    return tf.data.Dataset.range(2**61 // replicas).map(to_global)
