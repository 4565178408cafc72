"""Measures the peak memory of a run."""

import pathlib
import resource

import tensorflow as tf


def peak_bytes() -> int:
    """Returns the peak memory so far: of the first GPU if there is one, else of this process."""
    if gpus := tf.config.list_logical_devices("GPU"):
        return int(tf.config.experimental.get_memory_info(gpus[0].name[-5:])["peak"])
    try:
        # The value of getrusage would include the parent's peak from before the fork.
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
