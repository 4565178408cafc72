"""Compares our input pipeline with other ways to turn JPEG files into batches.

    python -m benchmarks.input_vs_peers --data_dir=DIR

All sides use the same files, image size (224 pixels) and number of threads:

* `classic` and `standard` as in `main.py --mode=train`, including the stages on batches.
* `classic` step by step, in an OpenCV `py_function` per image.
* PyTorch's DataLoader with PIL, skipped if torch is not installed.
* Only decoding every file in full.

The sides alternate, each run in a new process.
"""

import os
import statistics
import sys
from collections.abc import Mapping, Sequence

from benchmarks import harness
from benchmarks.workloads import input_workloads

_MODULE = "benchmarks.input_vs_peers"
# Our side, the other side, target ratio of their speeds.
_COMPARISONS = [
    ("classic", "classic_opencv", 5.0),
    ("standard", "standard_torch", 2.5),
    ("classic", "decode", 1.0),
    ("classic_host", "decode", 1.0),
]
_PACKAGES = ("tensorflow", "tensorflow-cpu", "opencv-python-headless", "torch", "torchvision")
_PACKAGES += ("pillow", "numpy")


def compute_ratios(speeds: Mapping[str, Sequence[float]]) -> list[dict]:
    """Compares the sides.

    Args:
      speeds: images per second of each run, by side; empty for a skipped side.

    Returns:
      A list of dicts: ours, other, ratio (of the medians), wanted (the target ratio).
    """
    medians = {side: statistics.median(values) for side, values in speeds.items() if values}
    return [
        {"ours": ours, "other": other, "ratio": medians[ours] / medians[other], "wanted": target}
        for ours, other, target in _COMPARISONS
        if ours in medians and other in medians
    ]


def main() -> None:
    """Compares the sides, or measures the one that `--side` names."""
    parser = harness.BenchmarkParser(__doc__, sides=input_workloads.SIDES)
    parser.add_flag("--data_dir", harness.default_photo_folder())
    parser.add_flag("--threads", os.cpu_count())
    parser.add_flag("--seconds", 4.0)
    parser.add_flag("--rounds", 3)
    parser.add_flag("--torch_python", sys.executable)
    args = parser.parse_args()
    if not os.path.isdir(args.data_dir):
        parser.error(f"--data_dir={args.data_dir}: no such folder; name a folder of JPEG files")
    if args.side:
        harness.emit(input_workloads.measure(args.side, args.data_dir, args.threads, args.seconds))
        return

    words = parser.format_flags(args, omit=["torch_python"])
    report = harness.start_report(_MODULE, words, _PACKAGES)
    interpreters = {side: args.torch_python for side in input_workloads.SIDES if "torch" in side}
    for runs in harness.run_pairs(
        _MODULE, input_workloads.SIDES, args.rounds, words, interpreters=interpreters
    ):
        speeds = {}
        for side, results in runs.by_side.items():
            speeds[side] = [r["images_per_second"] for r in results if "skipped" not in r]
            if "skipped" in results[-1]:
                report["skipped"] = {side: results[-1]["skipped"]}
        report |= {"images_per_second": speeds, "ratios": compute_ratios(speeds)}
        harness.save_report(args.json, report)
    for side, reason in report.get("skipped", {}).items():
        harness.echo(f"{side} is skipped: {reason}")
    rows = [[side, statistics.median(values), *values] for side, values in speeds.items() if values]
    rounds = [f"round {n + 1}" for n in range(args.rounds)]
    harness.echo("\n" + harness.format_table(["images/s", "median", *rounds], rows))
    compared = [[r["ours"], r["other"], r["ratio"], r["wanted"]] for r in report["ratios"]]
    harness.echo("\n" + harness.format_table(["ours", "other", "ratio", "target"], compared))


if __name__ == "__main__":
    main()
