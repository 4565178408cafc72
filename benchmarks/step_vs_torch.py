"""Compares our training step and evaluation with timm's resnetv2_50 on torch.

    python -m benchmarks.step_vs_torch --torch_python=VENV/bin/python

Both sides run the same network and recipe on synthetic images: 224 px, batch 32, uint8 in memory,
normalized in the step. The benchmark stops if their multiply-adds differ. Torch runs as its users
run it on a CPU: channels last, bfloat16 by autocast, eager.

If torch or timm is missing, the comparison is skipped with a message. Install both with
`pip install -r requirements/peers.in`, in a separate environment if needed.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Sequence

from benchmarks import harness

_MODULE = "benchmarks.step_vs_torch"
_SIDES = ("ours", "torch")
_WORKS = ("train", "eval")
# Target ratio of our speed to torch's.
_TARGETS = {
    ("train", "bfloat16"): 1.1,
    ("train", "float32"): 1.3,
    ("eval", "bfloat16"): 1.4,
    ("eval", "float32"): 1.4,
}


def find_peer_versions(python: str) -> tuple[dict[str, str], str]:
    """Returns the versions of torch and timm, or why they are not available.

    Args:
      python: path of an interpreter.

    Returns:
      (versions by package, reason): one of them is empty.
    """
    code = "import timm, torch; print(torch.__version__, timm.__version__)"
    try:
        process = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError as error:
        return {}, f"{python}: {error.strerror}"
    if process.returncode:
        return {}, f"{python}: {(process.stderr.strip().splitlines() or ['no output'])[-1]}"
    return dict(zip(("torch", "timm"), process.stdout.split(), strict=True)), ""


def compare(args: argparse.Namespace, words: Sequence[str], work: str, dtype: str) -> dict:
    """Measures both sides alternately.

    Args:
      args: the parsed command line.
      words: flags of the command.
      work: "train" or "eval".
      dtype: "float32" or "bfloat16".

    Returns:
      A dict: work, dtype, medians and runs (images per second by side), multiply_adds, ratios
      (ours / torch of each pair), ratio (their median), wanted (the target ratio).

    Raises:
      SystemExit: the sides do not run the same network.
    """
    for runs in harness.run_pairs(
        _MODULE,
        _SIDES,
        args.pairs,
        [*words, f"--works={work}", f"--dtypes={dtype}"],
        label=f"{work}, {dtype}, ",
        interpreters={"torch": args.torch_python},
    ):
        counts = {side: results[-1]["multiply_adds"] for side, results in runs.by_side.items()}
        if len(set(counts.values())) > 1:
            raise SystemExit(f"the sides are not the same net: multiply-adds {counts}")
    ratios = runs.ratios("images_per_second", *_SIDES)
    return {
        "work": work,
        "dtype": dtype,
        "medians": {side: runs.median(side, "images_per_second") for side in _SIDES},
        "runs": {side: runs.values(side, "images_per_second") for side in _SIDES},
        "multiply_adds": counts["ours"],
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "wanted": _TARGETS[work, dtype],
    }


def main() -> None:
    """Compares the sides, or measures the one that `--side` names."""
    parser = harness.BenchmarkParser(__doc__, sides=_SIDES)
    parser.add_flag("--size", 224)
    parser.add_flag("--batch", 32)
    parser.add_flag("--steps", 8)
    parser.add_flag("--pairs", 3)
    parser.add_flag("--works", ",".join(_WORKS), "train, eval or both, separated by a comma")
    parser.add_flag("--dtypes", ",".join(harness.default_dtypes()))
    parser.add_flag("--torch_python", sys.executable)
    args = parser.parse_args()
    parser.require_known("--works", args.works, _WORKS)
    parser.require_known("--dtypes", args.dtypes, harness.DTYPES)
    parser.require_positive(args, "steps", "pairs", "batch")
    if args.side:
        harness.emit(_measure_side(args))
        return

    if "/" in args.torch_python:
        args.torch_python = str(pathlib.Path(args.torch_python).absolute())
    words = parser.format_flags(args, omit=["torch_python"])
    report = harness.start_report(_MODULE, words, (*harness.PACKAGES, "numpy"))
    versions, reason = find_peer_versions(args.torch_python)
    report["versions"] |= versions
    report["results"] = []
    if reason:
        report["skipped"] = {"torch": reason}
        harness.echo(f"torch is skipped: {reason}; pip install -r requirements/peers.in")
        harness.save_report(args.json, report)
        return
    for work in args.works.split(","):
        for dtype in args.dtypes.split(","):
            report["results"].append(compare(args, words, work, dtype))
            harness.save_report(args.json, report)
    rows = [
        [r["work"], r["dtype"], *r["medians"].values(), r["ratio"], r["wanted"]]
        for r in report["results"]
    ]
    header = ["", "dtype", "ours, images/s", "torch, images/s", "ratio", "target"]
    harness.echo(harness.format_table(header, rows))


def _measure_side(args: argparse.Namespace) -> dict:
    from benchmarks.workloads import torch_workloads

    work, dtype = args.works.split(",")[0], args.dtypes.split(",")[0]
    build = {"ours": torch_workloads.build_ours, "torch": torch_workloads.build_torch}[args.side]
    run, multiply_adds = build(work, args.size, args.batch, dtype)
    figures = torch_workloads.measure(run, args.batch, args.steps)
    return {**figures, "multiply_adds": multiply_adds}


if __name__ == "__main__":
    main()
