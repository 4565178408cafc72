"""Compares two replicas on half the CPU each with one on all of it, at the same global batch.

  python -m benchmarks.replicas --json=replicas.json

Both sides call the training step of `main.py --mode=train` on batches in memory, alternately and
in new processes. A ratio above 1 is the cost of the second replica: two smaller batches, the
all-reduce of gradients, and the update of both copies of the weights.
"""

import argparse
import statistics

from benchmarks import harness

_MODULE = "benchmarks.replicas"
_SIDES = {"one": ["--strategy=one"], "two": ["--strategy=mirrored", "--cpu_devices=2"]}
_NUM_CLASSES = 10
_WARM_UP = 4
_STEPS_PER_CALL = 5


def make_rows(runs: harness.PairedRuns) -> list[list[float]]:
    """Returns a row per pair.

    Each has the number of the pair, images per second of one and of two replicas, and their ratio.
    Then follow the ratio of CPU time (two / one) and the percentage of time that two replicas wait
    for data.
    """
    speeds = [runs.values(side, "images_per_second") for side in _SIDES]
    ratios = runs.ratios("images_per_second", "one", "two")
    cpu_ratios = runs.ratios("cpu_seconds", "two", "one")
    waits = [100 * wait for wait in runs.values("two", "data_wait")]
    columns = zip(*speeds, ratios, cpu_ratios, waits, strict=True)
    return [[number, *values] for number, values in enumerate(columns, 1)]


def main() -> None:
    """Compares the sides, or measures the one that `--side` names."""
    parser = harness.BenchmarkParser(__doc__, sides=_SIDES)
    parser.add_flag("--model", "resnetv2_50")
    parser.add_flag("--size", 64)
    parser.add_flag("--batch", 64, "images per step, over all replicas")
    parser.add_flag("--steps", 40)
    parser.add_flag("--pairs", 3)
    args = parser.parse_args()
    if args.side:
        harness.emit(_measure_side(args))
        return

    words = parser.format_flags(args, omit=["pairs"])
    report = harness.start_report(_MODULE, words) | {"size": args.size}
    for runs in harness.run_pairs(_MODULE, _SIDES, args.pairs, words):
        report["rows"] = make_rows(runs)
        report["median"] = statistics.median(runs.ratios("images_per_second", "one", "two"))
        harness.save_report(args.json, report)
    header = ["pair", "one, images/s", "two, images/s", "time two / one", "CPU time two / one"]
    header.append("two wait for data, %")
    harness.echo(harness.format_table(header, report["rows"]))
    harness.echo(f"the step of two replicas takes {report['median']:.3f} times as long (median)")


def _measure_side(args: argparse.Namespace) -> dict[str, float]:
    from benchmarks.workloads.bare_step import BareStep

    argv = ["main.py", f"--model={args.model}", f"--image_size={args.size}"]
    argv += [f"--batch_size={args.batch}", *_SIDES[args.side]]
    return BareStep(argv, _NUM_CLASSES).measure_speed(_WARM_UP, args.steps, _STEPS_PER_CALL)


if __name__ == "__main__":
    main()
