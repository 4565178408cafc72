"""From the start of a process to the end of its first training step: ours and plain Keras layers.

    python -m benchmarks.start_up

Both sides are those of `benchmarks.step_vs_keras`, a ResNetV2-50 at 224 px and batch 32: importing,
building the net and its optimizer, tracing, and one step. The disk's cache is warm for both: a
first pair is run and left out.
"""

import argparse
import statistics
import time

from benchmarks import harness

_SIDES = ("ours", "keras")
_PHASES = ("import_seconds", "build_seconds", "first_step_seconds", "seconds")
_WANTED = 2.0  # times the seconds of ours
_MODULE = "benchmarks.start_up"
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy")


def measure(side, size, batch, dtype):
    """Does one step in this process.

    Returns:
      dict of seconds: import_seconds (the interpreter's start among them), build_seconds,
      first_step_seconds, seconds (all of them), cpu_seconds (of all threads).
    """
    from benchmarks.workloads import step_workloads

    imported = harness.seconds_since_start()
    build = {"ours": step_workloads.build_ours, "keras": step_workloads.build_keras}[side]
    _, run = build(size, batch, dtype)
    built = harness.seconds_since_start()
    run(1)
    done = harness.seconds_since_start()
    return {
        "import_seconds": imported,
        "build_seconds": built - imported,
        "first_step_seconds": done - built,
        "seconds": done,
        "cpu_seconds": time.process_time(),
    }


def main():
    """Compares the sides, or with `--side` measures one of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument(
        "--dtype", default=harness.default_dtypes()[0], choices=("bfloat16", "float32")
    )
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side")
    parser.add_argument("--json", default="", help="write the result to this file")
    parser.add_argument("--side", choices=_SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.pairs < 1:
        parser.error("--pairs is at least 1")
    if args.side:
        harness.emit(measure(args.side, args.size, args.batch, args.dtype))
        return
    command = [f"--{name}={getattr(args, name)}" for name in ("size", "batch", "dtype", "pairs")]
    report = harness.collect_metadata(_MODULE, command, _PACKAGES)
    report["dtype"] = args.dtype
    harness.echo(f"{report['command']}\non {report['machine']}")

    def run(side):
        return harness.run_child(_MODULE, [f"--side={side}", *command])

    _, *pairs = harness.alternate(_SIDES, args.pairs + 1, run)
    medians = {
        side: {
            name: statistics.median(pair[side][name] for pair in pairs) for name in pairs[0][side]
        }
        for side in _SIDES
    }
    ratios = [pair["keras"]["seconds"] / pair["ours"]["seconds"] for pair in pairs]
    ratio = statistics.median(ratios)
    report["results"] = {"runs": pairs, "medians": medians, "ratios": ratios, "ratio": ratio}
    report["results"]["wanted"] = _WANTED
    rows = [[phase, *(medians[side][phase] for side in _SIDES)] for phase in _PHASES]
    harness.echo(harness.format_table(["", *_SIDES], rows))
    harness.echo(f"keras / ours: {ratio:.3f}, wanted {_WANTED}")
    if args.json:
        harness.write_json(args.json, report)


if __name__ == "__main__":
    main()
