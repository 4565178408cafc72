"""Saving step by step: what one failure, two and three of them lead to."""

import errno
import json
import logging

import pytest
import tensorflow as tf

from input_pipeline.errors import UsageError
from loops.run import checkpoint
from loops.run.config import RunConfig
from loops.run.saver import Saver

FULL = OSError(errno.ENOSPC, "No space left on device")
FAILURES = [FULL, tf.errors.ResourceExhaustedError(None, None, "No space left on device")]


@pytest.fixture
def variable():
    return tf.Variable(1.0)


@pytest.fixture
def saver(tmp_path, variable):
    return Saver(tmp_path, RunConfig(keep=2), {"model": {"a/b": variable}}, 10.0)


def steps(run):
    return sorted(checkpoint.step_of(folder) for folder in checkpoint.step_folders(run))


def failing(error):
    def fail(*_):
        raise error

    return fail


def test_saves_and_prunes(saver, tmp_path):
    for step, top1 in ((1, 0.9), (2, 0.2), (3, 0.3), (4, 0.4)):
        saver.save(step, {"top1": top1})
    assert steps(tmp_path) == [1, 3, 4]
    manifest = json.loads((tmp_path / "step-00000004" / "manifest.json").read_text())
    assert manifest["metrics"] == {"top1": 0.4}


def test_a_step_is_saved_once(saver, tmp_path):
    """The save that a signal asks for, right after the one that was due, keeps its figures."""
    saver.save(5, {"top1": 0.5})
    before = (tmp_path / "step-00000005").stat().st_ino
    saver.save(5)
    assert (tmp_path / "step-00000005").stat().st_ino == before
    assert checkpoint.verify(tmp_path / "step-00000005")["metrics"] == {"top1": 0.5}


def test_a_resumed_run_that_is_stopped_at_once_keeps_the_figures(saver, tmp_path, variable):
    saver.save(5, {"top1": 0.5})
    Saver(tmp_path, RunConfig(keep=2), {"model": {"a/b": variable}}, 10.0, saved=5).save(5, {})
    assert checkpoint.best_intact(tmp_path) == tmp_path / "step-00000005"


@pytest.mark.parametrize("error", FAILURES)
def test_two_failures_are_logged_and_the_third_ends_the_run(
    saver, tmp_path, monkeypatch, caplog, error
):
    saver.save(1)
    monkeypatch.setattr(checkpoint, "save", failing(error))
    saver.save(2)
    saver.save(3)
    logged = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    for step, message in zip((2, 3), logged, strict=True):
        assert f"step {step} " in message and "No space left on device" in message
    with pytest.raises(UsageError) as caught:
        saver.save(4)
    message = str(caught.value)
    assert f"--checkpoint_dir={tmp_path.parent}" in message
    assert "No space left on device" in message and "\n" not in message
    assert caught.value.exit_code == 2
    assert steps(tmp_path) == [1]


def test_a_success_starts_the_count_anew(saver, tmp_path, monkeypatch):
    save = checkpoint.save
    for step in range(1, 9):
        works = step % 3 == 0
        monkeypatch.setattr(checkpoint, "save", save if works else failing(FULL))
        saver.save(step)
    assert steps(tmp_path) == [3, 6]


def test_a_step_that_failed_can_be_tried_again(saver, tmp_path, monkeypatch):
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", failing(FULL))
    saver.save(7)
    monkeypatch.setattr(checkpoint, "save", save)
    saver.save(7)
    assert steps(tmp_path) == [7]


def test_older_steps_are_kept_while_the_disk_is_full(saver, tmp_path, monkeypatch):
    saver.save(1)
    saver.save(2)
    monkeypatch.setattr(checkpoint, "save", failing(FULL))
    saver.save(3)
    saver.save(4)
    assert steps(tmp_path) == [1, 2]


def test_what_is_not_finite_is_no_failure_of_the_disk(saver, tmp_path, variable):
    variable.assign(float("nan"))
    for step in (1, 2, 3, 4):
        with pytest.raises(checkpoint.NonFiniteError, match="model/a/b"):
            saver.save(step)
    assert list(tmp_path.iterdir()) == []


def test_milestones_are_kept(tmp_path, variable):
    config = RunConfig(keep=1, keep_every="0.4epochs")
    saver = Saver(tmp_path, config, {"model": {"a/b": variable}}, 10.0)
    for step in range(2, 11, 2):
        saver.save(step)
    assert steps(tmp_path) == [4, 8, 10]


class OtherWorker:
    """Workers as the second of two sees them; the chief has written."""

    is_chief = False

    def largest(self, *values):
        return [1.0 for _ in values]


def test_only_the_chief_writes_but_all_take_note(tmp_path, variable):
    saver = Saver(tmp_path, RunConfig(), {"model": {"a/b": variable}}, 1.0, workers=OtherWorker())
    assert saver.save(3) is True
    assert steps(tmp_path) == []
    variable.assign(float("inf"))
    with pytest.raises(checkpoint.NonFiniteError):
        saver.save(4)
