"""Trains and judges the runs of `results_runs`, and writes what came out to RESULTS.md.

    REAL_IMAGES_DIR=DIR python -m benchmarks.results --minutes=120

Runs that are done are skipped, one that was cut goes on where it was. Ends after --minutes at the
latest: the training that is on then saves, and the next call resumes it. DIR holds the folders
that the commands name.
"""

import argparse
import json
import os
import pathlib
import shlex
import signal
import statistics
import subprocess
import sys
import time

import flags
from benchmarks import harness, results_page
from benchmarks.results_runs import TABLES, BestTwo, Fit
from loops.config import leaves
from loops.run import run_folder

_ROOT = pathlib.Path(__file__).parent.parent
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy")


class OutOfTime(Exception):
    """The minutes are over; what ran has saved."""


def command_of(row, folder):
    """The training command of a Run or Fit, as words for a shell; `$` names stay."""
    if isinstance(row, Fit):
        words = ["-m", "benchmarks.fit_baseline", *row.flags, f"--run_dir={folder / row.name}"]
    else:
        words = ["main.py", "--mode=train", *row.flags]
        words += [f"--checkpoint_dir={folder}", f"--run_name={row.name}"]
    return ["python", *words]


def execute(words, seconds):
    """Runs a command in the project's folder.

    Args:
      words: the command; `python` is this interpreter, and $NAMES are those of the environment.
      seconds: after so many it gets SIGTERM, upon which a training saves.

    Raises:
      OutOfTime: it was stopped.
      SystemExit: it failed.
    """
    given = [sys.executable, *map(os.path.expandvars, words[1:])]
    harness.say("$ " + " ".join(words))
    child = subprocess.Popen(given, cwd=_ROOT)
    try:
        code = child.wait(timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise OutOfTime from None
    if code:
        raise SystemExit(f"{' '.join(words)}: exit code {code}")


def is_trained(row, folder):
    """Whether the training of a Run or Fit has come to its end."""
    if isinstance(row, Fit):
        return (folder / row.name / "fit.json").exists()
    return bool(list((folder / row.name).glob("eval-*-val-10.json")))


def require_agreement(row, folder):
    """Compares the flags of a Run with what its folder says it was trained with.

    Raises:
      SystemExit: one differs; the folder then holds another run than the page would say.
    """
    words = [os.path.expandvars(word) for word in command_of(row, folder)[1:]]
    wanted, typed = flags.parse(words)
    wanted = dict(leaves(wanted))
    recorded = dict(leaves(run_folder.read_record(folder / row.name).config))
    for name in sorted(typed - {"mode", "checkpoint_dir", "data_dir"}):
        if recorded[name] != wanted[name]:
            raise SystemExit(
                f"{folder / row.name}: trained with --{name}={recorded[name]}, the table says"
                f" {wanted[name]}; remove the folder to train it again"
            )


def evaluate(name, runs, splits, folder, seconds_left):
    """Judges one run, or the average of several, and returns {"val-1": dict, "val-10": dict, ...}.

    Files of an earlier call are taken as they are.
    """
    found = {}
    for split in splits:
        for crops in (1, 10):
            path = folder / f"{name}-{split}-{crops}.json"
            if not path.exists():
                checkpoints = ",".join(str(folder / run) for run in runs)
                words = ["python", "main.py", "--mode=eval", f"--ckpt={checkpoints}"]
                words += [f"--split={split}", f"--crops={crops}", f"--json={path}"]
                execute(words, seconds_left())
            found[f"{split}-{crops}"] = json.loads(path.read_text())
    return found


def training_seconds(run_dir, examples):
    """Time of a run at the median of its logged speeds: interruptions do not count."""
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    speeds = [x["speed/images_per_second"] for x in lines if x["split"] == "train"]
    return examples / statistics.median(speeds)


def result_of(row, folder, done, seconds_left):
    """Trains and judges a row, as far as that has not been done.

    Args:
      row: Run, Fit or BestTwo.
      folder: pathlib.Path of all run folders.
      done: results of the table's earlier rows by name.
      seconds_left: function of the seconds that are left.

    Returns:
      dict: command, seconds (None for an average), evaluations by split and crops.
    """
    if isinstance(row, BestTwo):
        singles = {name: r for name, r in done.items() if r["kind"] == "Run"}
        best = sorted(singles, key=lambda n: -singles[n]["evaluations"]["val-10"]["top1"])[:2]
        evaluations = evaluate(row.name, best, row.splits, folder, seconds_left)
        command = f"python main.py --mode=eval --ckpt={','.join(str(folder / n) for n in best)}"
        return {"kind": "BestTwo", "command": command, "seconds": None, "evaluations": evaluations}
    words = command_of(row, folder)
    if not is_trained(row, folder):
        execute(words, min(seconds_left(), row.minutes * 60))
    run_dir = folder / row.name
    if isinstance(row, Fit):
        report = json.loads((run_dir / "fit.json").read_text())
        seconds, evaluations = report["training_seconds"], report["results"]
    else:
        require_agreement(row, folder)
        record = run_folder.read_record(run_dir)
        evaluations = evaluate(row.name, [row.name], row.splits, folder, seconds_left)
        step = evaluations[f"{row.splits[0]}-1"]["step"]
        seconds = training_seconds(run_dir, step * record.config.data.batch_size)
    command = " ".join(words)
    kind = type(row).__name__
    return {"kind": kind, "command": command, "seconds": seconds, "evaluations": evaluations}


def main():
    """Does what is left of all tables; writes the page after every row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=120.0, help="to spend in this call")
    keys = [table.key for table in TABLES]
    parser.add_argument("--only", default=",".join(keys), help="tables: " + ", ".join(keys))
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("checkpoints/results"))
    parser.add_argument("--page", type=pathlib.Path, default=_ROOT / "RESULTS.md")
    args = parser.parse_args()
    if unknown := set(args.only.split(",")) - set(keys):
        parser.error(f"--only={','.join(sorted(unknown))}: tables are {', '.join(keys)}")
    if not os.path.isdir(os.environ.get("REAL_IMAGES_DIR", "")):
        parser.error("set REAL_IMAGES_DIR to the folder that holds the data sets")
    end = time.monotonic() + args.minutes * 60
    args.folder.mkdir(parents=True, exist_ok=True)
    arguments = shlex.split(f"--minutes={args.minutes:g} --only={args.only}")
    facts = harness.facts("benchmarks.results", arguments, _PACKAGES)
    results = {}
    for table in (t for t in TABLES if t.key in args.only.split(",")):
        done = results.setdefault(table.key, {})
        for row in table.rows:
            try:
                left = lambda: end - time.monotonic()  # noqa: E731 - one line says it
                done[row.name] = result_of(row, args.folder, done, left)
            except OutOfTime:
                harness.say(f"out of time in {row.name}; the same command goes on")
                return
            args.page.write_text(results_page.markdown(results, facts))


if __name__ == "__main__":
    main()
