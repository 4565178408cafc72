"""Measures what preparing a data set gains: reading speed, memory over epochs, time to open.

    python -m benchmarks.input_formats --data_dir=DIR

Uses the JPEG files in DIR and measures, each in a new process:

* Speed of `classic` up to a normalized batch, from the original files and from TFRecords that were
  re-encoded at a short side of 288 pixels. These two sides alternate.
* Memory of the input pipeline at batch 256, after each of 20 epochs.
* Time and memory to open 1,281,167 images: as a list, as class folders prepared as lists, and as
  TFRecords.
"""

import os
import statistics
import tempfile

from benchmarks import harness
from benchmarks.workloads import input_format_workloads

_MODULE = "benchmarks.input_formats"
_TARGET = 1.4  # target ratio of the speed from TFRecords to the speed from files
_SPEED_SIDES = ("files", "tfrecord")
OPEN_KINDS = ("list", "prepared", "tfrecord")


def summarize(report: dict) -> list[list[str | float]]:
    """Returns rows of the table: quantity, value, target."""
    speeds = report["images_per_second"]
    medians = {side: statistics.median(values) for side, values in speeds.items()}
    memory = report["memory_mb"]
    rows = [
        ["classic from files, images/s", medians["files"], ""],
        ["classic from TFRecords at 288, images/s", medians["tfrecord"], ""],
        ["ratio", medians["tfrecord"] / medians["files"], f"at least {_TARGET}"],
        ["memory at batch 256 after epoch 1, MB", memory[0], ""],
        [f"memory after epoch {len(memory)}, MB", memory[-1], "flat"],
        ["peak memory, MB", report["peak_memory_mb"], "under 1500"],
    ]
    for kind, opening in report["opening"].items():
        rows.append([f"opening 1,281,167 images, {kind}, s", opening["seconds"], "under 2"])
        rows.append([f"peak memory of opening, {kind}, MB", opening["peak_mb"], "under 300"])
    return [[quantity, float(value), target] for quantity, value, target in rows]


def main() -> None:
    """Measures everything, or what `--side` names."""
    parser = harness.BenchmarkParser(__doc__, sides=input_format_workloads.SIDES)
    parser.add_flag("--data_dir", harness.default_photo_folder())
    parser.add_flag("--threads", os.cpu_count())
    parser.add_flag("--seconds", 4.0)
    parser.add_flag("--rounds", 5)
    parser.add_flag("--epochs", 20, "epochs of the memory measurement")
    parser.add_hidden("--work", default="")
    args = parser.parse_args()
    if not os.path.isdir(args.data_dir):
        parser.error(f"--data_dir={args.data_dir}: no such folder; name a folder of JPEG files")
    if args.side:
        harness.emit(input_format_workloads.SIDES[args.side](args))
        return

    words = parser.format_flags(args)
    packages = (*harness.PACKAGES[:2], "opencv-python-headless", "numpy")
    report = harness.start_report(_MODULE, words, packages)
    with tempfile.TemporaryDirectory() as work:
        child_words = [f"--work={work}", *words]

        def run(side: str) -> dict:
            return harness.run_child(_MODULE, [f"--side={side}", *child_words])

        report["prepared"] = run("prepare")
        for runs in harness.run_pairs(_MODULE, _SPEED_SIDES, args.rounds, child_words):
            report["images_per_second"] = {
                side: runs.values(side, "images_per_second") for side in _SPEED_SIDES
            }
            harness.save_report(args.json, report)
        report |= run("memory")
        report["opening"] = {kind: run(f"open_{kind}") for kind in OPEN_KINDS}
    harness.save_report(args.json, report)
    harness.echo("\n" + harness.format_table(["", "value", "target"], summarize(report)))
    sizes = report["prepared"]
    harness.echo(f"prepared {sizes['bytes_before']} bytes into {sizes['bytes_after']} bytes")


if __name__ == "__main__":
    main()
