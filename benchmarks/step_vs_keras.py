"""Compares our training step with the same network and recipe in plain Keras.

    python -m benchmarks.step_vs_keras

Both sides train a ResNetV2-50 of 1,000 classes on synthetic images: uint8 batches in memory,
normalized in the step, SGD with Nesterov momentum, L2 penalty on the kernels.

Our side is the training step of `main.py --mode=train`. The other side is the network of
`workloads/keras_resnetv2.py` with Keras's SGD and a GradientTape in a `tf.function`. It is what a
careful user writes: optimizer built before tracing, static shapes, no metric except the loss.

Both sides use oneDNN kernels. Only ours keeps freed memory (`loops/runtime/malloc.py`), because
that is part of our training loop.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator

from benchmarks import harness

_MODULE = "benchmarks.step_vs_keras"
_SIDES = ("ours", "keras")
_STEPS_PER_CALL = 2  # the training loop runs a few seconds of steps per call
# Quantities in the table, with their labels.
_LABELS = {
    "images_per_second": "images/s",
    "first_step_seconds": "first step, s",
    "start_to_first_step_seconds": "start to first step, s",
    "system_seconds_per_step": "system CPU, s/step",
    "peak_memory_mb": "peak memory, MB",
}


def measure(run: Callable[[int], float], batch_size: int, steps: int) -> dict[str, float]:
    """Times a side: the first step, two warm-up steps, then `steps` in calls of two.

    Args:
      run: runs a number of steps and returns their mean cross-entropy.
      batch_size: images per step.
      steps: timed steps.

    Returns:
      A dict with these quantities:

      images_per_second: median over the calls.
      first_step_seconds, start_to_first_step_seconds: the latter from the start of the process.
      peak_memory_mb: see `harness.peak_memory_mb`.
      user_seconds_per_step and so on: see `harness.get_resource_usage`.
      first_loss, last_loss: cross-entropies of the first step and of the last call.
    """

    def time_steps(num_steps: int) -> tuple[float, float]:
        started = time.perf_counter()
        loss = run(num_steps)
        return time.perf_counter() - started, loss

    first_step_seconds, first_loss = time_steps(1)
    start_to_first_step = harness.get_seconds_since_start()
    time_steps(2)
    before = harness.get_resource_usage()
    calls = [time_steps(_STEPS_PER_CALL) for _ in range(math.ceil(steps / _STEPS_PER_CALL))]
    timed_steps = len(calls) * _STEPS_PER_CALL
    usage = {
        f"{name}_per_step": (value - before[name]) / timed_steps
        for name, value in harness.get_resource_usage().items()
    }
    seconds = statistics.median(seconds for seconds, _ in calls)
    return {
        "images_per_second": _STEPS_PER_CALL * batch_size / seconds,
        "first_step_seconds": first_step_seconds,
        "start_to_first_step_seconds": start_to_first_step,
        "peak_memory_mb": harness.peak_memory_mb(),
        **usage,
        "first_loss": first_loss,
        "last_loss": calls[-1][1],
    }


def summarize(runs: harness.PairedRuns) -> dict:
    """Returns medians by side and quantity, ratios (ours / keras) of the pairs, and the runs."""
    ratios = runs.ratios("images_per_second", *_SIDES)
    return {
        "medians": runs.medians(),
        "ratios": ratios,
        "median_ratio": statistics.median(ratios),
        "runs": runs.by_side,
    }


def format_rows(dtype: str, result: dict) -> Iterator[list]:
    """Yields rows of the table: dtype, quantity, side, median, and the value of every pair."""
    for name, label in _LABELS.items():
        for side in _SIDES:
            values = [run[name] for run in result["runs"][side]]
            yield [dtype, label, side, result["medians"][side][name], *values]
        if name == "images_per_second":
            ratios = result["ratios"]
            yield [dtype, "ratio", " / ".join(_SIDES), result["median_ratio"], *ratios]


def main() -> None:
    """Compares the sides, or measures the one that `--side` names."""
    parser = harness.BenchmarkParser(__doc__, sides=_SIDES)
    parser.add_flag("--size", 224)
    parser.add_flag("--batch", 32)
    parser.add_flag("--steps", 8)
    parser.add_flag("--pairs", 5)
    parser.add_flag("--dtypes", ",".join(harness.default_dtypes()))
    args = parser.parse_args()
    parser.require_known("--dtypes", args.dtypes, harness.DTYPES)
    parser.require_positive(args, "steps", "pairs", "batch")
    if args.side:
        harness.emit(_measure_side(args))
        return

    words = parser.format_flags(args)
    report = harness.start_report(_MODULE, words, (*harness.PACKAGES, "numpy")) | {"results": {}}
    dtypes = args.dtypes.split(",")
    for dtype in dtypes:
        child_words = [*words, f"--dtypes={dtype}"]
        for runs in harness.run_pairs(_MODULE, _SIDES, args.pairs, child_words, label=f"{dtype}, "):
            report["results"][dtype] = summarize(runs)
            harness.save_report(args.json, report)
    header = ["dtype", "", "", "median", *(f"pair {n + 1}" for n in range(args.pairs))]
    rows = [row for dtype in dtypes for row in format_rows(dtype, report["results"][dtype])]
    harness.echo("\n" + harness.format_table(header, rows))


def _measure_side(args: argparse.Namespace) -> dict[str, float]:
    # Only child processes import TensorFlow: see `harness.peak_memory_mb`.
    from benchmarks.workloads import step_workloads

    build = {"ours": step_workloads.build_ours, "keras": step_workloads.build_keras}[args.side]
    _, run = build(args.size, args.batch, args.dtypes.split(",")[0])
    return measure(run, args.batch, args.steps)


if __name__ == "__main__":
    main()
