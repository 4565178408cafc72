"""What is due after which step, and how long one call of the training step may take."""

import pytest

from loops.config.training import RunConfig
from loops.monitoring.step_intervals import StepIntervals


def make(total=100, stops=()):
    """Logs every 10 steps, evaluates every 2 epochs of 12.5, saves every 30."""
    config = RunConfig(log_every="10", eval_every="2epochs", save_every="30")
    return StepIntervals(config, 12.5, total, stops)


def test_what_is_due():
    pace = make()
    due = {
        name: [step for step in range(1, 101) if pace.is_due(name, step)]
        for name in ("log_every", "eval_every", "save_every")
    }
    assert due["log_every"] == [*range(10, 101, 10)]
    assert due["eval_every"] == [25, 50, 75, 100]
    assert due["save_every"] == [30, 60, 90, 100]


@pytest.mark.parametrize("steps_per_epoch", [62.5, 504.61, 7 / 6, 46.875, 1.0])
@pytest.mark.parametrize("more", [2, 3, 5])
def test_what_comes_every_few_epochs_falls_on_what_comes_every_epoch(steps_per_epoch, more):
    """So that every evaluation has a checkpoint, and `best` means something."""
    total = round(61 * steps_per_epoch)
    config = RunConfig(eval_every=f"{more}epochs", save_every="1epochs", log_every="1000000")
    pace = StepIntervals(config, steps_per_epoch, total)
    due = {
        name: [step for step in range(total) if pace.is_due(name, step)]
        for name in ("eval_every", "save_every")
    }
    assert due["save_every"] == [round(n * steps_per_epoch) for n in range(1, 61)]
    assert due["eval_every"] == due["save_every"][more - 1 :: more]
    ends, done = [], 0
    pace.timed(1.0, 1)
    pace.timed(1e-9, 1)  # time is no limit
    while done < total:
        done += pace.steps_until_due(done)
        ends.append(done)
    assert ends == [*due["save_every"], total]


@pytest.mark.parametrize(
    ("done", "seconds_per_step", "steps"),
    [
        (0, 0.001, 10),  # the next log line
        (21, 0.001, 4),  # the next evaluation
        (0, 0.5, 4),  # two seconds
        (0, 30.0, 1),
        (38, 0.001, 1),  # the size of the images changes
        (96, 0.001, 1),  # the end
    ],
)
def test_a_call_ends_where_something_is_due_or_after_two_seconds(done, seconds_per_step, steps):
    pace = make(total=97, stops=(39,))
    assert pace.steps_until_due(done) == 1  # nothing is known yet
    pace.timed(9.0, 1)
    pace.timed(8 * seconds_per_step, 8)
    assert pace.steps_until_due(done) == steps


def test_what_traces_is_no_measurement():
    pace = make()
    assert not pace.timed(20.0, 1)
    assert pace.timed(1.0, 2) and pace.seconds_per_step == 0.5
    pace.reset_timing()
    assert pace.steps_until_due(0) == 1
    assert not pace.timed(20.0, 1)
