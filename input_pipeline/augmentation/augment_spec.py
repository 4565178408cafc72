"""What `--augment` may say: names, what each stands for, and which go together.

No TensorFlow here: the command line is parsed without it.
"""

import dataclasses
import difflib

from input_pipeline.errors import UsageError

# Which part of the image is taken, and at what size.
WINDOWS = ("standard", "none", "classic")
# Operations of the host on one image.
POLICIES = ("randaugment", "trivialaugment")
# Done to whole batches, on the accelerator.
BATCH_STAGES = ("hsv", "lighting", "erasing")
NAMES = WINDOWS + POLICIES + BATCH_STAGES
# `classic` is a window and these; its mirroring comes with the window.
_CLASSIC_STAGES = ("hsv", "lighting")


@dataclasses.dataclass(frozen=True)
class AugmentSpec:
    """The parts of an augmentation.

    Attributes:
      window: one of WINDOWS.
      policy: one of POLICIES, or "".
      stages: some of BATCH_STAGES, in that order.
    """

    window: str
    policy: str
    stages: tuple


def parse(text):
    """Reads the value of `--augment`.

    Args:
      text: names separated by commas. Without a window among them it is `standard`.

    Returns:
      Augmentation.

    Raises:
      UsageError: an unknown name, one given twice, or names that exclude each other.
    """
    names = text.split(",")
    for name in names:
        if name not in NAMES:
            raise UsageError(f"--augment={text}: {_unknown_name_hint(name)}")
        if names.count(name) > 1:
            raise UsageError(f"--augment={text}: {name} is given twice")
    for kind in (WINDOWS, POLICIES):
        chosen = [name for name in names if name in kind]
        if len(chosen) > 1:
            raise UsageError(f"--augment={text}: {' and '.join(chosen)} exclude each other")
    window = next((name for name in names if name in WINDOWS), "standard")
    policy = next((name for name in names if name in POLICIES), "")
    if window == "none" and len(names) > 1:
        raise UsageError(f"--augment={text}: none stands alone")
    if policy and window != "standard":
        raise UsageError(f"--augment={text}: {policy} comes on top of standard, leave {window} out")
    implied = _CLASSIC_STAGES if window == "classic" else ()
    stages = tuple(stage for stage in BATCH_STAGES if stage in (*names, *implied))
    return AugmentSpec(window, policy, stages)


def parse_randaugment(text):
    """Reads the value of `--randaugment`, as `2,9`: an int from 1 to 8 and a float from 0 to 10.

    Raises:
      UsageError: another form, or out of range.
    """
    try:
        layers, magnitude = text.split(",")
        layers, magnitude = int(layers), float(magnitude)
    except ValueError:
        layers, magnitude = 0, 0.0
    if not (1 <= layers <= 8 and 0 <= magnitude <= 10):
        raise UsageError(
            f"--randaugment={text}: give the number of operations, 1 to 8, and their magnitude, 0"
            " to 10, as in 2,9"
        )
    return layers, magnitude


def _unknown_name_hint(name):
    near = difflib.get_close_matches(name, NAMES, 3, 0.5)
    wanted = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(NAMES)}"
    return f"unknown name {name!r}; {wanted}"
