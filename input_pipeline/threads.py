"""How many threads load images; nothing of it is left to tf.data's tuner.

The tuner sleeps between two looks, each time for longer, up to a minute, and an iterator that is
let go waits until it wakes: at the end of an evaluation both cores stood still for as long as half
of it had taken.
"""

import os

import tensorflow as tf

# Batches that wait for the net, so that a slow image does not stop it.
PREFETCH_BATCHES = 4


def num_parallel_calls(wanted):
    """Samples that are loaded at once: as wanted, or one for each core where that is 0."""
    return wanted or available_cores()


def make_dataset_options(wanted=0):
    """tf.data.Options of every data set that is iterated over.

    Args:
      wanted: `--reader_threads`; where it is not 0, the pipeline gets so many threads of its own.
    """
    chosen = tf.data.Options()
    chosen.autotune.enabled = False
    # Slices per replica and worker are computed here, never guessed by tf.data.
    chosen.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    if wanted:
        chosen.threading.private_threadpool_size = wanted
    return chosen


def available_cores():
    """Those of its affinity, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
