"""Encoded images kept in memory: `--cache=ram`."""

import tensorflow as tf
from absl import logging

from input_pipeline import threads
from input_pipeline.errors import UsageError
from input_pipeline.system import available_memory

# Of the free memory; the rest is for the net, the batches and everybody else.
_MAX_MEMORY_FRACTION = 0.7
_NUM_SAMPLED = 200


def cache_in_memory(read, num_examples, what, reader_threads=0):
    """Reads every image once and returns a function that reads from memory.

    What is kept are the bytes of the files, so the pixels are those of a run without the cache. A
    file that cannot be read is kept as an empty one, which decodes no better.

    Args:
      read: function from an int64 scalar tensor to (encoded file, int32 label).
      num_examples: N.
      what: name of the split, for messages.
      reader_threads: that read; 0: one for each core.

    Returns:
      function like `read`.

    Raises:
      UsageError: the images do not fit into the free memory.
    """
    _require_free_memory(read, num_examples, what)

    def lenient(index):
        one = tf.data.Dataset.from_tensors(index).map(read).ignore_errors()
        missing = tf.data.Dataset.from_tensors((b"", 0)).map(lambda d, n: (d, tf.cast(n, tf.int32)))
        return one.concatenate(missing).take(1).get_single_element()

    everything = tf.data.Dataset.range(num_examples).map(
        lenient, num_parallel_calls=threads.num_parallel_calls(reader_threads), deterministic=True
    )
    options = threads.make_dataset_options(reader_threads)
    data, labels = everything.batch(num_examples).with_options(options).get_single_element()
    total = int(tf.reduce_sum(tf.cast(tf.strings.length(data), tf.int64)))
    logging.info("%s: %d images, %.1f MB, are in memory", what, num_examples, total / 1e6)
    return lambda index: (data[index], labels[index])


def _require_free_memory(read, num_examples, what):
    free = available_memory.available_bytes()
    if free is None:
        return
    step = max(1, num_examples // _NUM_SAMPLED)
    sample = tf.data.Dataset.range(0, num_examples, step).map(read).ignore_errors()
    sample = sample.with_options(threads.make_dataset_options(0))
    sizes = [len(data) for data, _ in sample.as_numpy_iterator()]
    wanted = sum(sizes) / max(1, len(sizes)) * num_examples
    if wanted > _MAX_MEMORY_FRACTION * free:
        raise UsageError(
            f"--cache=ram: {what} takes about {wanted / 1e9:.1f} GB and {free / 1e9:.1f} GB are"
            f" free, of which {_MAX_MEMORY_FRACTION:.0%} may be used; leave the flag out, or"
            " prepare"
            " the set with --short_side=288"
        )
