"""Comparison of two loss traces, with results computed by hand."""

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
def test_relative_difference_of_a_step(change, difference):
    other = dataclasses.replace(EIGHT, **change)
    assert loss_comparison.relative_difference(EIGHT, other) == difference
    assert loss_comparison.relative_difference(other, EIGHT) == difference


def test_bit_identical_traces():
    results = loss_comparison.compare(steps(3.0, 2.0), steps(3.0, 2.0, 1.0), "float32")
    assert (results["verdict"], results["steps"], results["bitwise_steps"]) == ("bitwise", 2, 2)
    assert loss_comparison.format_verdict(results) == "bit-identical over 2 steps"


def test_rounding_tolerance_grows_with_every_step():
    old, new = steps(*[1.0] * 5), steps(1.0, 1 - 9e-6, 1 - 99e-6, 1.0, 1 - 9e-3)
    results = loss_comparison.compare(old, new, "float32")
    assert (results["verdict"], results["departs_at"]) == ("rounding", None)
    assert results["bitwise_steps"] == 1
    assert results["largest_difference"] == pytest.approx(9e-3)
    verdict = loss_comparison.format_verdict(results)
    assert verdict == "equal up to rounding over 5 steps, bit-identical up to step 1"


@pytest.mark.parametrize(("dtype", "verdict"), [("float32", "departs"), ("bfloat16", "rounding")])
def test_half_precision_has_a_larger_rounding_tolerance(dtype, verdict):
    results = loss_comparison.compare(steps(1.0, 1.0), steps(1.0, 1 - 1e-3), dtype)
    assert results["verdict"] == verdict


def test_rounding_tolerance_is_limited():
    assert loss_comparison.rounding_tolerance("float32", 2) == pytest.approx(1e-3)
    assert loss_comparison.rounding_tolerance("float32", 10**6) == 5e-2
    assert loss_comparison.rounding_tolerance("float16", 99) == 5e-2


def test_comparison_stops_at_the_first_difference():
    new = iter(steps(3.0, 2.00001, 1.5, 7.0))
    results = loss_comparison.compare(steps(3.0, 2.0, 1.0, 1.0), new, "float32")
    assert (results["verdict"], results["departs_at"]) == ("departs", 3)
    assert results["bitwise_steps"] == 1
    assert next(new).loss_sum == 7.0  # was not consumed
    verdict = loss_comparison.format_verdict(results)
    assert verdict == (
        "differs at step 3: the loss sums to 1.5, was 1; bit-identical up to step 1, then equal up"
        " to rounding"
    )


def test_skipped_step_differs_and_is_valid_json():
    skipped = dataclasses.replace(EIGHT, applied=False)
    results = loss_comparison.compare([EIGHT], [skipped], "float16")
    assert (results["verdict"], results["largest_difference"]) == ("departs", None)
    assert "Infinity" not in json.dumps(results)
