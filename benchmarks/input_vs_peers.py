"""Our input pipeline against the ways that others feed a net, from JPEG files to batches.

    python -m benchmarks.input_vs_peers --data_dir=DIR

measures, on the same files, size (224 pixels) and number of threads: `classic` and `standard` as
`main.py --mode=train` runs them, batch stages included; `classic` step by step in an OpenCV
`py_function` per image; PyTorch's DataLoader with PIL (left out where torch is not installed); and
nothing but the full decoding of every file. Each side runs in a process of its own, in turns.
"""

import argparse
import os
import statistics
import sys

from benchmarks import harness
from benchmarks.workloads import input_workloads

# What is compared: our side, the other, and how many times as fast ours should be.
_COMPARISONS = [
    ("classic", "classic_opencv", 5.0),
    ("standard", "standard_torch", 2.5),
    ("classic", "decode", 1.0),
    ("classic_host", "decode", 1.0),
]
_PACKAGES = ("tensorflow", "tensorflow-cpu", "opencv-python-headless", "torch", "torchvision")
_PACKAGES += ("pillow", "numpy")


def compute_ratios(runs):
    """Compares the sides.

    Args:
      runs: dict from side to the list of its images per second; a skipped side has none.

    Returns:
      list of dicts: ours, other, ratio (of the medians), wanted.
    """
    medians = {side: statistics.median(values) for side, values in runs.items() if values}
    return [
        {"ours": ours, "other": other, "ratio": medians[ours] / medians[other], "wanted": wanted}
        for ours, other, wanted in _COMPARISONS
        if ours in medians and other in medians
    ]


def main():
    """Compares the sides, or with `--side` measures one of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    default = os.path.join(os.environ.get("REAL_IMAGES_DIR", ""), "ilsvrc_sample")
    parser.add_argument("--data_dir", default=default, help="folder of .JPEG files, at any depth")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every side")
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring, per run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument(
        "--torch_python", default=sys.executable, help="interpreter that has torch besides"
    )
    parser.add_argument("--json", default="", help="write the result to this file")
    parser.add_argument("--side", choices=input_workloads.SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not os.path.isdir(args.data_dir):
        parser.error(f"--data_dir={args.data_dir}: no such folder; name one of JPEG files")
    if args.side:
        harness.emit(input_workloads.measure(args.side, args.data_dir, args.threads, args.seconds))
        return

    given = {name: getattr(args, name) for name in ("data_dir", "threads", "seconds", "rounds")}
    command = [f"--{name}={value}" for name, value in given.items()]
    report = harness.collect_metadata("benchmarks.input_vs_peers", command, _PACKAGES)
    harness.echo(f"{report['command']}\non {report['machine']}")
    runs = {side: [] for side in input_workloads.SIDES}

    def run(side):
        python = args.torch_python if "torch" in side else sys.executable
        return harness.run_child("benchmarks.input_vs_peers", [f"--side={side}", *command], python)

    for number, results in enumerate(harness.alternate(input_workloads.SIDES, args.rounds, run), 1):
        for side, result in results.items():
            if "skipped" in result:
                report["skipped"] = {side: result["skipped"]}
                harness.echo(f"{side} is skipped: {result['skipped']}")
            else:
                runs[side].append(result["images_per_second"])
        report |= {"images_per_second": runs, "ratios": compute_ratios(runs)}
        harness.echo(f"round {number} of {args.rounds} is done")
        if args.json:  # after every round: a run that is cut short has not been for nothing
            harness.write_json(args.json, report)
    rows = [[side, statistics.median(values), *values] for side, values in runs.items() if values]
    rounds = [f"round {n + 1}" for n in range(args.rounds)]
    harness.echo("\n" + harness.format_table(["images/s", "median", *rounds], rows))
    compared = [[r["ours"], r["other"], r["ratio"], r["wanted"]] for r in report["ratios"]]
    harness.echo("\n" + harness.format_table(["ours", "other", "ratio", "wanted"], compared))


if __name__ == "__main__":
    main()
