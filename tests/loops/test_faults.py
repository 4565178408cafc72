"""What a run survives: kills, full disks, poisoned batches. One case of each, then all of them."""

import errno
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

import flags
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import UsageError
from loops import train
from loops.checkpointing import checkpoint, run_folder
from loops.train_failures import TrainingDiverged
from tests.loops.distribution.test_workers import FLAGS, run, start, tensors

ONE = {"workers": 1}
# Calls of os.fsync before the first save: config.json and the loss trace, file and folder of each.
SYNCS_BEFORE = 4
ROOT = pathlib.Path(__file__).parents[2]


def train_here(folder, root, *words):
    argv = ["main.py", *FLAGS, f"--data_dir={folder}", f"--checkpoint_dir={root}", *words]
    return train.run(flags.parse([*argv, "--strategy=one"]))


def steps(run_dir):
    return [checkpoint.parse_step(folder) for folder in checkpoint.list_step_folders(run_dir)]


def junk(run_dir):
    return [p.name for p in run_dir.iterdir() if p.name.startswith((".tmp", ".del"))]


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], name)


def killed_and_resumed(folder, root, function, at):
    """A child is killed in a call of os; the same training then goes on here to step 4."""
    words = ["--steps=4", "--save_every=1", "--eval_every=100"]
    root.mkdir()
    at += SYNCS_BEFORE if function == "fsync" else 0
    codes, logs = run(folder, root, *words, plans=[{"kill_at": [function, at]}], **ONE)
    assert codes == [-signal.SIGKILL], logs[0]
    newest = checkpoint.find_newest_intact(root / "r") if (root / "r").exists() else None
    train_here(folder, root, *words)
    assert steps(root / "r")[0] == 4
    assert junk(root / "r") == []
    return checkpoint.parse_step(newest) if newest else 0


@pytest.mark.usefixtures("tiny_net")
def test_a_kill_in_a_save_costs_one_interval_and_leaves_no_junk(tiny_folder, tmp_path):
    """A save has five syncs: of two files, the manifest, the folder, and the run folder."""
    assert killed_and_resumed(tiny_folder, tmp_path / "a", "fsync", 8) == 1
    whole = tmp_path / "whole"
    train_here(tiny_folder, whole, "--steps=4", "--save_every=1", "--eval_every=100")
    assert_same(tensors(tmp_path / "a/r", 4), tensors(whole / "r", 4))


@pytest.mark.faults
@pytest.mark.usefixtures("tiny_net")
@pytest.mark.parametrize(
    "at",
    [("fsync", n) for n in range(1 - SYNCS_BEFORE, 17)] + [("rename", n) for n in (1, 2, 3, 4)],
)
def test_kills_at_every_point_of_a_save(tiny_folder, tmp_path, at):
    """And as the run folder is begun."""
    expected = max(0, (at[1] - 1) // 5) if at[0] == "fsync" else at[1] - 1
    if at[0] == "fsync" and at[1] > 0 and at[1] % 5 == 0:
        expected += 1  # the name is there already
    assert killed_and_resumed(tiny_folder, tmp_path / "a", *at) == expected


@pytest.mark.faults
def test_eighty_kills_at_random_moments(tmp_path):
    """While saves follow one another without a pause; some must hit one half-written."""
    random_delay, hit = random.Random(7), 0
    begun = 0
    for _ in range(80):
        words = [sys.executable, "-m", "tests.loops.checkpointing.saving_forever", str(tmp_path)]
        child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        said = child.stdout.readline().split()
        assert said[:1] == ["resumed"], said
        resumed, left, junk = map(int, said[1:])
        hit += left > 0
        assert resumed >= begun - 1 and junk == 0
        time.sleep(random_delay.uniform(0.05, 0.5))
        child.kill()
        whole_lines = re.findall(r"begun (\d+)\n", child.stdout.read())
        assert child.wait() == -signal.SIGKILL
        begun = max([resumed, *map(int, whole_lines)])
    assert hit > 10 and begun > 80


CONFIGS = {
    "float32": [],
    "float16": ["--mixed_precision", "--half_dtype=float16"],
    "ema": ["--ema=0.9"],
    "accumulate": ["--accumulate=2", "--optimizer=adamw", "--learning_rate=0.01"],
    "random": ["--dropout=0.3", "--stochastic_depth=0.5"],
    "lamb": ["--optimizer=lamb", "--clip_factor=0.1", "--loss=bce"],
}


@pytest.mark.faults
@pytest.mark.usefixtures("tiny_net")
@pytest.mark.parametrize("name", CONFIGS)
def test_three_kills_and_the_same_end(tiny_folder, tmp_path, name):
    words = ["--steps=14", "--save_every=2", "--eval_every=100", "--log_every=1", *CONFIGS[name]]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    assert run(tiny_folder, whole, *words, **ONE)[0] == [0]
    steps_of_kills = sorted(random.Random(name).sample(range(2, 14), 3))
    for step in steps_of_kills:
        codes, logs = run(tiny_folder, parts, *words, plans=[{"signal": [step, "SIGKILL"]}], **ONE)
        assert codes == [-signal.SIGKILL], logs[0]
    codes, logs = run(tiny_folder, parts, *words, **ONE)
    assert codes == [0], logs[0]
    assert_same(tensors(whole / "r", 14), tensors(parts / "r", 14))


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [1, 3, 5, 6, 7, 8, 9, 10, 12, 14])
def test_sigterm_at_any_time(tiny_folder, tmp_path, seconds):
    """Before the handler is there the system ends the process, which a shell shows as 143 too: that
    is as long as the run folder has not been named in the log."""
    words = ["--steps=100000", "--save_every=5", "--eval_every=7", "--log_every=3"]
    (process,) = start(tiny_folder, tmp_path, *words, plans=[{}], **ONE)
    time.sleep(seconds)
    has_begun = "run folder" in (tmp_path / "log-0").read_text()
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    code = process.wait(timeout=60)
    codes = (143,) if has_begun else (143, -signal.SIGTERM)
    assert code in codes, (tmp_path / "log-0").read_text()
    assert time.monotonic() - sent < 30
    if code == 143 and steps(tmp_path / "r"):
        lines = (tmp_path / "r/metrics.jsonl").read_text().splitlines()
        logged = [json.loads(line)["step"] for line in lines]
        assert steps(tmp_path / "r")[0] >= max(logged, default=0)


@pytest.mark.usefixtures("tiny_net")
def test_a_disk_that_is_full_for_a_while(tiny_folder, tmp_path, monkeypatch):
    """The save of step 2 fails; step 1 stays, and step 3 is saved."""
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == SYNCS_BEFORE + 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    train_here(tiny_folder, tmp_path, "--steps=3", "--save_every=1", "--eval_every=100")
    assert steps(tmp_path / "r") == [3, 1]
    assert "step 2 could not be saved" in (tmp_path / "r/log.txt").read_text()
    assert junk(tmp_path / "r") == []


@pytest.mark.usefixtures("tiny_net")
def test_a_folder_that_takes_no_files(tiny_folder):
    with pytest.raises(UsageError, match="--checkpoint_dir=/proc: nothing can be written there"):
        train_here(tiny_folder, "/proc", "--steps=1")


@pytest.mark.usefixtures("tiny_net")
def test_a_disk_on_which_a_run_cannot_begin(tiny_folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder, "write_record", full)
    with pytest.raises(UsageError, match=r"--checkpoint_dir=.*: the disk is full .* make room"):
        train_here(tiny_folder, tmp_path, "--steps=1")


@pytest.fixture
def poison(monkeypatch):
    """Returns the function that spoils all images from a sample on."""
    make_prepare = batch_augment.make_preprocess_fn

    def spoil(first_sample, value):
        def make(*arguments):
            prepare = make_prepare(*arguments)

            def spoiled(batch):
                images, targets = prepare(batch)
                hit = (batch["sample"] >= first_sample)[:, None, None, None]
                return tf.where(hit, value, images), targets

            return spoiled

        monkeypatch.setattr(batch_augment, "make_preprocess_fn", make)

    return spoil


FLOAT16 = ["--mixed_precision", "--half_dtype=float16", "--initial_loss_scale=1024"]


@pytest.mark.usefixtures("tiny_net")
@pytest.mark.parametrize(
    ("words", "value", "stop"),
    [
        ([], np.nan, 4),
        ([], np.inf, 4),
        (["--accumulate=2"], np.nan, 4),
        (FLOAT16, np.nan, 3 + 16),  # 1024 / 2 ** 16 is the first scale below 2 ** -5
        ([*FLOAT16[:2], "--initial_loss_scale=16777216"], np.inf, 3 + 20),
    ],
)
def test_training_stops_on_the_right_step(tiny_folder, tmp_path, poison, words, value, stop):
    """Samples are spoilt from step 3 on, the fourth; no checkpoint holds what is not finite."""
    poison(24, value)
    with pytest.raises(TrainingDiverged) as caught:
        words = ["--steps=40", "--save_every=1", "--eval_every=100", *words]
        train_here(tiny_folder, tmp_path, *words)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert message.startswith(f"step {stop}: ")
    first = (stop - 1) * 8
    assert f"samples {first} to {first + 7}, the first is " in message
    newest = checkpoint.find_newest_intact(tmp_path / "r")
    assert f"last good checkpoint: {newest}" in message
    assert checkpoint.parse_step(newest) == stop - 1
    for step in steps(tmp_path / "r"):
        for name, tensor in tensors(tmp_path / "r", step).items():
            assert tensor.dtype.kind != "f" or np.isfinite(tensor).all(), name


@pytest.mark.faults
@pytest.mark.parametrize("value", ["inf", "nan"])
@pytest.mark.parametrize("samples", [[], [8], [12], [8, 12]])
def test_poisoned_workers(tiny_folder, tmp_path, samples, value):
    """Step 1 has samples 8 to 15, of which the second worker takes the last four."""
    words = ["--mixed_precision", "--half_dtype=float16", "--initial_loss_scale=8", "--steps=3"]
    plan = {"poison": [samples or [10**9], value]}
    words += ["--log_every=1", "--save_every=3", "--eval_every=100"]
    codes, logs = run(tiny_folder, tmp_path, *words, plans=[plan, plan])
    assert codes == [0, 0], "\n".join(logs)
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["split"] == "train"]
    skipped = int(bool(samples))
    assert [line["optim/skipped_steps"] for line in trained] == [0, skipped, skipped]
    assert trained[-1]["optim/loss_scale"] == (4.0 if samples else 8.0)


@pytest.mark.faults
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("step", [1, 4])
def test_a_worker_dies_and_all_resume(tiny_folder, tmp_path, victim, step):
    """The other one ends within a minute; both, started again, end as if nothing had been."""
    words = ["--steps=6", "--save_every=1", "--log_every=1", "--eval_every=100"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    assert run(tiny_folder, whole, *words)[0] == [0, 0]
    plans = [{}, {}]
    plans[victim] = {"signal": [step, "SIGKILL"]}
    processes = start(tiny_folder, parts, *words, plans=plans)
    try:
        assert processes[victim].wait(timeout=250) == -signal.SIGKILL
        died = time.monotonic()
        assert processes[1 - victim].wait(timeout=60) == 1
        log = (parts / f"log-{1 - victim}").read_text()
        assert "another worker is gone" in log and "Traceback" not in log, log
        assert time.monotonic() - died < 60
    finally:
        for process in processes:
            process.kill()
    codes, logs = run(tiny_folder, parts, *words)
    assert codes == [0, 0], "\n".join(logs)
    assert_same(tensors(whole / "r", 6), tensors(parts / "r", 6))


def test_a_signal_to_one_worker_ends_all_at_one_step(tiny_folder, tmp_path):
    """TensorFlow's service for workers takes SIGTERM for itself and does nothing with it."""
    words = ["--steps=100000", "--save_every=100000", "--log_every=1", "--eval_every=100000"]
    codes, logs = run(tiny_folder, tmp_path, *words, plans=[{}, {"signal": [3, "SIGTERM"]}])
    assert codes == [143, 143], "\n".join(logs)
    assert len(steps(tmp_path / "r")) == 1
    assert f"step {steps(tmp_path / 'r')[0]} is saved" in logs[1]


@pytest.mark.faults
def test_a_hundred_flipped_bits(tmp_path):
    variables = {"model": {"w": tf.Variable(tf.random.normal([20_000]))}}
    folder = checkpoint.save(tmp_path, 1, variables)
    for name in ("ckpt.data-00000-of-00001", "ckpt.index"):
        whole = (folder / name).read_bytes()
        places = random.Random(name).sample(range(len(whole)), min(100, len(whole)))
        for place in places:
            flipped = bytearray(whole)
            flipped[place] ^= 1 << place % 8
            (folder / name).write_bytes(flipped)
            assert checkpoint.find_newest_intact(tmp_path) is None
        (folder / name).write_bytes(whole)
    assert checkpoint.find_newest_intact(tmp_path) == folder
