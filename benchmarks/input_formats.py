"""What preparing a data set is worth: speed from shards, memory over epochs, time to open.

    python -m benchmarks.input_formats --data_dir=DIR

measures, on the JPEG files in DIR: `classic` until a normalised batch is ready, from the files as
they are and from TFRecords re-encoded at a short side of 288; the memory of the pipeline at batch
256 after each of 20 epochs; and the time and memory that opening 1,281,167 images takes, as a list,
as class folders prepared as lists, and as TFRecords. Each measurement runs in a process of its own,
sides in turns.
"""

import argparse
import os
import statistics
import tempfile

from benchmarks import harness
from benchmarks.workloads import input_format_workloads

_WANTED = 1.4
_OPEN_KINDS = ("list", "prepared", "tfrecord")
_PACKAGES = ("tensorflow", "tensorflow-cpu", "opencv-python-headless", "numpy")
_MODULE = "benchmarks.input_formats"


def summarize(report):
    """Rows of the table: what, the figure, what it should be."""
    speed = report["images_per_second"]
    medians = {side: statistics.median(values) for side, values in speed.items()}
    memory = report["memory_mb"]
    rows = [
        ["classic from files, images/s", medians["files"], ""],
        ["classic from TFRecords at 288, images/s", medians["tfrecord"], ""],
        ["ratio", medians["tfrecord"] / medians["files"], f"at least {_WANTED}"],
        ["memory at batch 256 after epoch 1, MB", memory[0], ""],
        [f"memory after epoch {len(memory)}, MB", memory[-1], "flat"],
        ["most memory, MB", report["peak_memory_mb"], "under 1500"],
    ]
    for kind, opened in report["opening"].items():
        rows.append([f"opening 1,281,167 images, {kind}, s", opened["seconds"], "under 2"])
        rows.append([f"most memory of it, {kind}, MB", opened["peak_mb"], "under 300"])
    return [[what, float(figure), wanted] for what, figure, wanted in rows]


def main():
    """Measures everything, or with `--side` one thing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    default = os.path.join(os.environ.get("REAL_IMAGES_DIR", ""), "ilsvrc_sample")
    parser.add_argument("--data_dir", default=default, help="folder of .JPEG files")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="that load images")
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring, per run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side")
    parser.add_argument("--epochs", type=int, default=20, help="of which memory is looked at")
    parser.add_argument("--json", default="", help="write the result to this file")
    parser.add_argument("--side", choices=input_format_workloads.SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not os.path.isdir(args.data_dir):
        parser.error(f"--data_dir={args.data_dir}: no such folder; name one of JPEG files")
    if args.side:
        harness.emit(input_format_workloads.SIDES[args.side](args))
        return

    given = {n: getattr(args, n) for n in ("data_dir", "threads", "seconds", "rounds", "epochs")}
    command = [f"--{name}={value}" for name, value in given.items()]
    report = harness.collect_metadata(_MODULE, command, _PACKAGES)
    harness.echo(f"{report['command']}\non {report['machine']}")
    with tempfile.TemporaryDirectory() as work:

        def run(side):
            return harness.run_child(_MODULE, [f"--side={side}", f"--work={work}", *command])

        report["prepared"] = run("prepare")
        speed = {"files": [], "tfrecord": []}
        for pair in harness.alternate(speed, args.rounds, run):
            for side, result in pair.items():
                speed[side].append(result["images_per_second"])
        report["images_per_second"] = speed
        report |= run("memory")
        report["opening"] = {kind: run(f"open_{kind}") for kind in _OPEN_KINDS}
    if args.json:
        harness.write_json(args.json, report)
    harness.echo("\n" + harness.format_table(["", "figure", "wanted"], summarize(report)))
    sizes = report["prepared"]
    harness.echo(f"{sizes['bytes_before']} bytes became {sizes['bytes_after']}")


if __name__ == "__main__":
    main()
