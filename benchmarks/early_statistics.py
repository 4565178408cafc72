"""Compares evaluations early in training with measured and with moving batch-norm statistics.

    python -m benchmarks.early_statistics -- --model=resnetv2_18 --dataset=folder --data_dir=DIR

Trains twice from the same seed, in new processes, with the flags after `--`. Evaluations and saves
of the side `measured` use the statistics that training measures in its first steps. The side
`moving` turns this off and uses the moving averages. The training steps of both sides are equal.
"""

import argparse
import json
import pathlib
import tempfile

from benchmarks import harness

_MODULE = "benchmarks.early_statistics"
_SIDES = ("moving", "measured")
_FLAGS = ["--mode=train", "--run_name=run", "--crops=1", "--keep=100"]


def train(side: str, folder: pathlib.Path, flags: list[str]) -> dict:
    """Trains one side; returns the loss and top-1 of each evaluation by step, and the seconds."""
    import flags as command_line
    from loops import train as training
    from loops import train_loop, train_statistics

    if side == "moving":
        train_statistics.EARLY_STEPS = train_loop.EARLY_STEPS = 0
    root = folder / side
    words = ["main.py", *_FLAGS, *flags, f"--checkpoint_dir={root}"]
    training.run(command_line.parse(words))
    results = {}
    for path in sorted((root / "run").glob("step-*/manifest.json")):
        metrics = json.loads(path.read_text())["metrics"]
        if metrics:
            results[path.parent.name.removeprefix("step-").lstrip("0")] = metrics
    return {"evaluations": results, "seconds": harness.get_resource_usage()["user_seconds"]}


def main() -> None:
    """Compares the sides, or trains the one that `--side` names."""
    parser = harness.BenchmarkParser(__doc__, sides=_SIDES)
    parser.add_hidden("--folder", type=pathlib.Path)
    parser.add_flag("--every", "1epochs", "interval of the evaluations, as of --eval_every")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="-- and flags of main.py")
    args = parser.parse_args()
    flags = [word for word in args.flags if word != "--"]
    flags = [f"--eval_every={args.every}", f"--save_every={args.every}", *flags]
    if args.side:
        harness.emit(train(args.side, args.folder, flags))
        return
    report = harness.start_report(_MODULE, [f"--every={args.every}", *args.flags])
    with tempfile.TemporaryDirectory() as folder:
        words = [f"--folder={folder}", f"--every={args.every}", "--", *args.flags]
        report["results"] = {
            side: harness.run_child(_MODULE, [f"--side={side}", *words]) for side in _SIDES
        }
    harness.save_report(args.json, report)
    moving, measured = (report["results"][side]["evaluations"] for side in _SIDES)
    rows = [
        [step, *(f"{m['nll']:.3f} ({m['top1']:.0%})" for m in (moving[step], measured[step]))]
        for step in moving
    ]
    harness.echo(harness.format_table(["step", "moving averages", "measured"], rows))


if __name__ == "__main__":
    main()
