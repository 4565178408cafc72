"""Trains and judges one row of `tables`, as far as that has not been done."""

import collections
import json
import math
import os
import pathlib
import signal
import statistics
import subprocess
import sys

import flags
from benchmarks import harness
from benchmarks.accuracy_page.rows import BestTwo, Fit
from loops.checkpointing import run_folder

_ROOT = pathlib.Path(__file__).parents[2]


class OutOfTime(Exception):
    """The minutes are over; what ran has saved."""


def make_command(row, done):
    """The command that repeats a row, as words for a shell; `$` names stay.

    Run folders lie in `checkpoints`, whatever folder they are in here.

    Args:
      row: Run, Fit or BestTwo.
      done: records of earlier rows by name; a BestTwo needs those of all its runs.
    """
    if isinstance(row, BestTwo):
        checkpoints = ",".join(f"checkpoints/{name}" for name in select_best_two(row, done))
        return ["python", "main.py", "--mode=eval", f"--ckpt={checkpoints}"]
    if isinstance(row, Fit):
        run_dir = f"--run_dir=checkpoints/{row.name}"
        return ["python", "-m", "benchmarks.fit_baseline", *row.flags, run_dir]
    return ["python", *row.program, "--mode=train", *row.flags, f"--run_name={row.name}"]


def make_training_command(row, folder):
    """`make_command` a Run or Fit for run folders in another place: a later flag wins."""
    place = f"--run_dir={folder / row.name}"
    if not isinstance(row, Fit):
        place = f"--checkpoint_dir={folder}"
    return [*make_command(row, {}), place]


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
    harness.echo("$ " + " ".join(words))
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
    lines = _read_train_lines(folder / row.name)
    if not lines:
        return False
    epochs = run_folder.read_record(folder / row.name).config.length.epochs
    last = lines[-1]
    return last["step"] >= epochs * last["step"] / last["progress/epoch"] - 1e-6


def require_same_flags(row, folder):
    """Compares the flags of a Run with what its folder says it was trained with.

    Raises:
      SystemExit: one differs; the folder then holds another run than the page would say.
    """
    typed = make_training_command(row, folder)[len(row.program) :]
    words = [os.path.expandvars(word) for word in typed]
    wanted = flags.parse(words)
    wanted = wanted.leaves()
    recorded = run_folder.read_record(folder / row.name).config.leaves()
    for name in sorted(typed - {"mode", "checkpoint_dir", "data_dir"}):
        if recorded[name] != wanted[name]:
            raise SystemExit(
                f"{folder / row.name}: trained with --{name}={recorded[name]}, the table says"
                f" {wanted[name]}; remove the folder to train it again"
            )


def evaluate(name, runs, views, folder, seconds_left):
    """Judges one run, or the average of several, and returns {"val-1": dict, "val-10": dict, ...}.

    Files of an earlier call are taken where they are of these very checkpoints.
    """
    found = {}
    for view in views:
        path = folder / f"{name}-{view}.json"
        if not _is_up_to_date(path, runs, folder):
            split, crops = view.split("-")
            checkpoints = ",".join(str(folder / run) for run in runs)
            words = ["python", "main.py", "--mode=eval", f"--ckpt={checkpoints}"]
            words += [f"--split={split}", f"--crops={crops}", f"--json={path}"]
            execute(words, seconds_left())
        found[view] = json.loads(path.read_text())
    return found


def _is_up_to_date(path, runs, folder):
    """Whether a file of results is of the newest checkpoints of these runs."""
    if not path.exists():
        return False
    newest = [max((folder / run).glob("step-*")) for run in runs]
    if any(step.stat().st_mtime > path.stat().st_mtime for step in newest):
        return False
    models = [pathlib.PurePath(model) for model in json.loads(path.read_text())["models"]]
    return [model.parts[-2:] for model in models] == [step.parts[-2:] for step in newest]


def compute_training_seconds(run_dir, examples):
    """Time of a run, each epoch at the median of its logged speeds: interruptions do not count.

    Epochs may differ, as where the size of the images grows.
    """
    epochs = collections.defaultdict(list)
    for line in _read_train_lines(run_dir):
        if "speed/images_per_second" in line:
            epochs[math.ceil(line["progress/epoch"])].append(line["speed/images_per_second"])
    return examples * statistics.mean(1 / statistics.median(of) for of in epochs.values())


def _read_train_lines(run_dir):
    """The lines of a run's training in metrics.jsonl; none where there is no such file."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in map(json.loads, lines) if line["split"] == "train"]


def select_best_two(row, done):
    """Names of the two runs of a BestTwo that have the highest top-1 on val, ten crops."""
    return sorted(row.of, key=lambda name: -done[name]["evaluations"]["val-10"]["top1"])[:2]


def train_and_evaluate(row, folder, done, seconds_left):
    """Trains and judges a row.

    Args:
      row: Run, Fit or BestTwo.
      folder: pathlib.Path of all run folders.
      done: records of earlier rows by name.
      seconds_left: function of the seconds that are left.

    Returns:
      (seconds of training, None for an average; dict of evaluations by "SPLIT-CROPS").
    """
    if isinstance(row, BestTwo):
        best = select_best_two(row, done)
        return None, evaluate(row.name, best, row.views, folder, seconds_left)
    if not is_trained(row, folder):
        execute(make_training_command(row, folder), min(seconds_left(), row.minutes * 60))
    run_dir = folder / row.name
    if isinstance(row, Fit):
        report = json.loads((run_dir / "fit.json").read_text())
        # All as fast as the fastest: the first one compiles, and others may have had company.
        seconds = report["seconds_of_epochs"]
        return len(seconds) * min(seconds), report["results"]
    require_same_flags(row, folder)
    evaluations = evaluate(row.name, [row.name], row.views, folder, seconds_left)
    step = evaluations[row.views[0]]["step"]
    batch_size = run_folder.read_record(run_dir).config.data.batch_size
    return compute_training_seconds(run_dir, step * batch_size), evaluations
