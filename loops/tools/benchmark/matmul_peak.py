"""What a benchmark ran on, and how fast that multiplies matrices: the measure of its speed."""

import statistics
import time

import tensorflow as tf

from input_pipeline import threads
from loops.runtime import environment

# Sides of the square matrices; larger ones are left out once a product takes a while.
_SIDES = (512, 1024, 2048, 4096, 8192)
_MAX_MATMUL_SECONDS = 0.25
_REPEATS = 3
# Products that take less are timed several in a row.
_MIN_CALL_SECONDS = 0.05


def measure(dtype, sides=_SIDES):
    """The best rate of square matrix products on the first device.

    Args:
      dtype: of the matrices, "float32", "float16" or "bfloat16".
      sides: of the matrices, ascending.

    Returns:
      dict: operations_per_second (a multiply-add counts as two; median of three), side.
    """
    best = {"operations_per_second": 0.0, "side": 0}
    for side in sides:
        seconds = _time_matmul(side, dtype)
        rate = 2.0 * side**3 / seconds
        if rate > best["operations_per_second"]:
            best = {"operations_per_second": rate, "side": side}
        if seconds > _MAX_MATMUL_SECONDS:
            break
    return best


def _time_matmul(side, dtype):
    matrix = tf.cast(tf.random.stateless_uniform([side, side], (0, 1)) / side, dtype)

    @tf.function
    def products(count):
        x = matrix
        for _ in tf.range(count):
            x = tf.matmul(matrix, x)  # entries stay below one
        return x[0, 0]

    def seconds(count):
        started = time.perf_counter()
        products(tf.constant(count)).numpy()
        return (time.perf_counter() - started) / count

    seconds(1)  # traces
    count = max(1, int(_MIN_CALL_SECONDS / seconds(1)))
    return statistics.median(seconds(count) for _ in range(_REPEATS))


def count_physical_devices(replicas):
    """How many devices of their own the replicas have: parts of a CPU share its cores."""
    return replicas if tf.config.list_logical_devices("GPU") else 1


def describe_devices():
    """The devices that this process sees: list of what a person calls them."""
    if gpus := tf.config.list_physical_devices("GPU"):
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return [f"GPU {found.get('device_name', 'of unknown name')}" for found in details]
    used = tf.config.threading.get_intra_op_parallelism_threads() or threads.available_cores()
    split = len(tf.config.list_logical_devices("CPU"))
    parts = f", split into {split} devices" if split > 1 else ""
    return [f"CPU {environment.detect_cpu()[0]}, {used} cores{parts}"]
