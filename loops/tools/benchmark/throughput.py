"""From timed calls to the figures of a benchmark, and the table that shows them."""

import dataclasses
import time

import numpy as np
import tensorflow as tf

from input_pipeline.errors import UsageError
from input_pipeline.text import pluralize, tf_error_message
from loops.runtime import peak_memory
from loops.tools.benchmark import matmul_peak
from nets.macs import count_multiply_adds

# What is timed after the first call, which traces, and what warms up.
TIMED_CALLS = 20
_TARGET_CALL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Timings:
    """What a benchmark's clock has seen.

    Attributes:
      first_seconds: of the first step, tracing included.
      seconds: of every timed call, the first ones left out.
      steps: of each of these calls.
    """

    first_seconds: float
    seconds: list
    steps: list


def time_calls(call):
    """Times a function of a number of steps: once to trace, twice to warm up, then 20 calls.

    A call does as many steps as a tenth of a second holds, at least one: what Python does around
    a call is then as small a part of it as in training.

    Returns:
      Timings.

    Raises:
      UsageError: memory is too small.
    """

    def seconds(steps):
        started = time.perf_counter()
        try:
            call(steps)
        except tf.errors.ResourceExhaustedError as error:
            reason = tf_error_message(error)[:100]
            raise UsageError(f"out of memory; give a smaller --batch_size ({reason})") from None
        return time.perf_counter() - started

    first = seconds(1)
    seconds(1)
    steps = max(1, round(_TARGET_CALL_SECONDS / seconds(1)))
    return Timings(first, [seconds(steps) for _ in range(TIMED_CALLS)], [steps] * TIMED_CALLS)


def compute_results(timings, images, operations, net, config, dtype, replicas):
    """The figures of a net that has run.

    Args:
      timings: Timings.
      images: of a step, over all replicas.
      operations: of an image for each of the net's multiply-adds.
      net: keras.Model.
      config: resolved Config.
      dtype: that it computed in.
      replicas: that shared the work.

    Returns:
      dict as in the JSON file. The steps of one call all count with their mean.
    """
    peak = peak_memory.peak_bytes()  # before the matrices, which are no part of it
    each = np.repeat(np.array(timings.seconds) / timings.steps, timings.steps)
    p50, p90 = np.percentile(1e3 * each, (50, 90)).tolist()
    matrices = matmul_peak.measure(dtype)
    most = matrices["operations_per_second"] * matmul_peak.count_physical_devices(replicas)
    arithmetic = count_multiply_adds(net, config.data.image_size)
    rate = 1e3 * operations * arithmetic * images / p50
    calls = zip(timings.seconds, timings.steps, strict=True)
    return {
        "model": config.net.model,
        "images_per_second": 1e3 * images / p50,
        "step_ms_p50": p50,
        "step_ms_p90": p90,
        "steps_timed": sum(timings.steps),
        "step_ms_of_calls": [1e3 * seconds / steps for seconds, steps in calls],
        "steps_of_calls": timings.steps,
        "first_step_seconds": timings.first_seconds,
        "peak_memory_bytes": peak,
        "parameters": sum(v.value.shape.num_elements() for v in net.trainable_variables),
        "multiply_adds": arithmetic,
        "gflops_per_second": rate / 1e9,
        "matmul_gflops_per_second": most / 1e9,
        "matmul_side": matrices["side"],
        "share_of_matmul": rate / most,
        "compute_dtype": dtype,
        "image_size": config.data.image_size,
        "batch_size": images,
        "replicas": replicas,
        "devices": matmul_peak.describe_devices(),
    }


def format_rows(results):
    """Rows of the summary of `compute_results`."""
    form = {
        "net": "{model}, {parameters:,} trainable parameters, {multiply_adds:,} multiply-adds of an"
        " image of {image_size} px",
        "ran on": "{on}, {devices[0]}, in {compute_dtype}",
        "batch": "{images}",
        "images/s": "{images_per_second:.1f}",
        "step": "{step_ms_p50:.1f} ms (p50), {step_ms_p90:.1f} ms (p90) of {steps_timed}",
        "first step": "{first_step_seconds:.1f} s, tracing included",
        "arithmetic": "{gflops_per_second:.1f} GFLOP/s, {share_of_matmul:.2f} of the"
        " {matmul_gflops_per_second:.0f} of matrix products here ({matmul_side} x {matmul_side})",
    }
    said = {
        "on": pluralize(results["replicas"], "replica"),
        "images": pluralize(results["batch_size"], "image"),
    }
    memory = ("peak memory", f"{results['peak_memory_bytes'] / 1e9:.2f} GB")
    return [*((name, text.format(**results, **said)) for name, text in form.items()), memory]
