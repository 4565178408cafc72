"""Loss scale: growth, backoff, when training stops, and resuming in another precision."""

import pytest
import tensorflow as tf

from loops.optimization.loss_scale import GROWTH_INTERVAL, MAX_SCALE, LossScale


def test_loss_scale_halves_on_a_skipped_step_and_counts_it():
    scale = LossScale(dynamic=True, initial=8.0)
    for finite in (True, False, False, True, False):
        scale.update(tf.constant(finite))
    assert float(scale.scale) == 1.0
    assert int(scale.skipped_steps) == 3
    assert int(scale.skips_in_a_row) == 1
    assert int(scale.good_steps) == 0


def test_loss_scale_doubles_after_the_growth_interval_up_to_the_maximum():
    scale = LossScale(dynamic=True, initial=MAX_SCALE / 2)
    for expected in (MAX_SCALE, MAX_SCALE):
        scale.good_steps.assign(GROWTH_INTERVAL - 1)
        scale.update(tf.constant(True))
        assert float(scale.scale) == expected
        assert int(scale.good_steps) == 0


@pytest.mark.parametrize(("skips", "should_stop"), [(19, False), (20, True)])
def test_float16_stops_after_20_consecutive_skips(skips, should_stop):
    scale = LossScale(dynamic=True, initial=2.0**24)
    for _ in range(skips):
        scale.update(tf.constant(False))
    assert bool(scale.should_stop()) is should_stop


def test_float16_stops_below_the_minimum_scale():
    scale = LossScale(dynamic=True, initial=2.0**-4)
    scale.update(tf.constant(False))
    assert not bool(scale.should_stop())
    scale.update(tf.constant(False))
    assert bool(scale.should_stop())


def test_float32_stops_at_the_first_skip_and_never_scales():
    scale = LossScale(dynamic=False)
    scale.update(tf.constant(True))
    assert not bool(scale.should_stop())
    scale.update(tf.constant(False))
    assert bool(scale.should_stop())
    assert float(scale.scale) == 1.0


def restore(dynamic, scale, good_steps, skips_in_a_row=0):
    """Restores values as from a checkpoint; returns them after the check for the precision."""
    loss_scale = LossScale(dynamic, initial=2.0**15)
    loss_scale.scale.assign(scale)
    loss_scale.good_steps.assign(good_steps)
    loss_scale.skips_in_a_row.assign(skips_in_a_row)
    loss_scale.reset_if_precision_changed()
    values = (loss_scale.scale, loss_scale.good_steps, loss_scale.skips_in_a_row)
    return [float(value) for value in values]


def test_loss_scale_is_reset_when_a_run_is_resumed_in_another_precision():
    unscaled = LossScale(dynamic=False)
    unscaled.update(tf.constant(True))
    assert restore(False, 2.0**15, 7, 3) == [1.0, int(unscaled.good_steps), 0]
    assert restore(True, float(unscaled.scale), int(unscaled.good_steps)) == [2.0**15, 0, 0]
    assert restore(True, 1.0, 7, 3) == [1.0, 7, 3]  # a float16 run whose scale was 1
    assert restore(False, 1.0, int(unscaled.good_steps), 1) == [1.0, int(unscaled.good_steps), 1]
