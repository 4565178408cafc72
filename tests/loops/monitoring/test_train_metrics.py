"""Means and rates between two log lines, against values computed by hand."""

import pytest

from loops.monitoring.train_metrics import TrainMetrics


def make_sums(steps, loss, top1=0.0, top5=0.0, data_wait=0.0, applied=None):
    """Returns results of the step; losses and hits are sums over images."""
    applied = steps if applied is None else applied
    return {
        "steps": float(steps),
        "applied": float(applied),
        "loss": 2 * loss,  # an objective that is not the cross-entropy
        "cross_entropy": loss,
        "top1": top1,
        "top5": top5,
        "replaced": 0.0,
        "data_wait": data_wait,
    }


def test_means_and_rates():
    metrics = TrainMetrics(batch_size=10)
    metrics.add(
        make_sums(1, loss=30.0, top1=2.0, top5=6.0, data_wait=5.0), seconds=20.0, timed=False
    )
    metrics.add(make_sums(2, loss=30.0, top1=7.0, top5=9.0, data_wait=0.5), seconds=4.0, timed=True)
    assert metrics.values(l2=0.25) == pytest.approx(
        {
            "loss/cross_entropy": 2.0,  # 60 over 30 images
            "loss/total": 2.25,
            "accuracy/top1": 0.3,
            "accuracy/top5": 0.5,
            # Both exclude the first call, which traced.
            "speed/images_per_second": 5.0,
            "speed/data_wait": 0.125,
        }
    )
    assert metrics.note() == "loss 2.000"


def test_values_that_an_own_step_measures():
    metrics = TrainMetrics(batch_size=10)
    for value in (30.0, 10.0):
        metrics.add({**make_sums(1, loss=0.0), "measured/width": value}, seconds=1.0, timed=True)
    assert metrics.values(l2=0.0)["measured/width"] == 2.0


def test_an_own_loss_is_the_objective():
    metrics = TrainMetrics(batch_size=10, has_own_loss=True)
    metrics.add(make_sums(1, loss=30.0), seconds=1.0, timed=True)
    values = metrics.values(l2=0.25)
    assert values["loss/total"] == 3.25
    assert values["loss/objective"] == 6.25


def test_skipped_steps_count_only_for_speed():
    metrics = TrainMetrics(batch_size=10)
    metrics.add(make_sums(4, loss=20.0, top1=5.0, applied=1), seconds=8.0, timed=True)
    values = metrics.values(l2=0.0)
    assert values["loss/cross_entropy"] == 2.0
    assert values["accuracy/top1"] == 0.5
    assert values["speed/images_per_second"] == 5.0


def test_unknown_values_are_omitted():
    metrics = TrainMetrics(batch_size=10)
    metrics.add(make_sums(1, loss=0.0, applied=0), seconds=3.0, timed=False)
    assert metrics.values(l2=0.0) == {}
    assert metrics.note() == ""


def test_clear():
    metrics = TrainMetrics(batch_size=10)
    metrics.add(make_sums(1, loss=99.0, data_wait=1.0), seconds=1.0, timed=True)
    metrics.clear()
    metrics.add(make_sums(1, loss=10.0), seconds=2.0, timed=True)
    values = metrics.values(l2=0.0)
    assert values["loss/total"] == 1.0
    assert values["speed/images_per_second"] == 5.0
    assert values["speed/data_wait"] == 0.0


def test_data_wait_is_not_negative():
    metrics = TrainMetrics(batch_size=10)
    metrics.add(make_sums(1, loss=10.0, data_wait=-3600.0), seconds=2.0, timed=True)
    assert metrics.values(l2=0.0)["speed/data_wait"] == 0.0
