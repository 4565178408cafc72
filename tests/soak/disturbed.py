"""Kills, signals and damages a training at random, and starts it again with the same command."""

import json
import pathlib
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from loops.checkpointing import checkpoint
from tests.soak.training import SAVE_EVERY, Training

# Weights of the random choice. SIGUSR1 requests a checkpoint, and training continues.
_SIGNALS = {"SIGTERM": 3, "SIGKILL": 4, "SIGUSR1": 2}
_EXPECTED_CODES = {"SIGTERM": (143, -signal.SIGTERM), "SIGKILL": (-signal.SIGKILL,)}
# Most processes are stopped within this many seconds after they log a step.
_MAX_SECONDS = 12.0
# The others are stopped within this many seconds after their start, so also during start-up.
_MAX_SECONDS_FROM_START, _START_UP_SHARE = 20.0, 0.2
_DAMAGE_SHARE, _EVAL_SHARE = 0.35, 0.15


def run(training: Training, seconds: float, seed: int) -> dict[str, Any]:
    """Disturbs a training.

    Args:
      training: the training to disturb.
      seconds: duration of the disturbances.
      seed: seed of all random choices.

    Returns:
      The entries of the report about the disturbances.
    """
    rng = random.Random(seed)
    report = {"starts": 0, "signals": {}, "damage": {}, "evaluations": 0, "manual_actions": 0}
    report |= {"most_steps_lost": 0, "save_every": SAVE_EVERY, "stops": []}
    end = time.monotonic() + seconds
    while time.monotonic() < end and not report["manual_actions"]:
        _start_and_stop(training, rng, report)
        if rng.random() < _DAMAGE_SHARE:
            damage_newest_checkpoint(training.run_dir, rng, report)
        if rng.random() < _EVAL_SHARE and training.find_step():
            report["evaluations"] += 1
            code = training.start("eval").wait(timeout=300)
            _require_code(report, training, code, (0,), "eval")
    report["steps"] = training.find_step() + 2 * SAVE_EVERY
    last = training.start("train", f"--steps={report['steps']}")
    _require_code(report, training, last.wait(timeout=1200), (0,), "the last start")
    return report


def _start_and_stop(training: Training, rng: random.Random, report: dict[str, Any]) -> None:
    """Starts the training and stops it with a signal at a random moment."""
    before = training.find_step()
    process = training.start("train", "--steps=100000000")
    report["starts"] += 1
    max_seconds = _MAX_SECONDS_FROM_START
    if rng.random() > _START_UP_SHARE:
        max_seconds = _MAX_SECONDS
        _wait_for_steps(training, process)
    while True:
        try:
            code = process.wait(timeout=rng.uniform(0.5, max_seconds))
            _require_code(report, training, code, (), "an unexpected end")
            return
        except subprocess.TimeoutExpired:
            name = rng.choices(list(_SIGNALS), list(_SIGNALS.values()))[0]
        if name == "SIGUSR1" and not _handles_sigusr1(process.pid):
            continue  # without a handler, the signal ends the process
        process.send_signal(getattr(signal, name))
        report["signals"][name] = report["signals"].get(name, 0) + 1
        if name in _EXPECTED_CODES:
            break
    _require_code(report, training, process.wait(timeout=120), _EXPECTED_CODES[name], name)
    last_logged = _find_last_logged_step(training)
    # Steps since the newest save are lost. A save is due every SAVE_EVERY steps.
    lost = max(0, last_logged - max(before, training.find_step()))
    report["most_steps_lost"] = max(report["most_steps_lost"], lost)


def _wait_for_steps(training: Training, process: subprocess.Popen) -> None:
    """Waits until the process has logged a step or ended."""
    metrics = training.run_dir / "metrics.jsonl"
    started = time.time()
    while process.poll() is None:
        is_new = metrics.exists() and metrics.stat().st_mtime > started
        if is_new and _find_last_logged_step(training):
            return
        time.sleep(0.2)


def _handles_sigusr1(pid: int) -> bool:
    """Returns whether a process has a handler for SIGUSR1, from /proc/PID/status."""
    with open(f"/proc/{pid}/status") as status:
        (caught,) = [line.split()[1] for line in status if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (signal.SIGUSR1 - 1) & 1)


def _find_last_logged_step(training: Training) -> int:
    """Returns the last step in metrics.jsonl, or 0 if there is none."""
    path = training.run_dir / "metrics.jsonl"
    steps = [0]
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            steps.append(json.loads(line)["step"])
        except ValueError:
            continue  # a kill left an incomplete line
    return steps[-1]


def damage_newest_checkpoint(
    run_dir: pathlib.Path, rng: random.Random, report: dict[str, Any]
) -> None:
    """Damages the newest checkpoint in one of six ways, if there is an older one.

    Args:
      run_dir: run folder.
      rng: source of the random choices.
      report: its entry `damage` counts the damages by kind.
    """
    folders = checkpoint.list_step_folders(run_dir) if run_dir.exists() else []
    # A damaged checkpoint stays damaged until training reaches its step again.
    if len(folders) < 2 or not checkpoint.is_intact(folders[0]):
        return
    kind = rng.choice(["cut", "flip", "empty", "no_index", "no_manifest", "bad_manifest"])
    (data,) = folders[0].glob("*.data-*")
    if kind == "cut":
        data.write_bytes(data.read_bytes()[: rng.randrange(data.stat().st_size)])
    elif kind == "flip":
        content = bytearray(data.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        data.write_bytes(content)
    elif kind == "empty":
        data.write_bytes(b"")
    elif kind == "no_index":
        next(folders[0].glob("*.index")).unlink()
    elif kind == "no_manifest":
        (folders[0] / "manifest.json").unlink()
    else:
        (folders[0] / "manifest.json").write_text('{"step": ')
    report["damage"][kind] = report["damage"].get(kind, 0) + 1


def _require_code(
    report: dict[str, Any], training: Training, code: int, expected: Sequence[int], event: str
) -> None:
    """Counts an unexpected exit code as a manual action."""
    if code not in expected:
        report["manual_actions"] += 1
        stop = {"what": event, "exit_code": code, "log": training.read_last_log_lines()}
        report["stops"].append(stop)
