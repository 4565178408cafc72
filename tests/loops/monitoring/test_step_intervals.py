"""Steps at which events are due, and the number of steps per call of the training step."""

import pytest

from loops.config.training import RunConfig
from loops.monitoring.step_intervals import StepIntervals


def make_intervals(total=100, stops=()):
    """Logs every 10 steps, evaluates every 2 epochs of 12.5 steps, saves every 30 steps."""
    config = RunConfig(log_every="10", eval_every="2epochs", save_every="30")
    return StepIntervals(config, 12.5, total, stops)


def test_is_due():
    intervals = make_intervals()
    due = {
        name: [step for step in range(1, 101) if intervals.is_due(name, step)]
        for name in ("log_every", "eval_every", "save_every")
    }
    assert due["log_every"] == [*range(10, 101, 10)]
    assert due["eval_every"] == [25, 50, 75, 100]
    assert due["save_every"] == [30, 60, 90, 100]


@pytest.mark.parametrize("steps_per_epoch", [62.5, 504.61, 7 / 6, 46.875, 1.0])
@pytest.mark.parametrize("more", [2, 3, 5])
def test_intervals_in_epochs_coincide(steps_per_epoch, more):
    """Otherwise some evaluations would have no checkpoint, and `best` would ignore them."""
    total = round(61 * steps_per_epoch)
    config = RunConfig(eval_every=f"{more}epochs", save_every="1epochs", log_every="1000000")
    intervals = StepIntervals(config, steps_per_epoch, total)
    due = {
        name: [step for step in range(total) if intervals.is_due(name, step)]
        for name in ("eval_every", "save_every")
    }
    assert due["save_every"] == [round(n * steps_per_epoch) for n in range(1, 61)]
    assert due["eval_every"] == due["save_every"][more - 1 :: more]
    ends, step = [], 0
    intervals.record_call(1.0, 1)
    intervals.record_call(1e-9, 1)  # no limit by time
    while step < total:
        step += intervals.steps_until_due(step)
        ends.append(step)
    assert ends == [*due["save_every"], total]


def test_last_epoch_is_evaluated_once():
    """Two epochs of 31.25 steps end with step 63; an evaluation after step 62 would be wasted."""
    config = RunConfig(eval_every="1epochs", save_every="0.5epochs", log_every="1")
    intervals = StepIntervals(config, 31.25, 63)
    due = {
        name: [step for step in range(1, 64) if intervals.is_due(name, step)]
        for name in ("eval_every", "save_every", "log_every")
    }
    assert due["eval_every"] == [31, 63]
    assert due["save_every"] == [16, 31, 47, 63]
    assert due["log_every"] == list(range(1, 64))


@pytest.mark.parametrize(
    ("step", "seconds_per_step", "expected"),
    [
        (0, 0.001, 10),  # the next log line
        (21, 0.001, 4),  # the next evaluation
        (0, 0.5, 4),  # two seconds
        (0, 30.0, 1),
        (38, 0.001, 1),  # the image size changes
        (96, 0.001, 1),  # the end
    ],
)
def test_call_ends_at_next_event_or_after_two_seconds(step, seconds_per_step, expected):
    intervals = make_intervals(total=97, stops=(39,))
    assert intervals.steps_until_due(step) == 1  # the step time is unknown
    intervals.record_call(9.0, 1)
    intervals.record_call(8 * seconds_per_step, 8)
    assert intervals.steps_until_due(step) == expected


def test_call_that_traces_is_not_a_measurement():
    intervals = make_intervals()
    assert not intervals.record_call(20.0, 1)
    assert intervals.record_call(1.0, 2) and intervals.seconds_per_step == 0.5
    intervals.reset_timing()
    assert intervals.steps_until_due(0) == 1
    assert not intervals.record_call(20.0, 1)
