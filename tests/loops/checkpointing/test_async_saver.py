"""Background saving: pruning, failing disks, non-finite weights, several workers."""

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
# TensorFlow's error for a file that is short when it is read back, see tests/canaries.
FAILURES += [IndexError("Read less bytes than requested")]


@pytest.fixture
def variable():
    return tf.Variable(1.0)


@pytest.fixture
def saver(tmp_path, variable):
    return Saver(tmp_path, RunConfig(keep=2), {"model": {"a/b": variable}}, 10.0)


def steps(run):
    return sorted(checkpoint.parse_step(folder) for folder in checkpoint.list_step_folders(run))


def raising(error):
    def fail(*_):
        raise error

    return fail


def save_and_wait(saver, *arguments):
    """Returns the newest step on the disk."""
    saver.save(*arguments)
    return saver.finish()


def test_save_and_prune(saver, tmp_path):
    for step, top1 in ((1, 0.9), (2, 0.2), (3, 0.3), (4, 0.4)):
        save_and_wait(saver, step, {"top1": top1})
    assert steps(tmp_path) == [1, 3, 4]
    manifest = json.loads((tmp_path / "step-00000004" / "manifest.json").read_text())
    assert manifest["metrics"] == {"top1": 0.4}


def test_step_is_saved_once(saver, tmp_path):
    """A save requested by a signal right after a regular save must keep the metrics."""
    save_and_wait(saver, 5, {"top1": 0.5})
    before = (tmp_path / "step-00000005").stat().st_ino
    save_and_wait(saver, 5)
    assert (tmp_path / "step-00000005").stat().st_ino == before
    assert checkpoint.verify(tmp_path / "step-00000005")["metrics"] == {"top1": 0.5}


def test_resumed_run_that_stops_at_once_keeps_metrics(saver, tmp_path, variable):
    save_and_wait(saver, 5, {"top1": 0.5})
    again = Saver(tmp_path, RunConfig(keep=2), {"model": {"a/b": variable}}, 10.0, saved=5)
    assert save_and_wait(again, 5, {}) == 5
    assert checkpoint.find_best_intact(tmp_path) == tmp_path / "step-00000005"


@pytest.mark.parametrize("error", FAILURES)
def test_third_save_failure_in_a_row_ends_the_run(saver, tmp_path, monkeypatch, caplog, error):
    save_and_wait(saver, 1)
    monkeypatch.setattr(checkpoint, "save", raising(error))
    save_and_wait(saver, 2)
    save_and_wait(saver, 3)
    logged = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    for step, message in zip((2, 3), logged, strict=True):
        assert f"step {step} " in message and summarize_error(error) in message
    with pytest.raises(UsageError) as caught:
        save_and_wait(saver, 4)
    message = str(caught.value)
    assert f"--checkpoint_dir={tmp_path.parent}" in message
    assert summarize_error(error) in message and "\n" not in message
    assert caught.value.exit_code == 2
    assert steps(tmp_path) == [1]


def test_success_resets_failure_count(saver, tmp_path, monkeypatch):
    save = checkpoint.save
    for step in range(1, 9):
        succeeds = step % 3 == 0
        monkeypatch.setattr(checkpoint, "save", save if succeeds else raising(FULL))
        save_and_wait(saver, step)
    assert steps(tmp_path) == [3, 6]


def test_failed_step_can_be_saved_again(saver, tmp_path, monkeypatch):
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", raising(FULL))
    save_and_wait(saver, 7)
    monkeypatch.setattr(checkpoint, "save", save)
    save_and_wait(saver, 7)
    assert steps(tmp_path) == [7]


def test_old_checkpoints_stay_while_disk_is_full(saver, tmp_path, monkeypatch):
    save_and_wait(saver, 1)
    save_and_wait(saver, 2)
    monkeypatch.setattr(checkpoint, "save", raising(FULL))
    save_and_wait(saver, 3)
    save_and_wait(saver, 4)
    assert steps(tmp_path) == [1, 2]


def test_nonfinite_weights_are_not_a_disk_failure(saver, tmp_path, variable):
    variable.assign(float("nan"))
    for step in (1, 2, 3, 4):
        with pytest.raises(checkpoint.NonFiniteError, match="model/a/b"):
            save_and_wait(saver, step)
    assert list(tmp_path.iterdir()) == []


def test_keep_every(tmp_path, variable):
    config = RunConfig(keep=1, keep_every="0.4epochs")
    saver = Saver(tmp_path, config, {"model": {"a/b": variable}}, 10.0)
    for step in range(2, 11, 2):
        save_and_wait(saver, step)
    assert steps(tmp_path) == [4, 8, 10]


def test_keep_every_with_fractional_steps_per_epoch(tmp_path, variable):
    """With 3.25 steps per epoch, saves at 3, 6, ... are not multiples of three epochs (9.75)."""
    saver = Saver(
        tmp_path, RunConfig(keep=1, keep_every="3epochs"), {"model": {"a/b": variable}}, 3.25
    )
    for step in range(3, 40, 3):
        save_and_wait(saver, step)
    assert steps(tmp_path) == [12, 21, 30, 39]


class OtherWorker:
    """Stands in for Workers on the second of two workers; the chief's write succeeded."""

    is_chief = False

    def all_reduce_max(self, *values):
        return [1.0 for _ in values]


def test_only_chief_writes_checkpoint(tmp_path, variable):
    saver = Saver(tmp_path, RunConfig(), {"model": {"a/b": variable}}, 1.0, workers=OtherWorker())
    assert save_and_wait(saver, 3) == 3
    assert steps(tmp_path) == []
    variable.assign(float("inf"))
    with pytest.raises(checkpoint.NonFiniteError):
        saver.save(4)


def test_variables_may_change_during_save(saver, tmp_path, variable, monkeypatch):
    """The values at the call are written, and the next save waits for the previous one."""
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


def test_exit_waits_for_last_save(tmp_path, variable, monkeypatch, caplog):
    save = checkpoint.save

    def slow(*arguments):
        time.sleep(0.2)
        return save(*arguments)

    monkeypatch.setattr(checkpoint, "save", slow)
    with Saver(tmp_path, RunConfig(), {"model": {"a/b": variable}}, 1.0) as saver:
        saver.save(1)
    assert steps(tmp_path) == [1]
    monkeypatch.setattr(checkpoint, "save", raising(FULL))
    with Saver(tmp_path, RunConfig(), {"model": {"a/b": variable}}, 1.0) as saver:
        saver.save(2)
    assert "step 2 could not be saved" in caplog.text


def test_kept_checkpoint_is_verified_again_only_if_it_changes(saver, tmp_path, monkeypatch):
    verify, verified = checkpoint.verify, []

    def recording(folder):
        verified.append(checkpoint.parse_step(folder))
        return verify(folder)

    monkeypatch.setattr(checkpoint, "verify", recording)
    for step in (1, 2):
        save_and_wait(saver, step)
    assert verified == []  # this process read its own files back when it wrote them
    manifest = tmp_path / "step-00000002/manifest.json"
    manifest.write_text(manifest.read_text()[:-9])
    for step in (3, 4):
        save_and_wait(saver, step)
    assert set(verified) == {2}
    assert steps(tmp_path) == [2, 3, 4]  # the corrupt one is neither counted nor removed
