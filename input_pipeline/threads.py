"""Thread counts of the input pipeline, with tf.data's autotuner disabled.

The autotuner sleeps for up to a minute between adjustments, and destroying an iterator blocks
until it wakes up. At the end of an evaluation, this added half of the evaluation's duration, with
both cores idle.
"""

import os

import tensorflow as tf

# Batches that are loaded ahead, so that a slow image does not stall the model.
PREFETCH_BATCHES = 4


def num_parallel_calls(reader_threads: int) -> int:
    """Returns the number of samples to load in parallel: `reader_threads`, or the cores if 0."""
    return reader_threads or available_cores()


def make_dataset_options(reader_threads: int = 0) -> tf.data.Options:
    """Returns the options of every dataset that the program iterates over.

    Args:
      reader_threads: size of the pipeline's private thread pool; 0 uses the shared pool.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    # Rewriting the graph takes 0.4 s per iterator and finds nothing to improve.
    options.experimental_optimization.apply_default_optimizations = False
    # Loading begins with the iterator, while the model's function is still being traced.
    options.experimental_warm_start = True
    # This package computes the slice of each worker, so TensorFlow must not shard again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    if reader_threads:
        options.threading.private_threadpool_size = reader_threads
    return options


def available_cores() -> int:
    """Returns the number of cores that this process may use, which respects its CPU affinity."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
