"""Steps, image sizes and warm-up of a run against values computed by hand."""

import logging

import pytest

from loops.optimization.train_schedule import TrainSchedule
from tests.command_line import resolve


def make_schedule(*words, examples=1000):
    return TrainSchedule(resolve("--batch_size=64", "--nolinear_scaling", *words), examples)


@pytest.mark.parametrize(
    ("word", "steps"),
    [("--epochs=3", 47), ("--epochs=0.001", 1), ("--steps=5", 5), ("--examples=129", 3)],
)
def test_total_steps(word, steps):
    assert make_schedule(word).total_steps == steps  # 15.625 steps per epoch
    assert make_schedule(word).steps_per_epoch == 15.625


def test_image_sizes_begin_at_whole_steps():
    sizes = make_schedule("--image_size_schedule=0:64,2:96", "--epochs=3").image_sizes
    assert sizes == ((0, 64), (31, 96))


@pytest.mark.parametrize(("epochs", "warmup"), [(4, 16), (1.5, 12)])
def test_warmup_is_at_most_half_of_the_run(epochs, warmup):
    """One epoch of warm-up is 16 steps; a run of 24 steps warms up for 12."""
    words = ("--learning_rate=0.5", "--warmup_epochs=1", "--schedule=constant")
    schedule = make_schedule(f"--epochs={epochs}", *words)
    rates = [float(schedule.learning_rate(step)) for step in range(schedule.total_steps)]
    assert rates[warmup:] == [pytest.approx(0.5)] * (schedule.total_steps - warmup)
    assert rates[:warmup] == [pytest.approx(0.5 * (n + 1) / warmup) for n in range(warmup)]


def test_what_the_run_is_too_short_for_is_logged(caplog):
    sizes = "--image_size_schedule=0:64,2:96"
    make_schedule("--epochs=4", "--warmup_epochs=1", sizes).log()
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]
    make_schedule("--epochs=1.5", "--warmup_epochs=1", sizes).log()
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "--warmup_epochs=1 is 16 steps: cut to 12, half of the run",
        "--image_size_schedule=0:64,2:96: 96 px begin at step 31, but the run ends at step 24",
    ]
    caplog.clear()
    make_schedule("--epochs=4", "--schedule=step", "--milestones=1,3").log()
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]
    make_schedule("--epochs=4", "--schedule=step", "--milestones=1,30").log()
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "--milestones=1,30: the run ends at epoch 4, before the last of them; name earlier ones"
    ]
