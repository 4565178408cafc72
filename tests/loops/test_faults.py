"""Fault injection: kills, signals, full disks, non-finite batches. `-m faults` runs all cases."""

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
from loops.checkpointing import checkpoint
from loops.train_failures import TrainingDiverged
from tests.loops.distribution.test_workers import FLAGS, run, start, tensors

ONE = {"workers": 1}
# Calls of os.fsync before the first save: file and folder of config.json and of the loss trace.
SYNCS_BEFORE_SAVES = 4
ROOT = pathlib.Path(__file__).parents[2]


def train_in_process(folder, root, *words):
    argv = ["main.py", *FLAGS, f"--data_dir={folder}", f"--checkpoint_dir={root}", *words]
    return train.run(flags.parse([*argv, "--strategy=one"]))


def saved_steps(run_dir):
    return [checkpoint.parse_step(folder) for folder in checkpoint.list_step_folders(run_dir)]


def temporary_files(run_dir):
    return [p.name for p in run_dir.iterdir() if p.name.startswith((".tmp", ".del"))]


def assert_tensors_equal(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], name)


def kill_and_resume(folder, root, function, at):
    """Kills a training in a child process, and resumes it in this process to step 4.

    Args:
      folder: the images.
      root: folder of the run folder.
      function: name of a function of os. Its call number `at` kills the child.
      at: counted from the first save for os.fsync.

    Returns:
      the newest step that was saved before the kill, or 0.
    """
    words = ["--steps=4", "--save_every=1", "--eval_every=100"]
    root.mkdir()
    at += SYNCS_BEFORE_SAVES if function == "fsync" else 0
    codes, logs = run(folder, root, *words, plans=[{"kill_at": [function, at]}], **ONE)
    assert codes == [-signal.SIGKILL], logs[0]
    newest = checkpoint.find_newest_intact(root / "r") if (root / "r").exists() else None
    train_in_process(folder, root, *words)
    assert saved_steps(root / "r")[0] == 4
    assert temporary_files(root / "r") == []
    return checkpoint.parse_step(newest) if newest else 0


@pytest.mark.usefixtures("early_statistics")
def test_kill_during_save_loses_one_interval_and_resumes(tiny_folder, tmp_path):
    """A save calls fsync five times: two files, the manifest, the folder, and the run folder."""
    assert kill_and_resume(tiny_folder, tmp_path / "a", "fsync", 8) == 1
    whole = tmp_path / "whole"
    train_in_process(tiny_folder, whole, "--steps=4", "--save_every=1", "--eval_every=100")
    assert_tensors_equal(tensors(tmp_path / "a/r", 4), tensors(whole / "r", 4))


@pytest.mark.faults
@pytest.mark.usefixtures("early_statistics")
@pytest.mark.parametrize(
    "at",
    [("fsync", n) for n in range(1 - SYNCS_BEFORE_SAVES, 17)]
    + [("rename", n) for n in (1, 2, 3, 4)],
)
def test_kill_at_every_point_of_a_save(tiny_folder, tmp_path, at):
    """Also while the run folder is created, which are the points before 1."""
    expected = max(0, (at[1] - 1) // 5) if at[0] == "fsync" else at[1] - 1
    if at[0] == "fsync" and at[1] > 0 and at[1] % 5 == 0:
        expected += 1  # already renamed
    assert kill_and_resume(tiny_folder, tmp_path / "a", *at) == expected


@pytest.mark.faults
def test_eighty_random_kills_of_a_process_that_saves(tmp_path):
    """The process saves without a pause, so some kills must interrupt a save."""
    random_delay, interrupted_saves = random.Random(7), 0
    begun = 0
    for _ in range(80):
        command = [sys.executable, "-m", "tests.loops.checkpointing.saving_forever", str(tmp_path)]
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        words = child.stdout.readline().split()
        assert words[:1] == ["resumed"], words
        resumed, unfinished, remaining = map(int, words[1:])
        interrupted_saves += unfinished > 0
        assert resumed >= begun - 1 and remaining == 0
        time.sleep(random_delay.uniform(0.05, 0.5))
        child.kill()
        whole_lines = re.findall(r"begun (\d+)\n", child.stdout.read())
        assert child.wait() == -signal.SIGKILL
        begun = max([resumed, *map(int, whole_lines)])
    assert interrupted_saves > 10 and begun > 80


CONFIGS = {
    "float32": [],
    "float16": ["--mixed_precision", "--half_dtype=float16"],
    "ema": ["--ema=0.9"],
    "accumulate": ["--accumulate=2", "--optimizer=adamw", "--learning_rate=0.01"],
    "random": ["--dropout=0.3", "--stochastic_depth=0.5"],
    "lamb": ["--optimizer=lamb", "--clip_factor=0.1", "--loss=bce"],
}


@pytest.mark.faults
@pytest.mark.usefixtures("early_statistics")
@pytest.mark.parametrize("name", CONFIGS)
def test_three_kills_and_resume_are_bit_identical(tiny_folder, tmp_path, name):
    words = ["--steps=14", "--save_every=2", "--eval_every=100", "--log_every=1", *CONFIGS[name]]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    assert run(tiny_folder, whole, *words, **ONE)[0] == [0]
    kill_steps = sorted(random.Random(name).sample(range(2, 14), 3))
    for step in kill_steps:
        codes, logs = run(tiny_folder, parts, *words, plans=[{"signal": [step, "SIGKILL"]}], **ONE)
        assert codes == [-signal.SIGKILL], logs[0]
    codes, logs = run(tiny_folder, parts, *words, **ONE)
    assert codes == [0], logs[0]
    assert_tensors_equal(tensors(whole / "r", 14), tensors(parts / "r", 14))


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [1, 3, 5, 6, 7, 8, 9, 10, 12, 14])
def test_sigterm_at_any_time(tiny_folder, tmp_path, seconds):
    """The exit code is 143, and no step that was logged is lost.

    Before the handler is installed, the signal itself ends the process, which a shell shows as 143
    too. The handler is installed once the log names the run folder.
    """
    words = ["--steps=100000", "--save_every=5", "--eval_every=7", "--log_every=3"]
    (process,) = start(tiny_folder, tmp_path, *words, plans=[{}], **ONE)
    time.sleep(seconds)
    has_handler = "run folder" in (tmp_path / "log-0").read_text()
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    code = process.wait(timeout=60)
    codes = (143,) if has_handler else (143, -signal.SIGTERM)
    assert code in codes, (tmp_path / "log-0").read_text()
    assert time.monotonic() - sent < 30
    if code == 143 and saved_steps(tmp_path / "r"):
        lines = (tmp_path / "r/metrics.jsonl").read_text().splitlines()
        logged_steps = [json.loads(line)["step"] for line in lines]
        assert saved_steps(tmp_path / "r")[0] >= max(logged_steps, default=0)


@pytest.mark.usefixtures("early_statistics")
def test_full_disk_during_one_save(tiny_folder, tmp_path, monkeypatch):
    """The save of step 2 fails, the checkpoint of step 1 is kept, and step 3 is saved."""
    fsync, calls = os.fsync, []

    def fail_once(descriptor):
        calls.append(descriptor)
        if len(calls) == SYNCS_BEFORE_SAVES + 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_once)
    train_in_process(tiny_folder, tmp_path, "--steps=3", "--save_every=1", "--eval_every=100")
    assert saved_steps(tmp_path / "r") == [3, 1]
    assert "step 2 could not be saved" in (tmp_path / "r/log.txt").read_text()
    assert temporary_files(tmp_path / "r") == []


@pytest.mark.usefixtures("early_statistics")
def test_unwritable_checkpoint_folder_is_refused(tiny_folder):
    with pytest.raises(UsageError, match="--checkpoint_dir=/proc: cannot write to this folder"):
        train_in_process(tiny_folder, "/proc", "--steps=1")


@pytest.mark.usefixtures("early_statistics")
def test_full_disk_at_start_is_refused(tiny_folder, tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UsageError, match=r"--checkpoint_dir=.*: the disk is full .* make room"):
        train_in_process(tiny_folder, tmp_path, "--steps=1")


@pytest.fixture
def poison(monkeypatch):
    """Returns a function that sets all pixels to a value, from one sample number on."""
    make_preprocess_fn = batch_augment.make_preprocess_fn

    def poison_from(first_sample, value):
        def make_poisoned_fn(*arguments):
            preprocess = make_preprocess_fn(*arguments)

            def preprocess_and_poison(batch):
                images, targets = preprocess(batch)
                is_poisoned = (batch["sample"] >= first_sample)[:, None, None, None]
                return tf.where(is_poisoned, value, images), targets

            return preprocess_and_poison

        monkeypatch.setattr(batch_augment, "make_preprocess_fn", make_poisoned_fn)

    return poison_from


FLOAT16 = ["--mixed_precision", "--half_dtype=float16", "--initial_loss_scale=1024"]


@pytest.mark.usefixtures("early_statistics")
@pytest.mark.parametrize(
    ("words", "value", "stop"),
    [
        pytest.param([], np.nan, 4, marks=pytest.mark.faults),
        ([], np.inf, 4),
        pytest.param(["--accumulate=2"], np.nan, 4, marks=pytest.mark.faults),
        (FLOAT16, np.nan, 3 + 16),  # 1024 / 2 ** 16 is the first scale below 2 ** -5
        pytest.param(
            [*FLOAT16[:2], "--initial_loss_scale=16777216"],
            np.inf,
            3 + 20,
            marks=pytest.mark.faults,
        ),
    ],
)
def test_non_finite_gradients_stop_training_at_the_right_step(
    tiny_folder, tmp_path, poison, words, value, stop
):
    """Batches are poisoned from the fourth step on. No checkpoint has non-finite values."""
    poison(24, value)
    with pytest.raises(TrainingDiverged) as caught:
        words = ["--steps=40", "--save_every=1", "--eval_every=100", *words]
        train_in_process(tiny_folder, tmp_path, *words)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert message.startswith(f"step {stop}: ")
    first = (stop - 1) * 8
    assert f"samples {first} to {first + 7}, the first is " in message
    newest = checkpoint.find_newest_intact(tmp_path / "r")
    assert f"last good checkpoint: {newest}" in message
    assert checkpoint.parse_step(newest) == stop - 1
    for step in saved_steps(tmp_path / "r"):
        for name, tensor in tensors(tmp_path / "r", step).items():
            assert tensor.dtype.kind != "f" or np.isfinite(tensor).all(), name


@pytest.mark.faults
@pytest.mark.parametrize("value", ["inf", "nan"])
@pytest.mark.parametrize("samples", [[], [8], [12], [8, 12]])
def test_poisoned_batch_is_skipped_by_all_workers(tiny_folder, tmp_path, samples, value):
    """Step 1 has samples 8 to 15. The second worker has the last four."""
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
def test_worker_dies_and_resume_is_bit_identical(tiny_folder, tmp_path, victim, step):
    """The other worker exits within a minute. Both are then restarted."""
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
        death_time = time.monotonic()
        assert processes[1 - victim].wait(timeout=60) == 1
        log = (parts / f"log-{1 - victim}").read_text()
        assert "another worker is gone" in log and "Traceback" not in log, log
        assert time.monotonic() - death_time < 60
    finally:
        for process in processes:
            process.kill()
    codes, logs = run(tiny_folder, parts, *words)
    assert codes == [0, 0], "\n".join(logs)
    assert_tensors_equal(tensors(whole / "r", 6), tensors(parts / "r", 6))


def test_signal_to_one_worker_stops_all_at_the_same_step(tiny_folder, tmp_path):
    """TensorFlow's coordination service installs a SIGTERM handler that ignores the signal."""
    words = ["--steps=100000", "--save_every=100000", "--log_every=1", "--eval_every=100000"]
    codes, logs = run(tiny_folder, tmp_path, *words, plans=[{}, {"signal": [3, "SIGTERM"]}])
    assert codes == [143, 143], "\n".join(logs)
    assert len(saved_steps(tmp_path / "r")) == 1
    assert f"step {saved_steps(tmp_path / 'r')[0]} was saved" in logs[1]


@pytest.mark.faults
def test_hundred_flipped_bits_make_checkpoint_corrupt(tmp_path):
    variables = {"model": {"w": tf.Variable(tf.random.normal([20_000]))}}
    folder = checkpoint.save(tmp_path, 1, variables)
    for name in ("ckpt.data-00000-of-00001", "ckpt.index"):
        original = (folder / name).read_bytes()
        positions = random.Random(name).sample(range(len(original)), min(100, len(original)))
        for position in positions:
            flipped = bytearray(original)
            flipped[position] ^= 1 << position % 8
            (folder / name).write_bytes(flipped)
            assert checkpoint.find_newest_intact(tmp_path) is None
        (folder / name).write_bytes(original)
    assert checkpoint.find_newest_intact(tmp_path) == folder
