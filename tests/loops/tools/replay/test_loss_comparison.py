"""Verdicts over two traces of losses, worked out by hand."""

import dataclasses
import json

import pytest

from loops.checkpointing.loss_trace import StepRecord
from loops.tools.replay import loss_comparison

EIGHT = StepRecord(8.0, True, 0)


def steps(*losses):
    return [StepRecord(loss, True, 0) for loss in losses]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({}, 0.0),
        ({"loss_sum": 8.0 - 2**-17}, 2**-20),
        ({"loss_sum": -8.0}, 2.0),
        ({"loss_sum": float("nan")}, float("inf")),
        ({"applied": False}, float("inf")),
        ({"replaced": 1}, float("inf")),
    ],
)
def test_differences_of_a_step(change, difference):
    other = dataclasses.replace(EIGHT, **change)
    assert loss_comparison.relative_difference(EIGHT, other) == difference
    assert loss_comparison.relative_difference(other, EIGHT) == difference


def test_equal():
    facts = loss_comparison.compare(steps(3.0, 2.0), steps(3.0, 2.0, 1.0), "float32")
    assert (facts["verdict"], facts["steps"], facts["bitwise_steps"]) == ("bitwise", 2, 2)
    assert loss_comparison.format_verdict(facts) == "equal bit for bit over 2 steps"


def test_rounding_may_grow_with_every_step():
    then, now = steps(*[1.0] * 5), steps(1.0, 1 - 9e-6, 1 - 99e-6, 1.0, 1 - 9e-3)
    facts = loss_comparison.compare(then, now, "float32")
    assert (facts["verdict"], facts["bitwise_steps"], facts["departs_at"]) == ("rounding", 1, None)
    assert facts["largest_difference"] == pytest.approx(9e-3)
    told = loss_comparison.format_verdict(facts)
    assert told == "equal to rounding over 5 steps, bit for bit up to step 1"


@pytest.mark.parametrize(("dtype", "verdict"), [("float32", "departs"), ("bfloat16", "rounding")])
def test_what_is_rounding_in_half_precision_alone(dtype, verdict):
    facts = loss_comparison.compare(steps(1.0, 1.0), steps(1.0, 1 - 1e-3), dtype)
    assert facts["verdict"] == verdict


def test_never_beyond_the_most():
    assert loss_comparison.rounding_tolerance("float32", 2) == pytest.approx(1e-3)
    assert loss_comparison.rounding_tolerance("float32", 10**6) == 5e-2
    assert loss_comparison.rounding_tolerance("float16", 99) == 5e-2


def test_a_departure_ends_the_comparison():
    now = iter(steps(3.0, 2.00001, 1.5, 7.0))
    facts = loss_comparison.compare(steps(3.0, 2.0, 1.0, 1.0), now, "float32")
    assert (facts["verdict"], facts["departs_at"], facts["bitwise_steps"]) == ("departs", 3, 1)
    assert next(now).loss_sum == 7.0  # was not taken
    told = loss_comparison.format_verdict(facts)
    assert told.startswith("departs at step 3: the loss sums to 1.5, was 1; equal bit for bit up")


def test_a_skipped_step_departs_and_is_still_json():
    skipped = dataclasses.replace(EIGHT, applied=False)
    facts = loss_comparison.compare([EIGHT], [skipped], "float16")
    assert (facts["verdict"], facts["largest_difference"]) == ("departs", None)
    assert "Infinity" not in json.dumps(facts)
