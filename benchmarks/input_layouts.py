"""Measures the layouts that data sets are read in: indexing, opening, and speed.

    python -m benchmarks.input_layouts --what=index [--images=1281167]
    python -m benchmarks.input_layouts --what=speed --data_dir=DIR [--entries=5000]

* `index`: time and peak memory to index a data set of `--images` images, and to open it again. Its
  files have the size of ILSVRC 2012 and holes instead of images. Images of Parquet files have
  1000 random bytes each. Class folders have no index: they are listed each time.
* `speed`: images per second of `classic` up to a normalized batch, from each layout. The JPEG files
  in DIR are repeated until there are `--entries`. The layouts alternate. The ratio is that to class
  folders in the same round.

Each measurement is a new process. The files are written to `--work`, and removed at the end.
"""

import os
import pathlib
import shutil
import statistics
import tempfile

from benchmarks import harness
from benchmarks.workloads import input_layout_workloads

_MODULE = "benchmarks.input_layouts"
_BASELINE = "class folders"
_LAYOUTS = tuple(input_layout_workloads.WRITERS)
_MAX_SECONDS, _MAX_MB, _MIN_RATIO = 2.0, 300.0, 0.95  # targets
_OPEN_KEYS = ("seconds", "peak_mb")


def summarize_index(report: dict) -> list[list[str | float]]:
    """Returns rows of the table: layout, seconds and memory to index, then to open."""
    return [
        [
            layout,
            *(float(result[step][key]) for step in ("index", "open") for key in _OPEN_KEYS),
            "yes"
            if result["open"]["seconds"] < _MAX_SECONDS and result["open"]["peak_mb"] < _MAX_MB
            else "no",
        ]
        for layout, result in report["layouts"].items()
    ]


def summarize_speed(report: dict) -> list[list[str | float]]:
    """Returns rows of the table: layout, median of the speeds, median of the ratios, target."""
    speeds = report["images_per_second"]
    rows: list[list[str | float]] = []
    for layout, values in speeds.items():
        pairs = zip(values, speeds[_BASELINE], strict=True)
        ratio = statistics.median(value / baseline for value, baseline in pairs)
        target = "" if layout == _BASELINE else "yes" if ratio >= _MIN_RATIO else "no"
        rows.append([layout, float(statistics.median(values)), float(ratio), target])
    return rows


def main() -> None:
    """Measures what `--what` names, or what `--side` names in a child process."""
    parser = harness.BenchmarkParser(__doc__, sides=input_layout_workloads.SIDES)
    parser.add_flag("--what", "index", "what to measure", choices=("index", "speed"))
    parser.add_flag("--layouts", ",".join(_LAYOUTS), "layouts, separated by commas")
    parser.add_flag("--images", 1_281_167, "index: number of images")
    parser.add_flag("--data_dir", harness.default_photo_folder())
    parser.add_flag("--entries", 5000, "speed: least number of images")
    parser.add_flag("--threads", os.cpu_count())
    parser.add_flag("--seconds", 10.0)
    parser.add_flag("--rounds", 5)
    parser.add_hidden("--work", default="")
    args = parser.parse_args()
    parser.require_positive(args, "images", "entries", "rounds")
    if args.side:
        harness.emit(input_layout_workloads.run_side(args))
        return
    layouts = args.layouts.split(",")
    if unknown := [layout for layout in layouts if layout not in _LAYOUTS]:
        parser.error(f"--layouts={args.layouts}: {unknown[0]} is not one of {', '.join(_LAYOUTS)}")
    if args.what == "speed" and not os.path.isdir(args.data_dir):
        parser.error(f"--data_dir={args.data_dir}: no such folder; name a folder of JPEG files")
    words = parser.format_flags(args)
    packages = (*harness.PACKAGES[:2], "numpy", "pyarrow")
    report = harness.start_report(_MODULE, words, packages)
    with tempfile.TemporaryDirectory() as work:
        child_words = [f"--work={work}", *words]
        if args.what == "index":
            _measure_index(report, layouts, pathlib.Path(work), child_words, args.json)
            header = ["", "index, s", "peak, MB", "open, s", "peak, MB", "under 2 s and 300 MB"]
            rows = summarize_index(report)
        else:
            if _BASELINE not in layouts:
                layouts.insert(0, _BASELINE)
            _measure_speed(report, layouts, args.rounds, child_words, args.json)
            header = ["", "images/s", "ratio", "at least 0.95"]
            rows = summarize_speed(report)
    harness.save_report(args.json, report)
    harness.echo("\n" + harness.format_table(header, rows))


def _measure_index(
    report: dict, layouts: list[str], work: pathlib.Path, words: list[str], path: str
) -> None:
    report["layouts"] = {}
    for layout in layouts:
        harness.report_progress(f"{layout}: writing")
        harness.run_child(_MODULE, [f"--side=write {layout}", *words])
        result = {}
        for step in ("index", "open"):
            harness.report_progress(f"{layout}: {step}")
            result[step] = harness.run_child(_MODULE, [f"--side=open {layout}", *words])
        report["layouts"][layout] = result
        harness.save_report(path, report)
        for folder in work.iterdir():
            shutil.rmtree(folder)


def _measure_speed(
    report: dict, layouts: list[str], rounds: int, words: list[str], path: str
) -> None:
    for layout in layouts:
        harness.report_progress(f"{layout}: writing")
        harness.run_child(_MODULE, [f"--side=copy {layout}", *words])
    sides = [f"speed {layout}" for layout in layouts]
    for runs in harness.run_pairs(_MODULE, sides, rounds, words):
        report["images_per_second"] = {
            layout: runs.values(f"speed {layout}", "images_per_second") for layout in layouts
        }
        harness.save_report(path, report)


if __name__ == "__main__":
    main()
