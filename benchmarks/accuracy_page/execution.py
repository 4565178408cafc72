"""Trains and evaluates one row of `tables`, and skips what is already finished."""

import collections
import json
import math
import os
import pathlib
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

import flags
from benchmarks import harness
from benchmarks.accuracy_page.rows import BestTwo, Fit, Run
from loops.checkpointing import run_folder
from loops.config import recipes, resolve
from loops.config.config import all_flags

_ROOT = pathlib.Path(__file__).parents[2]


class OutOfTime(Exception):
    """The time limit is over; the interrupted training has saved a checkpoint."""


def make_command(row: Run | BestTwo, records: Mapping[str, dict]) -> list[str]:
    """Returns the shell command that repeats a row, with `$` variables.

    Run folders are in `checkpoints`, even if `--folder` names another place.

    Args:
      row: Run, Fit or BestTwo.
      records: records of earlier rows by name; a BestTwo needs those of all its rows.
    """
    if isinstance(row, BestTwo):
        checkpoints = ",".join(f"checkpoints/{name}" for name in select_best_two(row, records))
        return ["python", "main.py", "--mode=eval", f"--ckpt={checkpoints}"]
    if isinstance(row, Fit):
        run_dir = f"--run_dir=checkpoints/{row.name}"
        return ["python", "-m", "benchmarks.fit_baseline", *row.flags, run_dir]
    return ["python", "main.py", "--mode=train", *row.flags, f"--run_name={row.name}"]


def make_training_command(row: Run, folder: pathlib.Path) -> list[str]:
    """Returns the command of a Run or Fit with run folders in `folder`: the last flag wins."""
    place = f"--run_dir={folder / row.name}"
    if not isinstance(row, Fit):
        place = f"--checkpoint_dir={folder}"
    return [*make_command(row, {}), place]


def execute(words: Sequence[str], seconds: float) -> None:
    """Runs a command in the root of the repository.

    Args:
      words: the command; `python` is this interpreter, $NAMES are environment variables.
      seconds: time limit, after which the command gets SIGTERM: a training then saves.

    Raises:
      OutOfTime: the command was stopped.
      SystemExit: the command failed.
    """
    command = [sys.executable, *map(os.path.expandvars, words[1:])]
    harness.echo("$ " + " ".join(words))
    child = subprocess.Popen(command, cwd=_ROOT)
    try:
        code = child.wait(timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise OutOfTime from None
    if code:
        raise SystemExit(f"{' '.join(words)}: exit code {code}")


def is_trained(row: Run, folder: pathlib.Path) -> bool:
    """Returns whether the training of a Run or Fit is finished."""
    if isinstance(row, Fit):
        return (folder / row.name / "fit.json").exists()
    lines = _read_train_lines(folder / row.name)
    if not lines:
        return False
    epochs = run_folder.read_record(folder / row.name).config.length.epochs
    last = lines[-1]
    return last["step"] >= epochs * last["step"] / last["progress/epoch"] - 1e-6


def require_same_flags(row: Run, folder: pathlib.Path) -> None:
    """Compares the flags of a Run with those recorded in its run folder.

    Raises:
      SystemExit: a flag differs, so the folder contains another run than the table describes.
    """
    command = make_training_command(row, folder)[1:]
    config = flags.parse([os.path.expandvars(word) for word in command])
    required = resolve.apply_recipe(config).leaves()
    recorded = run_folder.read_record(folder / row.name).config.leaves()
    of_recipe = {
        n for n in recipes.read(required["recipe"], all_flags()) if required[n] is not None
    }
    for name in sorted(
        (config.typed | of_recipe) - {"mode", "checkpoint_dir", "data_dir", "run_name"}
    ):
        if recorded[name] != required[name]:
            raise SystemExit(
                f"{folder / row.name}: trained with --{name}={recorded[name]}, but the table has"
                f" {required[name]}; remove the folder to train it again"
            )


def evaluate(
    name: str,
    runs: Sequence[str],
    views: Sequence[str],
    folder: pathlib.Path,
    seconds_left: Callable[[], float],
) -> dict[str, dict]:
    """Evaluates one run, or the average of several, on each view.

    Result files of an earlier call are reused if they are from the same checkpoints.

    Returns:
      Results by view: {"val-1": dict, "val-10": dict, ...}.
    """
    results = {}
    for view in views:
        path = folder / f"{name}-{view}.json"
        if not _is_up_to_date(path, runs, folder):
            split, crops = view.split("-")
            checkpoints = ",".join(str(folder / run) for run in runs)
            words = ["python", "main.py", "--mode=eval", f"--ckpt={checkpoints}"]
            words += [f"--split={split}", f"--crops={crops}", f"--json={path}"]
            execute(words, seconds_left())
        results[view] = json.loads(path.read_text())
    return results


def _is_up_to_date(path: pathlib.Path, runs: Sequence[str], folder: pathlib.Path) -> bool:
    """Returns whether a result file is from the newest checkpoints of these runs."""
    if not path.exists():
        return False
    newest = [max((folder / run).glob("step-*")) for run in runs]
    if any(step.stat().st_mtime > path.stat().st_mtime for step in newest):
        return False
    models = [pathlib.PurePath(model) for model in json.loads(path.read_text())["models"]]
    return [model.parts[-2:] for model in models] == [step.parts[-2:] for step in newest]


def compute_training_seconds(run_dir: pathlib.Path, examples: int) -> float:
    """Returns the training time of a run, each epoch at the median of its logged speeds.

    So interruptions do not count. Epochs may differ in speed, for example if the image size grows.
    """
    speeds = collections.defaultdict(list)
    for line in _read_train_lines(run_dir):
        if "speed/images_per_second" in line:
            speeds[math.ceil(line["progress/epoch"])].append(line["speed/images_per_second"])
    return examples * statistics.mean(1 / statistics.median(epoch) for epoch in speeds.values())


def _read_train_lines(run_dir: pathlib.Path) -> list[dict]:
    """Returns the lines of the train split in metrics.jsonl; none if there is no such file."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in map(json.loads, lines) if line["split"] == "train"]


def select_best_two(row: BestTwo, records: Mapping[str, dict]) -> list[str]:
    """Returns the names of the two rows with the highest ten-crop top-1 accuracy on val."""

    def top1(name: str) -> float:
        return records[name]["evaluations"]["val-10"]["top1"]

    return sorted(row.row_names, key=lambda name: -top1(name))[:2]


def train_and_evaluate(
    row: Run | BestTwo,
    folder: pathlib.Path,
    records: Mapping[str, dict],
    seconds_left: Callable[[], float],
) -> tuple[float | None, dict[str, dict]]:
    """Trains and evaluates a row.

    Args:
      row: Run, Fit or BestTwo.
      folder: folder of all run folders.
      records: records of earlier rows by name.
      seconds_left: returns the seconds that are left.

    Returns:
      (seconds of training, or None for an average; evaluations by "SPLIT-CROPS").
    """
    if isinstance(row, BestTwo):
        best = select_best_two(row, records)
        return None, evaluate(row.name, best, row.views, folder, seconds_left)
    if not is_trained(row, folder):
        execute(make_training_command(row, folder), min(seconds_left(), row.minutes * 60))
    run_dir = folder / row.name
    if isinstance(row, Fit):
        report = json.loads((run_dir / "fit.json").read_text())
        # Count every epoch like the fastest: the first one compiles, and other programs may have
        # slowed down others.
        seconds = report["seconds_of_epochs"]
        return len(seconds) * min(seconds), report["results"]
    require_same_flags(row, folder)
    evaluations = evaluate(row.name, [row.name], row.views, folder, seconds_left)
    step = evaluations[row.views[0]]["step"]
    batch_size = run_folder.read_record(run_dir).config.data.batch_size
    return compute_training_seconds(run_dir, step * batch_size), evaluations
