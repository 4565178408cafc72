"""Compares the time from process start to the end of the first training step with plain Keras.

    python -m benchmarks.start_up

The sides are those of `benchmarks.step_vs_keras`: a ResNetV2-50 at 224 px and batch 32. The time
includes imports, building the network and its optimizer, tracing, and one step. A first pair of
runs warms the disk cache and is discarded.
"""

import statistics
import time

from benchmarks import harness

_MODULE = "benchmarks.start_up"
_SIDES = ("ours", "keras")
_PHASES = ("import_seconds", "build_seconds", "first_step_seconds", "seconds")
_TARGET = 2.0  # target ratio of Keras's seconds to ours


def measure(side: str, size: int, batch_size: int, dtype: str) -> dict[str, float]:
    """Runs one step in this process.

    Returns:
      A dict: import_seconds (including the start of the interpreter), build_seconds,
      first_step_seconds, seconds (their sum), cpu_seconds (of all threads).
    """
    from benchmarks.workloads import step_workloads

    imported = harness.get_seconds_since_start()
    build = {"ours": step_workloads.build_ours, "keras": step_workloads.build_keras}[side]
    _, run = build(size, batch_size, dtype)
    built = harness.get_seconds_since_start()
    run(1)
    stepped = harness.get_seconds_since_start()
    return {
        "import_seconds": imported,
        "build_seconds": built - imported,
        "first_step_seconds": stepped - built,
        "seconds": stepped,
        "cpu_seconds": time.process_time(),
    }


def summarize(runs: harness.PairedRuns) -> dict:
    """Returns the runs by pair, medians by side, ratios of seconds (keras / ours), the target."""
    ratios = runs.ratios("seconds", "keras", "ours")
    return {
        "runs": runs.pairs(),
        "medians": runs.medians(),
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "wanted": _TARGET,
    }


def main() -> None:
    """Compares the sides, or measures the one that `--side` names."""
    parser = harness.BenchmarkParser(__doc__, sides=_SIDES)
    parser.add_flag("--size", 224)
    parser.add_flag("--batch", 32)
    parser.add_flag("--dtype", harness.default_dtypes()[0], choices=harness.DTYPES)
    parser.add_flag("--pairs", 5)
    args = parser.parse_args()
    parser.require_positive(args, "pairs")
    if args.side:
        harness.emit(measure(args.side, args.size, args.batch, args.dtype))
        return

    words = parser.format_flags(args)
    report = harness.start_report(_MODULE, words, (*harness.PACKAGES, "numpy"))
    report["dtype"] = args.dtype
    for runs in harness.run_pairs(
        _MODULE, _SIDES, args.pairs, words, quantity="seconds", warm_up_pairs=1
    ):
        report["results"] = summarize(runs)
        harness.save_report(args.json, report)
    results = report["results"]
    rows = [[phase, *(results["medians"][side][phase] for side in _SIDES)] for phase in _PHASES]
    harness.echo(harness.format_table(["", *_SIDES], rows))
    harness.echo(f"keras / ours: {results['ratio']:.3f}, target {_TARGET}")


if __name__ == "__main__":
    main()
