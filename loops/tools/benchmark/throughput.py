"""Times calls of a training step or forward pass, and computes throughput from the times."""

import dataclasses
import time
from collections.abc import Callable

import keras
import numpy as np

from input_pipeline.text import pluralize
from loops.config.config import Config
from loops.runtime import peak_memory
from loops.runtime.out_of_memory import convert_out_of_memory
from loops.tools.benchmark import matmul_peak
from nets.macs import count_multiply_adds, count_parameters

# Timed calls, after the first call, which traces, and the warm-up calls.
TIMED_CALLS = 20
_TARGET_CALL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Timings:
    """The times of a benchmark.

    Attributes:
      first_seconds: duration of the first step, including tracing.
      seconds: duration of each timed call.
      steps: number of steps of each timed call.
    """

    first_seconds: float
    seconds: list[float]
    steps: list[int]


def time_calls(call: Callable[[int], object]) -> Timings:
    """Times a function: one call to trace, two calls to warm up, then 20 timed calls.

    A timed call does as many steps as fit into a tenth of a second, at least one. The overhead of
    Python per step is then as small as in training.

    Args:
      call: runs a number of steps.

    Raises:
      UsageError: out of memory.
    """

    def measure_seconds(steps: int) -> float:
        with convert_out_of_memory("--mode=benchmark", lambda: "give a smaller --batch_size"):
            started = time.perf_counter()
            call(steps)
            return time.perf_counter() - started

    first_seconds = measure_seconds(1)
    measure_seconds(1)
    steps = max(1, round(_TARGET_CALL_SECONDS / measure_seconds(1)))
    seconds = [measure_seconds(steps) for _ in range(TIMED_CALLS)]
    return Timings(first_seconds, seconds, [steps] * TIMED_CALLS)


def compute_results(
    timings: Timings,
    images_per_step: int,
    flops_per_mac: int,
    model: keras.Model,
    config: Config,
    dtype: str,
    replicas: int,
) -> dict:
    """Computes the results of a benchmark of a model.

    Args:
      timings: measured times. Each step of a call counts with the mean of the call.
      images_per_step: over all replicas.
      flops_per_mac: floating-point operations of a step per image and multiply-add of the model.
      model: the model that was run.
      config: resolved config.
      dtype: compute type of the model.
      replicas: number of replicas that shared a step.

    Returns:
      dict as in the JSON file.
    """
    peak_bytes = peak_memory.peak_bytes()  # before the matrices are allocated
    step_seconds = np.repeat(np.array(timings.seconds) / timings.steps, timings.steps)
    p50, p90 = np.percentile(1e3 * step_seconds, (50, 90)).tolist()
    matmul = matmul_peak.measure(dtype)
    devices = matmul_peak.count_physical_devices(replicas)
    matmul_flops_per_second = matmul["operations_per_second"] * devices
    multiply_adds = count_multiply_adds(model, config.data.image_size)
    flops_per_second = 1e3 * flops_per_mac * multiply_adds * images_per_step / p50
    calls = zip(timings.seconds, timings.steps, strict=True)
    return {
        "model": config.net.model,
        "images_per_second": 1e3 * images_per_step / p50,
        "step_ms_p50": p50,
        "step_ms_p90": p90,
        "steps_timed": sum(timings.steps),
        "step_ms_of_calls": [1e3 * seconds / steps for seconds, steps in calls],
        "steps_of_calls": timings.steps,
        "first_step_seconds": timings.first_seconds,
        "peak_memory_bytes": peak_bytes,
        "parameters": count_parameters(model),
        "multiply_adds": multiply_adds,
        "gflops_per_second": flops_per_second / 1e9,
        "matmul_gflops_per_second": matmul_flops_per_second / 1e9,
        "matmul_side": matmul["side"],
        "share_of_matmul": flops_per_second / matmul_flops_per_second,
        "compute_dtype": dtype,
        "image_size": config.data.image_size,
        "batch_size": images_per_step,
        "replicas": replicas,
        "devices": matmul_peak.describe_devices(),
    }


def format_rows(results: dict) -> list[tuple[str, str]]:
    """Formats the results of `compute_results` as rows for `console.print_summary`."""
    templates = {
        "net": "{model}, {parameters:,} trainable parameters, {multiply_adds:,} multiply-adds per"
        " image of {image_size} px",
        "ran on": "{replica_count}, {devices[0]}, in {compute_dtype}",
        "batch": "{image_count}",
        "images/s": "{images_per_second:.1f}",
        "step": "{step_ms_p50:.1f} ms (p50), {step_ms_p90:.1f} ms (p90) of {steps_timed}",
        "first step": "{first_step_seconds:.1f} s, tracing included",
        "arithmetic": "{gflops_per_second:.1f} GFLOP/s, {share_of_matmul:.2f} of the"
        " {matmul_gflops_per_second:.0f} of matrix products ({matmul_side} x {matmul_side})",
        "peak memory": "{peak_gigabytes:.2f} GB",
    }
    values = {
        **results,
        "replica_count": pluralize(results["replicas"], "replica"),
        "image_count": pluralize(results["batch_size"], "image"),
        "peak_gigabytes": results["peak_memory_bytes"] / 1e9,
    }
    return [(name, template.format(**values)) for name, template in templates.items()]
