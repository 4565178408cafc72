"""Parses the flags whose text is more than one number: intervals, lists, schedules."""

import itertools
import math

from input_pipeline.arithmetic import ceil_div
from input_pipeline.errors import UsageError
from loops.config.training import LengthConfig

_MAX_INTERVAL = 1e12  # steps or epochs


def parse_interval(text: str, steps_per_epoch: float, flag: str) -> float:
    """Returns the length in steps, at least 1, of an interval such as `500` or `2epochs`.

    An interval in epochs may be a fractional number of steps, see `StepIntervals`.

    Raises:
      UsageError: the text has neither form.
    """
    number, is_epochs = (text[: -len("epochs")], True) if text.endswith("epochs") else (text, False)
    try:
        value = float(number) if is_epochs else int(number)
    except ValueError:
        value = 0
    if not 0 < value < _MAX_INTERVAL:
        raise UsageError(f"{flag}={text}: give steps as in 500, or epochs as in 2epochs")
    return max(1, value * steps_per_epoch) if is_epochs else value


def compute_total_steps(length: LengthConfig, num_examples: int, batch_size: int) -> int:
    """Returns the number of optimizer steps of a whole run, from its length in any unit."""
    if length.steps:
        return length.steps
    examples = length.examples or length.epochs * num_examples
    return max(1, ceil_div(round(examples), batch_size))


def parse_image_size_schedule(text: str, steps_per_epoch: float) -> tuple[tuple[int, int], ...]:
    """Parses `--image_size_schedule`.

    Returns:
      tuple of (first step, side in pixels), ascending; () for an empty text.

    Raises:
      UsageError: the text is not of the form EPOCH:PIXELS,..., or is not ascending from epoch 0.
    """
    if not text:
        return ()
    try:
        parts = [stage.split(":") for stage in text.split(",")]
        stages = [(float(epoch), int(size)) for epoch, size in parts]
    except ValueError:
        stages = []
    epochs = [epoch for epoch, _ in stages]
    in_order = all(a < b < math.inf for a, b in itertools.pairwise(epochs))
    if not stages or epochs[0] != 0 or not in_order:
        raise UsageError(
            f"--image_size_schedule={text}: give EPOCH:PIXELS from epoch 0 on, ascending, as in"
            " 0:128,12:160"
        )
    return tuple((round(epoch * steps_per_epoch), size) for epoch, size in stages)


def parse_milestones(text: str, steps_per_epoch: float) -> tuple[int, ...]:
    """Parses `--milestones`, such as `30,60,80`; returns steps, ascending, () for an empty text.

    Raises:
      UsageError: the text is no list of epochs, or is not ascending.
    """
    try:
        epochs = [float(epoch) for epoch in text.split(",")] if text else []
    except ValueError:
        epochs = [0.0]
    if not all(a < b < _MAX_INTERVAL for a, b in itertools.pairwise([0.0, *epochs])):
        raise UsageError(f"--milestones={text}: give epochs above 0, ascending, as in 30,60,80")
    return tuple(round(epoch * steps_per_epoch) for epoch in epochs)


def parse_profile_window(text: str) -> tuple[int, int] | tuple[()]:
    """Returns (START, STOP) of `--profile`, or () for an empty text."""
    if not text:
        return ()
    try:
        first, last = (int(number) for number in text.split(","))
    except ValueError:
        first = last = 0
    if not 0 <= first < last:
        raise UsageError(f"--profile={text}: give START,STOP in steps, as in 100,110")
    return first, last


def parse_top_k(text: str) -> tuple[int, ...]:
    """Returns the values of k in `--top_k`, sorted."""
    try:
        ks = tuple(sorted({int(k) for k in text.split(",")}))
    except ValueError:
        ks = (0,)
    if ks[0] < 1:
        raise UsageError(f"--top_k={text}: give numbers from 1, separated by commas")
    return ks


def parse_test_sizes(text: str) -> tuple[int, ...]:
    """Returns the image sizes of `--test_size` in the order given; () for an empty text."""
    try:
        sizes = tuple(int(size) for size in text.split(",")) if text else ()
    except ValueError:
        sizes = (0,)
    if any(size < 1 for size in sizes) or len(set(sizes)) < len(sizes):
        raise UsageError(f"--test_size={text}: give distinct sizes in pixels, separated by commas")
    return sizes
