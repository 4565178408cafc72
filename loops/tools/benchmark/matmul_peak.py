"""Measures the rate of matrix products, the peak that a benchmark's speed is compared with."""

import statistics
import time
from collections.abc import Sequence

import tensorflow as tf

from input_pipeline import threads
from loops.runtime import environment

# Sides of the square matrices. Sides after a product that takes too long are skipped.
_SIDES = (512, 1024, 2048, 4096, 8192)
_MAX_MATMUL_SECONDS = 0.25
_REPEATS = 3
# Shorter products are timed several in a row.
_MIN_CALL_SECONDS = 0.05


def measure(dtype: str, sides: Sequence[int] = _SIDES) -> dict[str, float | int]:
    """Measures the best rate of square matrix products on the first device.

    Args:
      dtype: of the matrices, "float32", "float16" or "bfloat16".
      sides: of the matrices, ascending.

    Returns:
      dict: operations_per_second (median of three, where a multiply-add counts as two), side.
    """
    best = {"operations_per_second": 0.0, "side": 0}
    for side in sides:
        seconds = time_matmul(side, dtype)
        rate = 2.0 * side**3 / seconds
        if rate > best["operations_per_second"]:
            best = {"operations_per_second": rate, "side": side}
        if seconds > _MAX_MATMUL_SECONDS:
            break
    return best


def time_matmul(side: int, dtype: str) -> float:
    """Returns the seconds of one product of two [side, side] matrices."""
    matrix = tf.cast(tf.random.stateless_uniform([side, side], (0, 1)) / side, dtype)

    @tf.function
    def multiply(count):
        x = matrix
        for _ in tf.range(count):
            x = tf.matmul(matrix, x)  # entries stay below one
        return x[0, 0]

    def measure_seconds(count: int) -> float:
        started = time.perf_counter()
        multiply(tf.constant(count)).numpy()
        return (time.perf_counter() - started) / count

    measure_seconds(1)  # traces
    count = max(1, int(_MIN_CALL_SECONDS / measure_seconds(1)))
    return statistics.median(measure_seconds(count) for _ in range(_REPEATS))


def count_physical_devices(replicas: int) -> int:
    """Returns how many physical devices the replicas use. Parts of a CPU share its cores."""
    return replicas if tf.config.list_logical_devices("GPU") else 1


def describe_devices() -> list[str]:
    """Returns the names of the devices that this process sees."""
    if gpus := tf.config.list_physical_devices("GPU"):
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return [f"GPU {detail.get('device_name', 'of unknown name')}" for detail in details]
    cores = tf.config.threading.get_intra_op_parallelism_threads() or threads.available_cores()
    num_cpus = len(tf.config.list_logical_devices("CPU"))
    split = f", split into {num_cpus} devices" if num_cpus > 1 else ""
    return [f"CPU {environment.detect_cpu()[0]}, {cores} cores{split}"]
