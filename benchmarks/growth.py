"""Measures how images/s, memory and start-up grow with the size of the task, and draws it.

    python -m benchmarks.growth --out=docs/pictures [--only="batch size"] [--data_dir=DIR]

| axis | what is measured |
|---|---|
| images | the input pipeline on class folders, `classic` at 224 px |
| classes, image size, batch size | the training step on random images in memory |
| workers | the input pipeline with a data service whose workers are on this machine |
| checkpoints | a resumed training whose run folder has this many step folders |

Start-up is the time from process start to the first batch or step, or to the end of the resumed
training. Memory is the peak of the process. Each measurement is a new process, and each round
measures every value once. The medians are drawn, one picture per axis. The images are links to
copies of the photographs in DIR, in a temporary folder.
"""

import pathlib
import statistics
import tempfile
from collections.abc import Mapping, Sequence

from benchmarks import harness
from benchmarks.workloads import growth_workloads

_MODULE = "benchmarks.growth"
# Values of each axis, ascending.
AXES: dict[str, tuple[int, ...]] = {
    "images": (1_000, 10_000, 100_000, 1_281_167),
    "classes": (10, 100, 1_000, 10_000, 21_841),
    "image size": (32, 64, 96, 128, 160, 224),
    "batch size": (1, 4, 16, 64, 256),
    "workers": (0, 1, 2),
    "checkpoints": (1, 10, 100, 1_000),
}
# Quantity: title of its plot.
_TITLES = {
    "images_per_second": "images/s",
    "peak_mb": "peak memory, MB",
    "start_seconds": "start-up, s",
}


def main() -> None:
    """Measures each value in a child process, prints a table and draws the pictures."""
    parser = harness.BenchmarkParser(__doc__)
    parser.add_flag("--only", ",".join(AXES), "axes, separated by commas")
    parser.add_flag("--points", 0, "measure only this many of the smallest values; 0: all")
    parser.add_flag("--rounds", 3)
    parser.add_flag("--model", "resnet_18")
    parser.add_flag("--size", 64)
    parser.add_flag("--batch", 64)
    parser.add_flag("--steps", 20)
    parser.add_flag("--seconds", 10.0)
    parser.add_flag("--data_dir", harness.default_photo_folder())
    parser.add_flag("--out", "", "folder of the pictures")
    parser.add_hidden("--work", default="")
    parser.add_hidden("--child")
    args = parser.parse_args()
    if args.child:
        axis, value = args.child.split(",")
        harness.emit(growth_workloads.measure(args, axis, int(value)))
        return

    parser.require_known("--only", args.only, AXES)
    parser.require_positive(args, "rounds", "steps")
    words = parser.format_flags(args)
    report = harness.start_report(_MODULE, words)
    selected = {axis: AXES[axis][: args.points or None] for axis in args.only.split(",")}
    children = [f"{axis},{value}" for axis, values in selected.items() for value in values]
    rounds = []
    with tempfile.TemporaryDirectory(prefix="growth-") as work:
        args.work = work
        for axis, values in selected.items():
            if prepare := growth_workloads.PREPARATIONS.get(axis):
                harness.report_progress(f"preparing {axis}")
                for value in values:
                    prepare(args, value)
        for _ in range(args.rounds):
            rounds.append(harness.run_cases(_MODULE, children, [*words, f"--work={work}"]))
            report["results"] = summarize(rounds, selected)
            harness.save_report(args.json, report)
    harness.echo(format_table(report["results"]))
    if args.out:
        for axis, results in report["results"].items():
            path = pathlib.Path(args.out, f"growth_{axis.replace(' ', '_')}.png")
            growth_workloads.write_picture(path, axis, results, _TITLES)
            harness.echo(f"wrote {path}")


def summarize(
    rounds: Sequence[Mapping[str, Mapping[str, float]]], axes: Mapping[str, Sequence[int]]
) -> dict[str, dict[int, dict[str, float]]]:
    """Returns the median of each quantity, by axis and value.

    Args:
      rounds: the result of each child of a round, by "axis,value".
      axes: the measured values of each axis.
    """
    return {
        axis: {
            value: {
                name: statistics.median(results[f"{axis},{value}"][name] for results in rounds)
                for name in rounds[0][f"{axis},{value}"]
            }
            for value in values
        }
        for axis, values in axes.items()
    }


def format_table(results: Mapping[str, Mapping[int, Mapping[str, float]]]) -> str:
    """Formats the results of `summarize`, one row per value."""
    rows = [
        [axis, value, *(quantities.get(name, "") for name in _TITLES)]
        for axis, values in results.items()
        for value, quantities in values.items()
    ]
    return harness.format_table(["axis", "value", *_TITLES.values()], rows)


if __name__ == "__main__":
    main()
