"""The trace of the first losses: every bit of it, cut back on resume, ended by what changes it."""

import json
import types

import pytest
import tensorflow as tf

from input_pipeline.errors import UsageError
from loops.checkpointing import loss_trace, run_folder
from loops.config import resolve
from loops.config.config import Config

CONFIG = resolve.resolve(Config())
THIRD = 0.3333333432674408  # a float32 number


def record_with(**values):
    facts = {"train": {"images": 23, "fingerprint": "ab"}}
    return run_folder.Record(CONFIG.replace(**values), ("disc", "grid"), facts)


class Training:
    """A training whose loss after step n is n times THIRD."""

    def __init__(self, run_dir, step=0, chief=True, **values):
        weights = [tf.Variable([1.0, 2.0], name="w")]
        self.state = types.SimpleNamespace(
            step=tf.Variable(step, dtype=tf.int64),
            strategy=types.SimpleNamespace(num_replicas_in_sync=1),
            compute_dtype="float32",
            model=types.SimpleNamespace(variables=weights),
        )
        workers = types.SimpleNamespace(num_workers=1, is_chief=chief)
        self.trace = loss_trace.LossTrace(self.state, run_dir, record_with(**values), workers)

    def train(self, steps):
        """Records as many steps, as the training loop does."""
        for _ in range(steps):
            self.state.step.assign_add(1)
            step = int(self.state.step)
            loss = float(tf.constant(step * THIRD))
            self.trace.record(step, {"loss": loss, "applied": 1.0, "replaced": 0.0})


def losses(run_dir):
    _, steps, ended = loss_trace.read(run_dir / loss_trace.FILE_NAME)
    return [step.loss_sum for step in steps], ended


def test_trace_has_the_exact_loss_of_a_hundred_steps(tmp_path):
    training = Training(tmp_path)
    assert training.trace.num_steps == 100
    training.train(123)
    found, ended = losses(tmp_path)
    expected = [float(tf.constant(n * THIRD)) for n in range(1, 101)]
    assert (found, ended) == (expected, [])


def test_a_worker_that_does_not_write(tmp_path):
    training = Training(tmp_path, chief=False)
    training.train(2)
    assert training.trace.num_steps == 100  # all workers run these steps one at a time
    assert list(tmp_path.iterdir()) == []


def test_resumed(tmp_path):
    Training(tmp_path).train(5)
    path = tmp_path / loss_trace.FILE_NAME
    with open(path, "a") as file:
        file.write('{"step": 6, "su')  # of a killed process
    whole = path.read_text()
    again = Training(tmp_path, step=3, save_every="7")
    assert len(losses(tmp_path)[0]) == 3
    again.train(2)
    assert path.read_text() + '{"step": 6, "su' == whole


def test_ended_by_what_changes_the_losses(tmp_path):
    Training(tmp_path).train(5)
    Training(tmp_path, step=3, weight_decay=0.5, log_every="7").train(2)
    assert losses(tmp_path)[1] == ["--weight_decay=0.5, was 0.0001"]
    assert len(losses(tmp_path)[0]) == 3
    Training(tmp_path, step=3).train(2)  # an end is an end
    assert len(losses(tmp_path)[0]) == 3


def test_resumed_later_than_the_trace(tmp_path):
    Training(tmp_path).train(2)
    Training(tmp_path, step=4).train(2)
    assert len(losses(tmp_path)[0]) == 2


def test_resumed_where_there_is_none(tmp_path):
    training = Training(tmp_path, step=4)
    training.train(2)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_the_trace_alone(tmp_path):
    training = Training(tmp_path)
    training.train(1)
    (tmp_path / loss_trace.FILE_NAME).unlink()
    (tmp_path / loss_trace.FILE_NAME).mkdir()
    training.train(2)


@pytest.mark.parametrize("damage", ["no_step", "text", "empty", "bad_number"])
def test_other_files_are_refused(tmp_path, damage):
    Training(tmp_path).train(3)
    path = tmp_path / loss_trace.FILE_NAME
    first, one, two, three = path.read_text().splitlines()
    bad = json.dumps({**json.loads(two), "sum": "loss"})
    texts = {
        "no_step": [first, one, three],
        "text": ["hello"],
        "empty": [],
        "bad_number": [first, one, bad],
    }
    path.write_text("".join(f"{line}\n" for line in texts[damage]))
    with pytest.raises(UsageError, match=r"loss_trace\.jsonl: not the trace of a run"):
        loss_trace.read(path)
