"""The trace of the first losses: every bit of it, cut back on resume, ended by what changes it."""

import json
import types

import pytest
import tensorflow as tf

from input_pipeline.errors import UsageError
from loops.checkpointing import loss_trace, run_folder
from loops.config import validation
from loops.config.config import Config, replace

CONFIG = validation.resolve(Config())
THIRD = 0.3333333432674408  # a float32 number


def record_with(**values):
    facts = {"train": {"images": 23, "fingerprint": "ab"}}
    return run_folder.Record(replace(CONFIG, values), ("disc", "grid"), facts)


class Training:
    """A training whose loss after step n is n times THIRD; counts the calls."""

    def __init__(self, run_dir, done=0, hopeless_at=-1, chief=True, **values):
        self.calls = []
        weights = [tf.Variable([1.0, 2.0], name="w")]
        self.state = types.SimpleNamespace(
            step=tf.Variable(done, dtype=tf.int64),
            strategy=types.SimpleNamespace(num_replicas_in_sync=1),
            compute_dtype="float32",
            model=types.SimpleNamespace(variables=weights),
            loss_scale=types.SimpleNamespace(should_stop=lambda: self.state.step == hopeless_at),
        )
        workers = types.SimpleNamespace(num_workers=1, is_chief=chief)
        self.step = loss_trace.TracedStep(
            self._step, self.state, run_dir, record_with(**values), workers
        )

    def _step(self, iterator, num_steps):
        self.calls.append(int(num_steps))
        losses = 0.0
        for _ in range(int(num_steps)):
            self.state.step.assign_add(1)
            losses += float(self.state.step) * THIRD
        sums = {"steps": float(num_steps), "loss": losses, "applied": float(num_steps)}
        norms = {"gradient_norms": tf.fill([2], float(self.state.step))}
        return {name: tf.constant(v) for name, v in (sums | {"replaced": 0.0}).items()} | norms

    def go(self, steps):
        return self.step(None, tf.constant(steps, tf.int64))


def losses(run_dir):
    _, steps, ended = loss_trace.read(run_dir / loss_trace.FILE_NAME)
    return [step.loss_sum for step in steps], ended


def test_one_step_a_call_for_a_hundred_steps(tmp_path):
    training = Training(tmp_path)
    sums = training.go(3)
    assert training.calls == [1, 1, 1]
    assert (float(sums["steps"]), float(sums["loss"])) == (3.0, pytest.approx(6 * THIRD))
    assert sums["gradient_norms"].numpy().tolist() == [3.0, 3.0]
    training.go(120)
    assert training.calls[3:] == [1] * 97 + [23]
    found, ended = losses(tmp_path)
    expected = [float(tf.constant(n * THIRD)) for n in range(1, 101)]
    assert (found, ended) == (expected, [])


def test_a_hopeless_step_is_the_last(tmp_path):
    training = Training(tmp_path, hopeless_at=2)
    assert float(training.go(5)["steps"]) == 2.0
    assert len(losses(tmp_path)[0]) == 2


def test_a_worker_that_does_not_write(tmp_path):
    training = Training(tmp_path, chief=False)
    training.go(2)
    assert training.calls == [1, 1]
    assert list(tmp_path.iterdir()) == []


def test_resumed(tmp_path):
    Training(tmp_path).go(5)
    path = tmp_path / loss_trace.FILE_NAME
    with open(path, "a") as file:
        file.write('{"step": 6, "su')  # of a killed process
    whole = path.read_text()
    again = Training(tmp_path, done=3, save_every="7")
    assert len(losses(tmp_path)[0]) == 3
    again.go(2)
    assert path.read_text() + '{"step": 6, "su' == whole


def test_ended_by_what_changes_the_losses(tmp_path):
    Training(tmp_path).go(5)
    Training(tmp_path, done=3, weight_decay=0.5, log_every="7").go(2)
    assert losses(tmp_path)[1] == ["--weight_decay=0.5, was 0.0001"]
    assert len(losses(tmp_path)[0]) == 3
    Training(tmp_path, done=3).go(2)  # an end is an end
    assert len(losses(tmp_path)[0]) == 3


def test_resumed_later_than_the_trace(tmp_path):
    Training(tmp_path).go(2)
    Training(tmp_path, done=4).go(2)
    assert len(losses(tmp_path)[0]) == 2


def test_resumed_where_there_is_none(tmp_path):
    training = Training(tmp_path, done=4)
    training.go(2)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_the_trace_alone(tmp_path):
    training = Training(tmp_path)
    training.go(1)
    (tmp_path / loss_trace.FILE_NAME).unlink()
    (tmp_path / loss_trace.FILE_NAME).mkdir()
    assert float(training.go(2)["steps"]) == 2.0


@pytest.mark.parametrize("damage", ["no_step", "text", "empty", "bad_number"])
def test_other_files_are_refused(tmp_path, damage):
    Training(tmp_path).go(3)
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
