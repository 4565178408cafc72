"""The card of published weights: `config.json` in timm's form."""

import dataclasses
import math
import pathlib
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from input_pipeline.errors import UsageError
from input_pipeline.system import regular_files, typed_json

_Channels = tuple[float, float, float]


class _CardJson(TypedDict):
    """The parts of a card that are read."""

    architecture: str
    num_classes: NotRequired[int]
    label_names: NotRequired[list[str] | None]
    license: NotRequired[str | None]
    input_size: NotRequired[tuple[int, int, int]]
    crop_pct: NotRequired[float]
    crop_mode: NotRequired[Literal["center"]]
    interpolation: NotRequired[str]
    mean: NotRequired[_Channels]
    std: NotRequired[Annotated[_Channels, lambda std: "" if min(std) > 0 else "is not above 0"]]
    test_input_size: NotRequired[tuple[int, int, int] | None]
    test_crop_pct: NotRequired[float | None]


@dataclasses.dataclass(frozen=True)
class Card:
    """What a card says.

    Attributes:
      architecture: timm's name of the net.
      preprocessing: values of the preprocessing flags, as far as the card has them.
      num_classes: number of classes; None if the card does not say.
      class_names: name of each class, by label; may be empty.
      license: as the publisher calls it; may be empty.
      test_image_size, test_crop_fraction: of the publisher's best test; None if it is the same as
        the preprocessing.
    """

    architecture: str
    preprocessing: dict[str, Any]
    num_classes: int | None
    class_names: tuple[str, ...]
    license: str
    test_image_size: int | None
    test_crop_fraction: float | None


def read(path: pathlib.Path, where: str) -> Card:
    """Reads a card.

    Args:
      path: path of `config.json`.
      where: flag and value, for messages.

    Raises:
      UsageError: it is not a card of timm's form.
    """
    try:
        top = typed_json.convert(regular_files.read_json(path), dict[str, Any], "it")
        # Values at the top override those of the checkpoint that the weights were tuned from.
        nested = typed_json.convert(top.get("pretrained_cfg", {}), dict[str, Any], "pretrained_cfg")
        values = typed_json.convert({**nested, **top}, _CardJson, "it")
        return _make_card(values)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{where}: {path.name} is not a card of timm's form ({str(error)[:200]}); to import the"
            " weights without it, name the file of weights itself"
        ) from None


def _make_card(values: dict[str, Any]) -> Card:
    preprocessing: dict[str, Any] = {}
    if "input_size" in values:
        preprocessing["image_size"] = _read_side(values["input_size"])
    if "crop_pct" in values:
        preprocessing["crop_fraction"] = values["crop_pct"]
    if "interpolation" in values:
        preprocessing["interpolation"] = values["interpolation"]
    for name in ("mean", "std"):
        if name in values:
            # timm's are for pixels from 0 to 1. 0.485 * 255 must not become 123.67499.
            preprocessing[name] = tuple(round(255 * number, 6) for number in values[name])
    numbers = [n for v in preprocessing.values() for n in (v if isinstance(v, tuple) else (v,))]
    if not all(math.isfinite(n) for n in numbers if isinstance(n, float)):
        raise ValueError("a number is not finite")
    test_size, test_crop = values.get("test_input_size"), values.get("test_crop_pct")
    return Card(
        architecture=values["architecture"],
        preprocessing=preprocessing,
        num_classes=values.get("num_classes"),
        class_names=tuple(values.get("label_names") or ()),
        license=values.get("license") or "",
        test_image_size=_read_side(test_size) if test_size else None,
        test_crop_fraction=test_crop,
    )


def _read_side(size: tuple[int, int, int]) -> int:
    """Returns the side of a square image from its shape [3, S, S]."""
    channels, height, width = size
    if channels != 3 or height != width:
        raise ValueError(f"input_size is {size}, but images are square and have 3 channels")
    return height
