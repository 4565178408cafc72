"""The most memory that a run has held."""

import pathlib
import resource

import tensorflow as tf


def peak_bytes():
    """The most memory held so far: of the first GPU's allocator, or else of this process."""
    if gpus := tf.config.list_logical_devices("GPU"):
        return int(tf.config.experimental.get_memory_info(gpus[0].name[-5:])["peak"])
    try:
        # Unlike the figure of getrusage, this one does not begin with the parent's peak.
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
