"""Our training step against the same network and recipe in plain Keras.

    python -m benchmarks.step_vs_keras

trains a ResNetV2-50 on synthetic images: uint8 batches in memory, normalised in the step, 1,000
classes, SGD with Nesterov momentum, L2 penalty on the kernels. On one side the step that
`main.py --mode=train` runs; on the other the net of `sides/keras_resnetv2.py`, Keras's SGD and
`tf.function` around a GradientTape, as a careful user writes it (optimizer built before tracing,
static shapes, no metric but the loss). Both have oneDNN's kernels; that freed memory is kept
(`loops/runtime/malloc.py`) belongs to our loop and so to our side.
"""

import argparse
import statistics
import time

from benchmarks import harness

_SIDES = ("ours", "keras")
_STEPS_PER_CALL = 2  # the training loop asks for a few seconds of steps at a time
# Quantities of the table, and what they are called there.
_SHOWN = {
    "images_per_second": "images/s",
    "first_step_seconds": "first step, s",
    "start_to_first_step_seconds": "start to first step, s",
    "system_seconds_per_step": "system CPU, s/step",
    "peak_memory_mb": "peak memory, MB",
}
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy")


def measure(run, batch_size, steps):
    """Times a side: the first step, two steps of warm-up, then `steps` in calls of two.

    Returns:
      dict of float: images_per_second (median over the calls), first_step_seconds,
      start_to_first_step_seconds (from the start of the process), peak_memory_mb, the
      quantities of `harness.get_resource_usage` per timed step, and first_loss and last_loss, the
      cross-entropies of the first step and of the last call.
    """

    def timed(num_steps):
        started = time.perf_counter()
        loss = run(num_steps)
        return time.perf_counter() - started, loss

    first_step_seconds, first_loss = timed(1)
    start_to_first_step = harness.seconds_since_start()
    timed(2)
    before = harness.get_resource_usage()
    calls = [timed(_STEPS_PER_CALL) for _ in range(-(-steps // _STEPS_PER_CALL))]
    timed_steps = len(calls) * _STEPS_PER_CALL
    used = {
        f"{name}_per_step": (value - before[name]) / timed_steps
        for name, value in harness.get_resource_usage().items()
    }
    seconds = statistics.median(seconds for seconds, _ in calls)
    return {
        "images_per_second": _STEPS_PER_CALL * batch_size / seconds,
        "first_step_seconds": first_step_seconds,
        "start_to_first_step_seconds": start_to_first_step,
        "peak_memory_mb": harness.peak_memory_mb(),
        **used,
        "first_loss": first_loss,
        "last_loss": calls[-1][1],
    }


def compare(args, dtype):
    """Measures both sides in turn; yields what is known after each pair.

    Yields:
      dict: medians (by side and quantity), ratios (ours / keras, one for each pair),
      median_ratio, and runs (by side, in order).
    """
    runs = {side: [] for side in _SIDES}

    def run(side):
        size = [f"--size={args.size}", f"--batch={args.batch}", f"--steps={args.steps}"]
        return harness.run_child(
            "benchmarks.step_vs_keras", [f"--side={side}", f"--dtypes={dtype}", *size]
        )

    for pair in harness.alternate(_SIDES, args.pairs, run):
        for side in _SIDES:
            runs[side].append(pair[side])
        both = zip(runs["ours"], runs["keras"], strict=True)
        ratios = [our["images_per_second"] / their["images_per_second"] for our, their in both]
        medians = {
            side: {name: statistics.median(run[name] for run in of_side) for name in of_side[0]}
            for side, of_side in runs.items()
        }
        yield {
            "medians": medians,
            "ratios": ratios,
            "median_ratio": statistics.median(ratios),
            "runs": runs,
        }


def format_rows(dtype, result):
    """Rows of the table: dtype, quantity, side, the median, and every pair."""
    for name, shown in _SHOWN.items():
        for side in _SIDES:
            values = [run[name] for run in result["runs"][side]]
            yield [dtype, shown, side, result["medians"][side][name], *values]
        if name == "images_per_second":
            ratios = result["ratios"]
            yield [dtype, "ratio", " / ".join(_SIDES), result["median_ratio"], *ratios]


def main():
    """Compares the sides, or with `--side` measures one of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a run")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side")
    parser.add_argument("--dtypes", default=",".join(harness.default_dtypes()), help="of these two")
    parser.add_argument("--json", default="", help="write the result to this file")
    parser.add_argument("--side", choices=_SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    dtypes = args.dtypes.split(",")
    if set(dtypes) - {"bfloat16", "float32"} or min(args.steps, args.pairs, args.batch) < 1:
        parser.error("--dtypes takes bfloat16 and float32, the counts are at least 1")
    if args.side:
        # TensorFlow is imported in the children only: see `harness.peak_memory_mb`.
        from benchmarks.workloads import step_workloads

        build = {"ours": step_workloads.build_ours, "keras": step_workloads.build_keras}[args.side]
        _, run = build(args.size, args.batch, dtypes[0])
        harness.emit(measure(run, args.batch, args.steps))
        return

    given = {name: getattr(args, name) for name in ("size", "batch", "steps", "pairs", "dtypes")}
    command = [f"--{name}={value}" for name, value in given.items()]
    report = harness.collect_metadata("benchmarks.step_vs_keras", command, _PACKAGES) | {
        "results": {}
    }
    harness.echo(f"{report['command']}\non {report['machine']}")
    for dtype in dtypes:
        for result in compare(args, dtype):
            report["results"][dtype] = result
            done = len(result["ratios"])
            harness.echo(f"{dtype}, pair {done} of {args.pairs}: ratio {result['ratios'][-1]:.3f}")
            if args.json:  # after every pair: a run that is cut short has not been for nothing
                harness.write_json(args.json, report)
    header = ["dtype", "", "", "median", *(f"pair {n + 1}" for n in range(args.pairs))]
    lines = [row for dtype in dtypes for row in format_rows(dtype, report["results"][dtype])]
    harness.echo("\n" + harness.format_table(header, lines))


if __name__ == "__main__":
    main()
