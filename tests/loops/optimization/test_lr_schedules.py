"""Learning-rate schedules against Python arithmetic."""

import math

import pytest
import tensorflow as tf

from loops.config import flag_parsers
from loops.config.training import OptimizationConfig
from loops.optimization import lr_schedules


def compute_rate(schedule, step, total=100, warmup=10, peak=2.0, final=0.0):
    config = OptimizationConfig(schedule=schedule)
    step = tf.constant(step, tf.int64)
    return float(lr_schedules.learning_rate(config, step, total, warmup, peak, final))


def test_step_drops_at_the_milestones():
    config = OptimizationConfig(schedule="step")
    steps = flag_parsers.parse_milestones("2,4.5", 10)
    rates = [
        float(lr_schedules.learning_rate(config, tf.constant(step), 90, 5, 2.0, 0.0, steps))
        for step in (19, 20, 44, 45, 89)
    ]
    assert rates == pytest.approx([2, 0.2, 0.2, 0.02, 0.02])


@pytest.mark.parametrize("schedule", ["cosine", "constant", "linear"])
def test_warmup_is_linear_and_reaches_the_peak(schedule):
    assert [compute_rate(schedule, s) for s in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])


def test_cosine_falls_to_zero():
    for step in (10, 11, 37, 55, 99, 100):
        expected = 2.0 * 0.5 * (1 + math.cos(math.pi * (step - 10) / 90))
        assert compute_rate("cosine", step) == pytest.approx(expected, abs=1e-7)


def test_cosine_and_linear_end_at_the_final_rate():
    for step in (0, 9, 10, 11, 37, 99, 100):
        progress = max(0, step - 10) / 90
        warmup = 2.0 * (step + 1) / 10
        cosine = warmup if step < 10 else 0.5 + 1.5 * 0.5 * (1 + math.cos(math.pi * progress))
        assert compute_rate("cosine", step, final=0.5) == pytest.approx(cosine)
        linear = warmup if step < 10 else 2.0 - 1.5 * progress
        assert compute_rate("linear", step, final=0.5) == pytest.approx(linear)
    assert compute_rate("constant", 100, final=0.5) == 2.0
    assert compute_rate("linear", 100) == 0.0


def test_step_drops_at_thirds_and_eight_ninths():
    # 90 epochs of one step. He et al. drop the rate at 30 and 60, Goyal et al. also at 80.
    steps = (0, 29, 30, 59, 60, 79, 80)
    rates = [compute_rate("step", step, total=90, warmup=0, peak=1.0) for step in steps]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001], rel=1e-5)


def test_constant_does_not_change_after_the_warmup():
    assert compute_rate("constant", 10) == compute_rate("constant", 99) == 2.0


def test_rates_of_consecutive_steps_differ_after_a_million_steps():
    steps = (2_000_000, 2_000_001)
    rates = [compute_rate("cosine", s, total=4_000_000, warmup=0, peak=1e6) for s in steps]
    assert rates[0] > rates[1]


@pytest.mark.parametrize(("linear", "expected"), [(True, 0.4), (False, 0.1)])
def test_rates_scale_with_the_batch_size(linear, expected):
    config = OptimizationConfig(linear_scaling=linear)
    assert lr_schedules.scale_by_batch_size(0.1, config, 1024) == pytest.approx(expected)
