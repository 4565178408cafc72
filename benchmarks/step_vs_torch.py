"""Our training step and evaluation against timm's resnetv2_50 on torch.

    python -m benchmarks.step_vs_torch --torch_python=VENV/bin/python

The same net, recipe and synthetic images (224 px, batch 32, uint8 in memory, normalised in the
step) on both sides; both must count the same multiply-adds. Torch runs as its users run it on a
CPU: channels last, bfloat16 by autocast, eager. Where torch or timm is missing the comparison is
skipped with a message; `pip install -r requirements/peers.in`, into an environment of its own if
need be, brings both.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys

from benchmarks import harness

_SIDES = ("ours", "torch")
# How many times as fast ours should be.
_WANTED = {
    ("train", "bfloat16"): 1.1,
    ("train", "float32"): 1.3,
    ("eval", "bfloat16"): 1.4,
    ("eval", "float32"): 1.4,
}
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy")
_MODULE = "benchmarks.step_vs_torch"


def find_peer_versions(python):
    """Versions of torch and timm there, or the reason why they cannot be had.

    Args:
      python: path of an interpreter.

    Returns:
      (dict, reason): one of them is empty.
    """
    code = "import timm, torch; print(torch.__version__, timm.__version__)"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError as error:
        return {}, f"{python}: {error.strerror}"
    if done.returncode:
        return {}, f"{python}: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}"
    return dict(zip(("torch", "timm"), done.stdout.split(), strict=True)), ""


def compare(args, work, dtype):
    """Measures both sides in turn.

    Returns:
      dict: work, dtype, medians and runs (images per second, by side), multiply_adds, ratios
      (ours / torch, one for each pair), ratio (their median), wanted.

    Raises:
      SystemExit: the sides are not the same net.
    """
    runs = {side: [] for side in _SIDES}
    words = [f"--size={args.size}", f"--batch={args.batch}", f"--steps={args.steps}"]
    words += [f"--works={work}", f"--dtypes={dtype}"]

    def run(side):
        python = args.torch_python if side == "torch" else sys.executable
        return harness.run_child(_MODULE, [f"--side={side}", *words], python)

    for pair in harness.alternate(_SIDES, args.pairs, run):
        counts = {side: result["multiply_adds"] for side, result in pair.items()}
        if len(set(counts.values())) > 1:
            raise SystemExit(f"the sides are not the same net: multiply-adds {counts}")
        for side in _SIDES:
            runs[side].append(pair[side]["images_per_second"])
        harness.echo(f"{work}, {dtype}: {pair}")
    both = zip(runs["ours"], runs["torch"], strict=True)
    ratios = [ours / theirs for ours, theirs in both]
    return {
        "work": work,
        "dtype": dtype,
        "medians": {side: statistics.median(values) for side, values in runs.items()},
        "runs": runs,
        "multiply_adds": counts["ours"],
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "wanted": _WANTED[work, dtype],
    }


def main():
    """Compares the sides, or with `--side` measures one of them."""
    args = _parse_arguments()
    works, dtypes = args.works.split(","), args.dtypes.split(",")
    if args.side:
        from benchmarks.workloads import torch_workloads

        build = {"ours": torch_workloads.build_ours, "torch": torch_workloads.build_torch}[
            args.side
        ]
        run, multiply_adds = build(works[0], args.size, args.batch, dtypes[0])
        figures = torch_workloads.measure(run, args.batch, args.steps)
        harness.emit({**figures, "multiply_adds": multiply_adds})
        return
    given = {n: getattr(args, n) for n in ("size", "batch", "steps", "pairs", "works", "dtypes")}
    command = [f"--{name}={value}" for name, value in given.items()]
    report = harness.collect_metadata(_MODULE, command, _PACKAGES)
    peers, reason = find_peer_versions(args.torch_python)
    report["versions"] |= peers
    if reason:
        report["skipped"] = {"torch": reason}
        harness.echo(f"torch is skipped: {reason}; pip install -r requirements/peers.in")
    report["results"] = []
    for work, dtype in [] if reason else [(w, d) for w in works for d in dtypes]:
        report["results"].append(compare(args, work, dtype))
        if args.json:  # after every comparison: a run that is cut short has not been for nothing
            harness.write_json(args.json, report)
    if args.json:
        harness.write_json(args.json, report)
    rows = [
        [r["work"], r["dtype"], *r["medians"].values(), r["ratio"], r["wanted"]]
        for r in report["results"]
    ]
    if rows:
        header = ["", "dtype", "ours, images/s", "torch, images/s", "ratio", "wanted"]
        harness.echo(harness.format_table(header, rows))


def _parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a run")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each side")
    parser.add_argument("--works", default="train,eval", help="of these two")
    parser.add_argument("--dtypes", default=",".join(harness.default_dtypes()), help="of these two")
    parser.add_argument(
        "--torch_python",
        default=sys.executable,
        help="interpreter that has torch and timm, where this one has not",
    )
    parser.add_argument("--json", default="", help="write the result to this file")
    parser.add_argument("--side", choices=_SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    wrong = set(args.works.split(",")) - {"train", "eval"}
    wrong |= set(args.dtypes.split(",")) - {"bfloat16", "float32"}
    if wrong or min(args.steps, args.pairs, args.batch) < 1:
        parser.error("--works takes train and eval, --dtypes bfloat16 and float32, counts are >= 1")
    if "/" in args.torch_python:
        args.torch_python = str(pathlib.Path(args.torch_python).absolute())
    return args


if __name__ == "__main__":
    main()
