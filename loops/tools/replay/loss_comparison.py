"""Compares the losses of two trainings: bit-identical, equal up to rounding, or different."""

import math
from collections.abc import Iterable
from typing import Any

from input_pipeline.text import pluralize
from loops.checkpointing.loss_trace import StepRecord

# Relative difference of the loss that may be rounding in the first step that is not bit-identical,
# because sums are computed in another order. A larger one has another cause, such as another image.
_FIRST_TOLERANCE = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 4e-3}
# Training amplifies the difference with every step. Measured with ResNetV2-18, one thread against
# two: 9e-4 in the third step in float32, 4e-2 in the fourteenth in bfloat16.
_TOLERANCE_GROWTH = 10.0
_MAX_TOLERANCE = 5e-2


def compare(recorded: Iterable[StepRecord], steps: Iterable[StepRecord], dtype: str) -> dict:
    """Compares steps with a recorded trace, up to the first step that differs.

    Args:
      recorded: records from the first step on.
      steps: records to compare. No more of them are consumed than needed.
      dtype: compute type of the model, "float32", "float16" or "bfloat16".

    Returns:
      dict:
        `verdict`: "bitwise", "rounding" or "departs".
        `steps`: number of compared steps.
        `bitwise_steps`: number of bit-identical steps before the first other one.
        `departs_at`: the step that differs beyond rounding, or None.
        `largest_difference`: relative to the loss; None if only one side skipped a step.
        `loss_sum`: if a step differs, its loss in the trace (`was`) and now (`here`).
    """
    results: dict[str, Any] = {"verdict": "bitwise", "steps": 0, "bitwise_steps": 0}
    results |= {"departs_at": None, "largest_difference": 0.0}
    steps = iter(steps)
    for number, old in enumerate(recorded, 1):
        new = next(steps)
        results["steps"] = number
        difference = relative_difference(old, new)
        largest = max(results["largest_difference"], difference)
        results["largest_difference"] = largest if math.isfinite(largest) else None
        if old == new and results["bitwise_steps"] == number - 1:
            results["bitwise_steps"] = number
        elif difference > rounding_tolerance(dtype, number - 1 - results["bitwise_steps"]):
            losses = {"was": old.loss_sum, "here": new.loss_sum}
            return {**results, "verdict": "departs", "departs_at": number, "loss_sum": losses}
        else:
            results["verdict"] = "rounding"
    return results


def rounding_tolerance(dtype: str, steps: int) -> float:
    """Returns the largest relative difference that may be rounding.

    Args:
      dtype: compute type of the model.
      steps: number of steps since the first one that is not bit-identical.
    """
    return min(_MAX_TOLERANCE, _FIRST_TOLERANCE[dtype] * _TOLERANCE_GROWTH ** min(steps, 9))


def relative_difference(old: StepRecord, new: StepRecord) -> float:
    """Returns the relative difference of the losses of two steps.

    It is infinite if only one step was skipped, or if other images were replaced.
    """
    if (old.applied, old.replaced) != (new.applied, new.replaced):
        return math.inf
    if old.loss_sum == new.loss_sum:
        return 0.0
    scale = max(abs(old.loss_sum), abs(new.loss_sum))
    difference = abs(old.loss_sum - new.loss_sum) / scale
    return difference if math.isfinite(difference) else math.inf


def format_verdict(results: dict) -> str:
    """Formats the results of `compare` as one line."""
    num_steps, bitwise_steps = pluralize(results["steps"], "step"), results["bitwise_steps"]
    if results["verdict"] == "bitwise":
        return f"bit-identical over {num_steps}"
    if results["verdict"] == "rounding":
        return f"equal up to rounding over {num_steps}, bit-identical up to step {bitwise_steps}"
    was, here = results["loss_sum"]["was"], results["loss_sum"]["here"]
    step = results["departs_at"]
    text = f"differs at step {step}: the loss sums to {here:.7g}, was {was:.7g}"
    if bitwise_steps == step - 1:
        return f"{text}; bit-identical before"
    return f"{text}; bit-identical up to step {bitwise_steps}, then equal up to rounding"
