"""What is said of the steps between two log lines, by hand."""

import pytest

from loops.monitoring.train_metrics import TrainMetrics


def sums(steps, loss, top1=0.0, top5=0.0, data_wait=0.0, applied=None):
    """What a call of the step returns: losses and hits are summed over images."""
    applied = steps if applied is None else applied
    return {
        "steps": float(steps),
        "applied": float(applied),
        "loss": loss,
        "top1": top1,
        "top5": top5,
        "replaced": 0.0,
        "data_wait": data_wait,
    }


def test_means_and_rates():
    window = TrainMetrics(batch_size=10)
    window.add(sums(1, loss=30.0, top1=2.0, top5=6.0, data_wait=5.0), seconds=20.0, timed=False)
    window.add(sums(2, loss=30.0, top1=7.0, top5=9.0, data_wait=0.5), seconds=4.0, timed=True)
    assert window.values(l2=0.25) == pytest.approx(
        {
            "loss/cross_entropy": 2.0,  # 60 over 30 images
            "loss/total": 2.25,
            "accuracy/top1": 0.3,
            "accuracy/top5": 0.5,
            # The first call, which traced, is left out of both.
            "speed/images_per_second": 5.0,
            "speed/data_wait": 0.125,
        }
    )
    assert window.note() == "loss 2.000"


def test_skipped_steps_count_for_the_speed_only():
    window = TrainMetrics(batch_size=10)
    window.add(sums(4, loss=20.0, top1=5.0, applied=1), seconds=8.0, timed=True)
    values = window.values(l2=0.0)
    assert values["loss/cross_entropy"] == 2.0
    assert values["accuracy/top1"] == 0.5
    assert values["speed/images_per_second"] == 5.0


def test_what_is_not_known_is_left_out():
    window = TrainMetrics(batch_size=10)
    window.add(sums(1, loss=0.0, applied=0), seconds=3.0, timed=False)
    assert window.values(l2=0.0) == {}
    assert window.note() == ""


def test_clear():
    window = TrainMetrics(batch_size=10)
    window.add(sums(1, loss=99.0, data_wait=1.0), seconds=1.0, timed=True)
    window.clear()
    window.add(sums(1, loss=10.0), seconds=2.0, timed=True)
    values = window.values(l2=0.0)
    assert values["loss/total"] == 1.0
    assert values["speed/images_per_second"] == 5.0
    assert values["speed/data_wait"] == 0.0


def test_a_clock_that_is_set_back_is_no_negative_wait():
    window = TrainMetrics(batch_size=10)
    window.add(sums(1, loss=10.0, data_wait=-3600.0), seconds=2.0, timed=True)
    assert window.values(l2=0.0)["speed/data_wait"] == 0.0
