"""Where the losses of two trainings part: bit for bit, to rounding, or beyond it."""

import math

from input_pipeline.text import pluralize

# What passes for rounding in the first step that is not equal bit for bit, as a share of the loss:
# sums in another order. Beyond it something else differs, an image for example.
_FIRST_TOLERANCE = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 4e-3}
# Training makes more of it with every step. ResNetV2-18 in float32 on one thread, against two:
# 9e-4 in the third step; in bfloat16 4e-2 in the fourteenth.
_TOLERANCE_GROWTH = 10.0
_MAX_TOLERANCE = 5e-2


def compare(recorded, steps, dtype):
    """Compares steps with those of a trace, up to the first that departs.

    Args:
      recorded: list of `loss_trace.StepRecord`, from the first step on.
      steps: iterable of the same; no more of it is taken than needed.
      dtype: that the net computes in: "float32", "float16" or "bfloat16".

    Returns:
      dict: `verdict` ("bitwise", "rounding" or "departs"), `steps` compared, `bitwise_steps` equal
      to the last bit before the first that is not, `departs_at` (a step, or None),
      `largest_difference` (as a share of the loss, None where a step is skipped by one side
      alone), and `loss_sum` of the departing step, `was` and `here`.
    """
    facts = {"verdict": "bitwise", "steps": 0, "bitwise_steps": 0, "departs_at": None}
    facts["largest_difference"] = 0.0
    steps = iter(steps)
    for number, then in enumerate(recorded, 1):
        now = next(steps)
        facts["steps"] = number
        difference = relative_difference(then, now)
        largest = max(facts["largest_difference"], difference)
        facts["largest_difference"] = largest if math.isfinite(largest) else None
        if then == now and facts["bitwise_steps"] == number - 1:
            facts["bitwise_steps"] = number
        elif difference > rounding_tolerance(dtype, number - 1 - facts["bitwise_steps"]):
            losses = {"was": then.loss_sum, "here": now.loss_sum}
            return {**facts, "verdict": "departs", "departs_at": number, "loss_sum": losses}
        else:
            facts["verdict"] = "rounding"
    return facts


def rounding_tolerance(dtype, steps):
    """Largest difference that may be rounding, so many steps after the first that has any."""
    return min(_MAX_TOLERANCE, _FIRST_TOLERANCE[dtype] * _TOLERANCE_GROWTH ** min(steps, 9))


def relative_difference(then, now):
    """Of two Steps' losses; infinite where one was skipped or had images replaced alone."""
    if (then.applied, then.replaced) != (now.applied, now.replaced):
        return math.inf
    if then.loss_sum == now.loss_sum:
        return 0.0
    scale = max(abs(then.loss_sum), abs(now.loss_sum))
    difference = abs(then.loss_sum - now.loss_sum) / scale
    return difference if math.isfinite(difference) else math.inf


def format_verdict(facts):
    """What `compare` found, in a line."""
    steps, same = facts["steps"], facts["bitwise_steps"]
    if facts["verdict"] == "bitwise":
        return f"equal bit for bit over {pluralize(steps, 'step')}"
    if facts["verdict"] == "rounding":
        over = pluralize(steps, "step")
        return f"equal to rounding over {over}, bit for bit up to step {same}"
    then, now = facts["loss_sum"]["was"], facts["loss_sum"]["here"]
    text = f"departs at step {facts['departs_at']}: the loss sums to {now:.7g}, was {then:.7g}"
    if same == facts["departs_at"] - 1:
        return f"{text}; equal bit for bit before"
    return f"{text}; equal bit for bit up to step {same}, then to rounding"
