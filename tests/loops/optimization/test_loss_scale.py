"""The loss scale, step by step against a plain Python model of it."""

import pytest
import tensorflow as tf

from loops.optimization.loss_scale import GROWTH_INTERVAL, MAX_SCALE, LossScale


def test_halves_on_a_bad_step_and_counts():
    scale = LossScale(dynamic=True, initial=8.0)
    for finite in (True, False, False, True, False):
        scale.update(tf.constant(finite))
    assert float(scale.scale) == 1.0
    assert int(scale.skipped_steps) == 3
    assert int(scale.skips_in_a_row) == 1
    assert int(scale.good_steps) == 0


def test_doubles_after_the_interval_up_to_the_ceiling():
    scale = LossScale(dynamic=True, initial=MAX_SCALE / 2)
    for expected in (MAX_SCALE, MAX_SCALE):
        scale.good_steps.assign(GROWTH_INTERVAL - 1)
        scale.update(tf.constant(True))
        assert float(scale.scale) == expected
        assert int(scale.good_steps) == 0


@pytest.mark.parametrize(("bad", "hopeless"), [(19, False), (20, True)])
def test_float16_gives_up_after_twenty_in_a_row(bad, hopeless):
    scale = LossScale(dynamic=True, initial=2.0**24)
    for _ in range(bad):
        scale.update(tf.constant(False))
    assert bool(scale.should_stop()) is hopeless


def test_float16_gives_up_below_the_lowest_scale():
    scale = LossScale(dynamic=True, initial=2.0**-4)
    scale.update(tf.constant(False))
    assert not bool(scale.should_stop())
    scale.update(tf.constant(False))
    assert bool(scale.should_stop())


def test_float32_gives_up_at_once_and_never_scales():
    scale = LossScale(dynamic=False)
    scale.update(tf.constant(True))
    assert not bool(scale.should_stop())
    scale.update(tf.constant(False))
    assert bool(scale.should_stop())
    assert float(scale.scale) == 1.0


def restored(dynamic, scale, good_steps, skips_in_a_row=0):
    found = LossScale(dynamic, initial=2.0**15)
    found.scale.assign(scale)
    found.good_steps.assign(good_steps)
    found.skips_in_a_row.assign(skips_in_a_row)
    found.reset_if_precision_changed()
    return [float(found.scale), int(found.good_steps), int(found.skips_in_a_row)]


def test_a_run_that_is_resumed_in_another_precision():
    unscaled = LossScale(dynamic=False)
    unscaled.update(tf.constant(True))
    assert restored(False, 2.0**15, 7, 3) == [1.0, int(unscaled.good_steps), 0]
    assert restored(True, float(unscaled.scale), int(unscaled.good_steps)) == [2.0**15, 0, 0]
    assert restored(True, 1.0, 7, 3) == [1.0, 7, 3]  # float16 that had come down to 1
    assert restored(False, 1.0, int(unscaled.good_steps), 1) == [1.0, int(unscaled.good_steps), 1]
