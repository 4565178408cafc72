"""The augmentations by name, with their arguments; parses `--augment`.

`AUGMENTATIONS` is the one table: help, error messages, checks and the table in docs/augmentation.md
follow from it. Imports no TensorFlow, so that the command line is parsed quickly.
"""

import dataclasses
import difflib
import inspect
import math
import re
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal, Protocol

from input_pipeline import user_code
from input_pipeline.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Argument:
    """One number in the parentheses after a name.

    Attributes:
      default: its value if it is not given; None if `flag` always gives one.
      minimum, maximum: inclusive bounds.
      above: exclusive lower bound; None for no bound.
      is_whole: only whole numbers are valid. None: a number is whole if it is written so.
      flag: the flag that sets it, too.
    """

    default: float | None
    minimum: float = 0.0
    maximum: float = 1.0
    above: float | None = None
    is_whole: bool | None = False
    flag: str = ""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What `--augment` can name.

    Attributes:
      runs: window: decodes a part of the image. window argument: sets what a window does. image:
        changes one image on the host. batch: changes a batch on the accelerator, by the function
        of this name in `batch_augment.STAGES`. pairs: mixes pairs of images there.
      summary: what it does.
      arguments: by name, in the order in which they may be given without names.
    """

    runs: Literal["window", "window argument", "image", "batch", "pairs"]
    summary: str
    arguments: dict[str, Argument] = dataclasses.field(default_factory=dict)


def _strengths(**defaults: float) -> dict[str, Argument]:
    """Returns the arguments for the effect of each operation; see `rand_augment.Ranges`."""
    bounds = {"rotation": 360.0, "lost_bits": 7.0, "fill": 255.0}
    return {
        name: Argument(
            default=default, maximum=bounds.get(name, 1.0), is_whole=name in ("lost_bits", "fill")
        )
        for name, default in defaults.items()
    }


FunctionRuns = Literal["image", "batch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FunctionFacts:
    """What the decorator says about a function in a user's file.

    Attributes:
      runs: image: changes one image on the host, after the program's stages on images. batch:
        changes a batch on the accelerator, after hsv, lighting and grayscale.
    """

    runs: FunctionRuns


# The functions in users' files; `augmentation.augmentations` has the decorators.
FUNCTIONS = user_code.Registry(
    "augmentations.image or @augmentations.batch", FunctionFacts, functions={}
)
_PROBABILITY = Argument(default=0.5)
_MANY = 1e6

# In the order in which they are applied.
AUGMENTATIONS = {
    "standard": Augmentation("window", "crop and flip"),
    "none": Augmentation("window", "center crop of evaluation"),
    "classic": Augmentation(
        "window",
        "stretch of the long side, short side in pixels for crops of 224 (in proportion at other "
        "sizes), crop, flip; then hsv and lighting",
        {
            "min_stretch": Argument(default=0.8, minimum=0.1, maximum=10),
            "max_stretch": Argument(default=1.25, minimum=0.1, maximum=10),
            "min_side": Argument(default=256, minimum=224, maximum=4096),
            "max_side": Argument(default=384, minimum=224, maximum=4096),
        },
    ),
    "crop": Augmentation(
        "window argument",
        "random resized crop of standard: part of the image's area, ratio of width to height",
        {
            "min_area": Argument(default=None, flag="min_crop_area"),
            "max_area": Argument(default=1.0),
            "min_aspect": Argument(default=3 / 4, minimum=0.01, maximum=100),
            "max_aspect": Argument(default=4 / 3, minimum=0.01, maximum=100),
        },
    ),
    "flip": Augmentation(
        "window argument",
        "horizontal flip of standard and classic",
        {"probability": _PROBABILITY},
    ),
    "vflip": Augmentation("image", "vertical flip", {"probability": _PROBABILITY}),
    "randaugment": Augmentation(
        "image",
        "RandAugment (Cubuk et al. 2020): operations of one magnitude, 0 to 10, each applied with "
        "a probability; magnitude_std varies the magnitude, the rest is the effect at 10",
        {
            "operations": Argument(
                default=2, minimum=1, maximum=8, is_whole=True, flag="randaugment"
            ),
            "magnitude": Argument(default=9, maximum=10, flag="randaugment"),
            "magnitude_std": Argument(default=0.0, maximum=10),
            "probability": Argument(default=1.0),
            **_strengths(
                shear=0.3, translation=0.45, rotation=30, enhancement=0.9, lost_bits=4, fill=128
            ),
        },
    ),
    "trivialaugment": Augmentation(
        "image",
        "TrivialAugment (Müller and Hutter 2021): one operation of random strength",
        {
            "strengths": Argument(default=31, minimum=2, maximum=1001, is_whole=True),
            **_strengths(
                shear=0.99, translation=1 / 7, rotation=135, enhancement=0.99, lost_bits=6, fill=128
            ),
        },
    ),
    "hsv": Augmentation(
        "batch",
        "color jitter: hue up to ± degrees, factors of saturation and value",
        {
            "hue": Argument(default=36, maximum=120),
            "min_factor": Argument(default=0.6, maximum=10),
            "max_factor": Argument(default=1.4, maximum=10),
        },
    ),
    "lighting": Augmentation(
        "batch",
        "noise along the principal components of color (Krizhevsky et al. 2012)",
        {"std": Argument(default=0.1, maximum=10)},
    ),
    "grayscale": Augmentation(
        "batch", "all colors become gray", {"probability": Argument(default=0.2)}
    ),
    "erasing": Augmentation(
        "batch",
        "random erasing (Zhong et al. 2020): a rectangle becomes the mean color",
        {
            "probability": Argument(default=0.25),
            "min_area": Argument(default=0.02),
            "max_area": Argument(default=1 / 3),
            "max_aspect": Argument(default=1 / 0.3, minimum=1, maximum=100),
        },
    ),
    "mixup": Augmentation(
        "pairs",
        "mixup (Zhang et al. 2018): share of Beta(alpha, alpha)",
        {"alpha": Argument(default=0.2, above=0, maximum=_MANY, flag="mixup")},
    ),
    "cutmix": Augmentation(
        "pairs",
        "CutMix (Yun et al. 2019): share of Beta(alpha, alpha); with mixup, each takes half of the "
        "pairs",
        {"alpha": Argument(default=1.0, above=0, maximum=_MANY, flag="cutmix")},
    ),
}


def names(*runs: str) -> tuple[str, ...]:
    """Returns the names whose augmentations run there, see `Augmentation.runs`."""
    return tuple(name for name, augmentation in AUGMENTATIONS.items() if augmentation.runs in runs)


def defaults(name: str) -> dict[str, float]:
    """Returns the default of each argument of an augmentation; those of flags are left out."""
    return {
        key: argument.default
        for key, argument in AUGMENTATIONS[name].arguments.items()
        if argument.default is not None
    }


WINDOWS = names("window")
POLICIES = ("randaugment", "trivialaugment")
# Batch stages that `classic` includes.
_CLASSIC_STAGES = ("hsv", "lighting")


class AugmentFlags(Protocol):
    """The fields of `DataConfig` that say how images are augmented."""

    @property
    def augment(self) -> str: ...
    @property
    def randaugment(self) -> str: ...
    @property
    def mixup(self) -> float: ...
    @property
    def cutmix(self) -> float: ...
    @property
    def min_crop_area(self) -> float | None: ...


@dataclasses.dataclass(frozen=True)
class AugmentSpec:
    """Which augmentations are on.

    Attributes:
      window: one of WINDOWS.
      arguments: all arguments of each augmentation that is on, by its name, in the order of
        application.
      functions: the words in the parentheses of each function in a user's file, by its reference.
    """

    window: str
    arguments: dict[str, dict[str, float]]
    functions: dict[str, list[str]]

    def __contains__(self, name: str) -> bool:
        return name in self.arguments

    def __getitem__(self, name: str) -> dict[str, float]:
        return self.arguments[name]

    def load_functions(
        self, *runs: FunctionRuns
    ) -> dict[str, tuple[Callable[..., Any], dict[str, float]]]:
        """Loads the functions in users' files that run there.

        Returns:
          each function and its given arguments, by reference, in the order of application.

        Raises:
          UsageError: a function cannot be loaded, or its arguments are wrong.
        """
        loaded = {}
        for name, words in self.functions.items():
            entry = FUNCTIONS.get(name)
            given = _bind(f"--augment={user_code.display_name(name)}", entry.function, words)
            if entry.facts.runs in runs:
                loaded[name] = entry.function, given
        return loaded


def read(config: AugmentFlags) -> AugmentSpec:
    """Returns the augmentations that `--augment` and the flags for single arguments ask for.

    An argument that `--augment` gives takes precedence. See `check_flags` for typed config.

    Raises:
      UsageError: see `parse` and `parse_randaugment`.
    """
    given = parse(config.augment)
    operations, magnitude = parse_randaugment(config.randaugment)
    for name, alpha in (("mixup", config.mixup), ("cutmix", config.cutmix)):
        if alpha > 0:
            given.setdefault(name, {}).setdefault("alpha", alpha)
    window = next((name for name in WINDOWS if name in given), "standard")
    if window == "standard":
        given.setdefault("crop", {})
    if window != "none":
        given.setdefault("flip", {})
    if window == "classic":
        given = {name: {} for name in _CLASSIC_STAGES} | given
    from_flags = {"randaugment": {"operations": operations, "magnitude": magnitude}}
    if config.min_crop_area is not None:
        from_flags["crop"] = {"min_area": config.min_crop_area}
    arguments = {}
    for name in AUGMENTATIONS:
        if name in given:
            arguments[name] = {**defaults(name), **from_flags.get(name, {}), **given[name]}
            where = f"--augment={user_code.display_name(config.augment)}: {name}"
            _require_order(where, arguments[name])
    functions = {name: words for name, words in _split(config.augment) if user_code.is_typed(name)}
    return AugmentSpec(window, arguments, functions)


def parse(text: str) -> dict[str, dict[str, float]]:
    """Parses the value of `--augment`: names, each with the arguments that are given.

    Args:
      text: names, separated by commas. Each may have arguments in parentheses, as in
        `erasing(0.1)` or `erasing(probability=0.1)`. The window is `standard` if none is named.
        Functions in users' files are left out: `AugmentSpec.load_functions` checks them.

    Raises:
      UsageError: a name is unknown or repeated, names exclude each other, or an argument is wrong.
    """
    where = f"--augment={user_code.display_name(text)}"
    given: dict[str, dict[str, float]] = {}
    functions = set()
    for name, words in _split(text):
        if user_code.is_typed(name):
            function = user_code.function_names(name)
            if function in functions:
                raise UsageError(f"{where}: two functions are called {function}; rename one")
            functions.add(function)
            continue
        if name not in AUGMENTATIONS:
            hint = _suggest(name, AUGMENTATIONS)
            raise UsageError(f"{where}: unknown name {name!r}; {hint}")
        if name in given:
            raise UsageError(f"{where}: {name} is given twice")
        given[name] = _parse_arguments(f"{where}: {name}", AUGMENTATIONS[name].arguments, words)
    for group in (WINDOWS, POLICIES):
        chosen = [name for name in given if name in group]
        if len(chosen) > 1:
            raise UsageError(f"{where}: {' and '.join(chosen)} exclude each other")
    if "none" in given and given.keys() - {"none", *names("pairs")}:
        raise UsageError(f"{where}: none cannot be combined with other names than mixup and cutmix")
    if "classic" in given:
        for name in ("crop", *POLICIES):
            if name in given:
                raise UsageError(f"{where}: {name} needs the standard crop; remove classic")
    return given


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


def flags_set_by(text: str) -> dict[str, str]:
    """Returns the flags whose values `--augment` gives itself, each with the name that does so."""
    return {
        argument.flag: name
        for name, arguments in parse(text).items()
        for key, argument in AUGMENTATIONS[name].arguments.items()
        # A pair stage without arguments has its default alpha.
        if argument.flag and (key in arguments or AUGMENTATIONS[name].runs == "pairs")
    }


def check_flags(text: str, typed: Collection[str]) -> None:
    """Raises UsageError if a typed flag and `--augment` both set an argument."""
    for flag, name in flags_set_by(text).items():
        if flag in typed:
            text = user_code.display_name(text)
            raise UsageError(f"--{flag} and --augment={text}: both set {name}; drop one of them")


def remove_arguments(text: str, flags: Collection[str]) -> str:
    """Returns the value of `--augment` without the arguments that these flags set."""
    if not flags_set_by(text).keys() & {*flags}:
        return text
    parts = []
    given_arguments = parse(text)
    for name, words in _split(text):
        if user_code.is_typed(name):
            parts.append(f"{name}({','.join(words)})" if words else name)
            continue
        given, arguments = given_arguments[name], AUGMENTATIONS[name].arguments
        kept = {key: value for key, value in given.items() if arguments[key].flag not in flags}
        if AUGMENTATIONS[name].runs == "pairs" and name in flags:
            continue
        parts.append(format_given(name, kept))
    return ",".join(parts) or "standard"


def format_given(name: str, arguments: dict[str, float]) -> str:
    """Returns a name with values of arguments, as `parse` reads it."""
    listed = ",".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"{name}({listed})" if listed else name


def format_call(name: str) -> str:
    """Returns a name with its arguments and their defaults, as in `flip(probability=0.5)`."""
    arguments = AUGMENTATIONS[name].arguments
    shown = [
        key if argument.default is None else f"{key}={argument.default:.4g}"
        for key, argument in arguments.items()
    ]
    return f"{name}({', '.join(shown)})" if shown else name


def format_help() -> str:
    """Returns the part of `--help` that lists the augmentations."""
    return " ".join(
        f"{format_call(name)}: {augmentation.summary}."
        for name, augmentation in AUGMENTATIONS.items()
    )


def format_table() -> str:
    """Returns the table of docs/augmentation.md."""
    places = {"window": "image", "window argument": "image"}
    rows = [
        f"| `{format_call(name)}` | {places.get(stage.runs, stage.runs)} | {stage.summary} |"
        for name, stage in AUGMENTATIONS.items()
    ]
    return "\n".join(["| `--augment` | works on | what it does |", "|---|---|---|", *rows])


# A name, then perhaps arguments in parentheses, then a comma or the end.
_PART = re.compile(r"([^,()]*)(?:\(([^()]*)\))?(,|$)")


def _split(text: str) -> list[tuple[str, list[str]]]:
    """Splits `a,b(1,c=2)` into names with the words in their parentheses."""
    parts, position, separator = [], 0, ","
    while separator:
        match = _PART.match(text, position)
        if match is None:
            shown = user_code.display_name(text)
            raise UsageError(
                f"--augment={shown}: cannot be read from {text[position:]!r} on; write names with"
                " commas between them, and arguments in parentheses, as in standard,erasing(0.1)"
            )
        name, words, separator = match.groups()
        parts.append((name, words.split(",") if words else []))
        position = match.end()
    return parts


def _parse_arguments(
    where: str, arguments: dict[str, Argument], words: list[str]
) -> dict[str, float]:
    """Returns the arguments that some words give, by name."""
    given: dict[str, float] = {}
    listed = ", ".join(arguments)
    for position, word in enumerate(words):
        key, equals, text = word.partition("=")
        if not equals:
            if position >= len(arguments):
                takes = f"takes {listed}" if listed else "takes no arguments"
                raise UsageError(f"{where}: {word!r} is one argument too many; it {takes}")
            if position and "=" in words[position - 1]:
                raise UsageError(f"{where}: {word!r} follows a named argument; name it, too")
            key, text = list(arguments)[position], word
        key = key.strip()
        if key not in arguments:
            hint = _suggest(key, arguments) if arguments else "it takes no arguments"
            raise UsageError(f"{where}: unknown argument {key!r}; {hint}")
        if key in given:
            raise UsageError(f"{where}: {key} is given twice")
        given[key] = _parse_number(f"{where}: {key}={text.strip()}", arguments[key], text)
    return given


def _bind(where: str, function: Callable[..., Any], words: list[str]) -> dict[str, float]:
    """Returns the arguments that some words give to a function in a user's file, by name.

    Raises:
      UsageError: the function has no such argument, or one without a default is not given.
    """
    signature = inspect.signature(function)
    largest = sys.float_info.max
    arguments = {
        parameter.name: Argument(default=None, minimum=-largest, maximum=largest, is_whole=None)
        for parameter in list(signature.parameters.values())[2:]
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    given = _parse_arguments(where, arguments, words)
    try:
        signature.bind("images", "draws", **given)
    except TypeError as error:
        raise UsageError(
            f"{where}: {error}; it is called with images, draws and what is in parentheses"
        ) from None
    return given


def _require_order(where: str, arguments: dict[str, float]) -> None:
    """Raises UsageError if an argument `min_NAME` is above `max_NAME`."""
    for least, low in arguments.items():
        most = least.replace("min_", "max_")
        high = arguments.get(most)
        if least != most and high is not None and low > high:
            raise UsageError(f"{where}: {least}={low:g} is above {most}={high:g}; exchange them")


def _parse_number(where: str, argument: Argument, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{where}: is not a number") from None
    is_inside = argument.minimum <= value <= argument.maximum
    if argument.above is not None:
        is_inside = is_inside and value > argument.above
    if not is_inside or not math.isfinite(value) or (argument.is_whole and value % 1):
        kind = "a whole number" if argument.is_whole else "a number"
        low = f"from {argument.minimum:g}" if argument.above is None else f"above {argument.above}"
        raise UsageError(f"{where}: must be {kind} {low} to {argument.maximum:g}")
    is_written_whole = argument.is_whole is None and text.strip().lstrip("+-").isdecimal()
    return int(value) if argument.is_whole or is_written_whole else value


def _suggest(name: str, known: Iterable[str]) -> str:
    similar = difflib.get_close_matches(name, known, 3, 0.5)
    return f"did you mean {' or '.join(similar)}?" if similar else f"use one of {', '.join(known)}"
