"""Kills, signals and damage at random, and the same command again after each."""

import json
import random
import signal
import subprocess
import time

from loops.checkpointing import checkpoint
from tests.soak.training import SAVE_EVERY

# How often each is drawn; SIGUSR1 asks for a checkpoint, and training goes on.
_SIGNALS = {"SIGTERM": 3, "SIGKILL": 4, "SIGUSR1": 2}
_EXPECTED = {"SIGTERM": (143, -signal.SIGTERM), "SIGKILL": (-signal.SIGKILL,)}
# Most lives are ended so many seconds after their first new line of metrics, the others anywhere
# in their start.
_LONGEST, _LONGEST_START, _START_SHARE = 12.0, 20.0, 0.2
_DAMAGE_SHARE, _EVAL_SHARE = 0.35, 0.15


def run(training, seconds, seed):
    """Disturbs a training; returns facts for the report.

    Args:
      training: Training.
      seconds: how long.
      seed: of everything random in here.
    """
    draw = random.Random(seed)
    facts = {"starts": 0, "signals": {}, "damage": {}, "evaluations": 0, "manual_actions": 0}
    facts |= {"most_steps_lost": 0, "save_every": SAVE_EVERY, "stops": []}
    end = time.monotonic() + seconds
    while time.monotonic() < end and not facts["manual_actions"]:
        _one_life(training, draw, facts)
        if draw.random() < _DAMAGE_SHARE:
            _damage(training, draw, facts)
        if draw.random() < _EVAL_SHARE and training.step():
            facts["evaluations"] += 1
            _require(facts, training, training.start("eval").wait(timeout=300), (0,), "eval")
    facts["steps"] = training.step() + 2 * SAVE_EVERY
    last = training.start("train", f"--steps={facts['steps']}")
    _require(facts, training, last.wait(timeout=1200), (0,), "the last start")
    return facts


def _one_life(training, draw, facts):
    """Starts the training and ends it by a signal at a random moment."""
    before = training.step()
    process = training.start("train", "--steps=100000000")
    facts["starts"] += 1
    longest = _LONGEST_START
    if draw.random() > _START_SHARE:
        longest = _LONGEST
        _wait_for_steps(training, process)
    while True:
        try:
            code = process.wait(timeout=draw.uniform(0.5, longest))
            _require(facts, training, code, (), "an end that nobody asked for")
            return
        except subprocess.TimeoutExpired:
            name = draw.choices(list(_SIGNALS), list(_SIGNALS.values()))[0]
        if name == "SIGUSR1" and not _handles_signals(process.pid):
            continue  # before its handler is there, it ends any program
        process.send_signal(getattr(signal, name))
        facts["signals"][name] = facts["signals"].get(name, 0) + 1
        if name in _EXPECTED:
            break
    _require(facts, training, process.wait(timeout=120), _EXPECTED[name], name)
    reached = _last_logged(training)
    # What was logged since the newest save is lost; a save is due every SAVE_EVERY steps.
    lost = max(0, reached - max(before, training.step()))
    facts["most_steps_lost"] = max(facts["most_steps_lost"], lost)


def _wait_for_steps(training, process):
    """Returns once the process has logged a step, or has ended."""
    metrics = training.run_dir / "metrics.jsonl"
    first = time.time()
    while process.poll() is None:
        if metrics.exists() and metrics.stat().st_mtime > first and _last_logged(training):
            return
        time.sleep(0.2)


def _handles_signals(pid):
    """Whether a process catches SIGUSR1, by the mask that the kernel shows."""
    with open(f"/proc/{pid}/status") as status:
        (caught,) = [line.split()[1] for line in status if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (signal.SIGUSR1 - 1) & 1)


def _last_logged(training):
    """The last step in metrics.jsonl, 0 where there is none."""
    path = training.run_dir / "metrics.jsonl"
    steps = [0]
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            steps.append(json.loads(line)["step"])
        except ValueError:
            continue  # a line that a kill cut
    return steps[-1]


def _damage(training, draw, facts):
    """Breaks the newest checkpoint in one of six ways, where there is another to fall back on."""
    folders = checkpoint.list_step_folders(training.run_dir) if training.run_dir.exists() else []
    # One that is broken already stays so until training gets to its step again.
    if len(folders) < 2 or not checkpoint.is_intact(folders[0]):
        return
    kind = draw.choice(["cut", "flip", "empty", "no_index", "no_manifest", "bad_manifest"])
    (data,) = folders[0].glob("*.data-*")
    if kind == "cut":
        data.write_bytes(data.read_bytes()[: draw.randrange(data.stat().st_size)])
    elif kind == "flip":
        content = bytearray(data.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        data.write_bytes(content)
    elif kind == "empty":
        data.write_bytes(b"")
    elif kind == "no_index":
        next(folders[0].glob("*.index")).unlink()
    elif kind == "no_manifest":
        (folders[0] / "manifest.json").unlink()
    else:
        (folders[0] / "manifest.json").write_text('{"step": ')
    facts["damage"][kind] = facts["damage"].get(kind, 0) + 1


def _require(facts, training, code, expected, what):
    """Counts an exit code that would have called somebody."""
    if code not in expected:
        facts["manual_actions"] += 1
        facts["stops"].append({"what": what, "exit_code": code, "log": training.last_words()})
