"""Saving step by step: what one failure, two and three of them lead to."""

import errno
import json
import logging
import threading
import time

import pytest
import tensorflow as tf

from input_pipeline.errors import UsageError
from input_pipeline.text import summarize_error
from loops.checkpointing import checkpoint
from loops.checkpointing.async_saver import Saver
from loops.config.training import RunConfig

FULL = OSError(errno.ENOSPC, "No space left on device")
FAILURES = [FULL, tf.errors.ResourceExhaustedError(None, None, "No space left on device")]
# What TensorFlow says of a file that is short when it is read back, see tests/canaries.
FAILURES += [IndexError("Read less bytes than requested")]


@pytest.fixture
def variable():
    return tf.Variable(1.0)


@pytest.fixture
def saver(tmp_path, variable):
    return Saver(tmp_path, RunConfig(keep=2), {"model": {"a/b": variable}}, 10.0)


def steps(run):
    return sorted(checkpoint.parse_step(folder) for folder in checkpoint.list_step_folders(run))


def failing(error):
    def fail(*_):
        raise error

    return fail


def saved(saver, *arguments):
    """Saves and waits; returns the newest step on the disk."""
    saver.save(*arguments)
    return saver.finish()


def test_saves_and_prunes(saver, tmp_path):
    for step, top1 in ((1, 0.9), (2, 0.2), (3, 0.3), (4, 0.4)):
        saved(saver, step, {"top1": top1})
    assert steps(tmp_path) == [1, 3, 4]
    manifest = json.loads((tmp_path / "step-00000004" / "manifest.json").read_text())
    assert manifest["metrics"] == {"top1": 0.4}


def test_a_step_is_saved_once(saver, tmp_path):
    """The save that a signal asks for, right after the one that was due, keeps its figures."""
    saved(saver, 5, {"top1": 0.5})
    before = (tmp_path / "step-00000005").stat().st_ino
    saved(saver, 5)
    assert (tmp_path / "step-00000005").stat().st_ino == before
    assert checkpoint.verify(tmp_path / "step-00000005")["metrics"] == {"top1": 0.5}


def test_a_resumed_run_that_is_stopped_at_once_keeps_the_figures(saver, tmp_path, variable):
    saved(saver, 5, {"top1": 0.5})
    again = Saver(tmp_path, RunConfig(keep=2), {"model": {"a/b": variable}}, 10.0, saved=5)
    assert saved(again, 5, {}) == 5
    assert checkpoint.find_best_intact(tmp_path) == tmp_path / "step-00000005"


@pytest.mark.parametrize("error", FAILURES)
def test_two_failures_are_logged_and_the_third_ends_the_run(
    saver, tmp_path, monkeypatch, caplog, error
):
    saved(saver, 1)
    monkeypatch.setattr(checkpoint, "save", failing(error))
    saved(saver, 2)
    saved(saver, 3)
    logged = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    for step, message in zip((2, 3), logged, strict=True):
        assert f"step {step} " in message and summarize_error(error) in message
    with pytest.raises(UsageError) as caught:
        saved(saver, 4)
    message = str(caught.value)
    assert f"--checkpoint_dir={tmp_path.parent}" in message
    assert summarize_error(error) in message and "\n" not in message
    assert caught.value.exit_code == 2
    assert steps(tmp_path) == [1]


def test_a_success_starts_the_count_anew(saver, tmp_path, monkeypatch):
    save = checkpoint.save
    for step in range(1, 9):
        works = step % 3 == 0
        monkeypatch.setattr(checkpoint, "save", save if works else failing(FULL))
        saved(saver, step)
    assert steps(tmp_path) == [3, 6]


def test_a_step_that_failed_can_be_tried_again(saver, tmp_path, monkeypatch):
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", failing(FULL))
    saved(saver, 7)
    monkeypatch.setattr(checkpoint, "save", save)
    saved(saver, 7)
    assert steps(tmp_path) == [7]


def test_older_steps_are_kept_while_the_disk_is_full(saver, tmp_path, monkeypatch):
    saved(saver, 1)
    saved(saver, 2)
    monkeypatch.setattr(checkpoint, "save", failing(FULL))
    saved(saver, 3)
    saved(saver, 4)
    assert steps(tmp_path) == [1, 2]


def test_what_is_not_finite_is_no_failure_of_the_disk(saver, tmp_path, variable):
    variable.assign(float("nan"))
    for step in (1, 2, 3, 4):
        with pytest.raises(checkpoint.NonFiniteError, match="model/a/b"):
            saved(saver, step)
    assert list(tmp_path.iterdir()) == []


def test_milestones_are_kept(tmp_path, variable):
    config = RunConfig(keep=1, keep_every="0.4epochs")
    saver = Saver(tmp_path, config, {"model": {"a/b": variable}}, 10.0)
    for step in range(2, 11, 2):
        saved(saver, step)
    assert steps(tmp_path) == [4, 8, 10]


def test_milestones_where_an_epoch_is_no_whole_number_of_steps(tmp_path, variable):
    """3.25 steps an epoch: saves at 3, 6, ... are no multiples of three epochs, 10 steps."""
    saver = Saver(
        tmp_path, RunConfig(keep=1, keep_every="3epochs"), {"model": {"a/b": variable}}, 3.25
    )
    for step in range(3, 40, 3):
        saved(saver, step)
    assert steps(tmp_path) == [12, 21, 30, 39]


class OtherWorker:
    """Workers as the second of two sees them; the chief has written."""

    is_chief = False

    def all_reduce_max(self, *values):
        return [1.0 for _ in values]


def test_only_the_chief_writes_but_all_take_note(tmp_path, variable):
    saver = Saver(tmp_path, RunConfig(), {"model": {"a/b": variable}}, 1.0, workers=OtherWorker())
    assert saved(saver, 3) == 3
    assert steps(tmp_path) == []
    variable.assign(float("inf"))
    with pytest.raises(checkpoint.NonFiniteError):
        saver.save(4)


def test_training_goes_on_while_a_step_is_written(saver, tmp_path, variable, monkeypatch):
    """What is written is what the variables were; the next save waits for the one before."""
    save, may_write = checkpoint.save, threading.Event()

    def slow(*arguments):
        assert may_write.wait(10)
        return save(*arguments)

    monkeypatch.setattr(checkpoint, "save", slow)
    saver.save(1)
    variable.assign(2.0)
    assert steps(tmp_path) == []
    threading.Timer(0.1, may_write.set).start()
    saver.save(2)
    assert 1 in steps(tmp_path)
    assert saver.finish() == 2
    for step in (1, 2):
        read = tf.Variable(0.0)
        checkpoint.restore(tmp_path / f"step-{step:08d}", {"model": {"a/b": read}})
        assert read.numpy() == step


def test_the_end_waits_for_the_disk(tmp_path, variable, monkeypatch, caplog):
    save = checkpoint.save

    def slow(*arguments):
        time.sleep(0.2)
        return save(*arguments)

    monkeypatch.setattr(checkpoint, "save", slow)
    with Saver(tmp_path, RunConfig(), {"model": {"a/b": variable}}, 1.0) as saver:
        saver.save(1)
    assert steps(tmp_path) == [1]
    monkeypatch.setattr(checkpoint, "save", failing(FULL))
    with Saver(tmp_path, RunConfig(), {"model": {"a/b": variable}}, 1.0) as saver:
        saver.save(2)
    assert "step 2 could not be saved" in caplog.text


def test_a_kept_step_is_hashed_once_and_again_when_it_changes(saver, tmp_path, monkeypatch):
    verify, seen = checkpoint.verify, []

    def noting(folder):
        seen.append(checkpoint.parse_step(folder))
        return verify(folder)

    monkeypatch.setattr(checkpoint, "verify", noting)
    for step in (1, 2):
        saved(saver, step)
    assert seen == []  # what this process wrote it has read back
    manifest = tmp_path / "step-00000002/manifest.json"
    manifest.write_text(manifest.read_text()[:-9])
    for step in (3, 4):
        saved(saver, step)
    assert set(seen) == {2}
    assert steps(tmp_path) == [2, 3, 4]  # the broken one counts for nothing, and is left alone
