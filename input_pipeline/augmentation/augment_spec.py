"""Parses `--augment` and `--randaugment`.

Imports no TensorFlow, so that the command line is parsed quickly.
"""

import dataclasses
import difflib

from input_pipeline.errors import UsageError

# Crop policies: which window of the image is cropped and resized.
WINDOWS = ("standard", "none", "classic")
# Random operations on one image, run on the host.
POLICIES = ("randaugment", "trivialaugment")
# Stages that run on whole batches, on the accelerator.
BATCH_STAGES = ("hsv", "lighting", "erasing")
NAMES = WINDOWS + POLICIES + BATCH_STAGES
# Batch stages that `classic` includes. Its crop function does the mirroring.
_CLASSIC_STAGES = ("hsv", "lighting")


@dataclasses.dataclass(frozen=True)
class AugmentSpec:
    """The parsed value of `--augment`.

    Attributes:
      window: one of WINDOWS.
      policy: one of POLICIES, or "".
      stages: a subset of BATCH_STAGES, in that order.
    """

    window: str
    policy: str
    stages: tuple[str, ...]


def parse(text: str) -> AugmentSpec:
    """Parses the value of `--augment`.

    Args:
      text: comma-separated names. The window is `standard` if none is named.

    Raises:
      UsageError: a name is unknown or repeated, or names exclude each other.
    """
    names = text.split(",")
    for name in names:
        if name not in NAMES:
            raise UsageError(f"--augment={text}: {_unknown_name_hint(name)}")
        if names.count(name) > 1:
            raise UsageError(f"--augment={text}: {name} is given twice")
    for group in (WINDOWS, POLICIES):
        chosen = [name for name in names if name in group]
        if len(chosen) > 1:
            raise UsageError(f"--augment={text}: {' and '.join(chosen)} exclude each other")
    window = next((name for name in names if name in WINDOWS), "standard")
    policy = next((name for name in names if name in POLICIES), "")
    if window == "none" and len(names) > 1:
        raise UsageError(f"--augment={text}: none cannot be combined with other names")
    if policy and window != "standard":
        raise UsageError(f"--augment={text}: {policy} needs the standard crop; remove {window}")
    implied = _CLASSIC_STAGES if window == "classic" else ()
    stages = tuple(stage for stage in BATCH_STAGES if stage in (*names, *implied))
    return AugmentSpec(window, policy, stages)


def parse_randaugment(text: str) -> tuple[int, float]:
    """Parses the value of `--randaugment`, such as `2,9`.

    Returns:
      (number of operations, 1 to 8; magnitude, 0 to 10).

    Raises:
      UsageError: the text has another format, or a number is out of range.
    """
    try:
        first, second = text.split(",")
        layers, magnitude = int(first), float(second)
    except ValueError:
        layers, magnitude = 0, 0.0
    if not (1 <= layers <= 8 and 0 <= magnitude <= 10):
        raise UsageError(
            f"--randaugment={text}: give the number of operations, 1 to 8, and their magnitude, 0"
            " to 10, as in 2,9"
        )
    return layers, magnitude


def _unknown_name_hint(name: str) -> str:
    similar = difflib.get_close_matches(name, NAMES, 3, 0.5)
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"use one of {', '.join(NAMES)}"
    return f"unknown name {name!r}; {hint}"
