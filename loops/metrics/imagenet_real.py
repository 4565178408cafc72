"""ImageNet-ReaL: the reassessed labels of the ILSVRC2012 validation images."""

import json
import pathlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from input_pipeline.errors import UsageError
from loops.config.tools import EvalConfig

if TYPE_CHECKING:  # it imports TensorFlow
    from input_pipeline.sources.source import Source

_NUM_VAL_IMAGES = 50_000
_NUM_CLASSES = 1000
_FILENAME_PATTERN = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")
_MAX_BYTES = 16_000_000  # the published file has 0.6 MB


def read(path: str | pathlib.Path) -> list[frozenset[int]]:
    """Reads the published JSON file: a list of 50,000 lists of labels, in the images' order.

    Raises:
      UsageError: the file is missing, too large, or has another content.
    """
    flag = f"--real_labels={path}"
    file = pathlib.Path(path)
    if not file.is_file():
        raise UsageError(f"{flag}: there is no such file")
    if file.stat().st_size > _MAX_BYTES:
        raise UsageError(f"{flag}: too large for a list of labels ({file.stat().st_size} bytes)")
    try:
        lists = json.loads(file.read_text(encoding="utf-8"))
        accepted = [frozenset(labels) for labels in lists]
    except (OSError, ValueError, TypeError, RecursionError):
        raise UsageError(f"{flag}: not a JSON list of lists of labels") from None
    if len(accepted) != _NUM_VAL_IMAGES:
        raise UsageError(
            f"{flag}: has {len(accepted)} images; the val split of ILSVRC2012 has {_NUM_VAL_IMAGES}"
        )
    for number, labels in enumerate(accepted, 1):
        if any(type(label) is not int or not 0 <= label < _NUM_CLASSES for label in labels):
            raise UsageError(
                f"{flag}: image {number} has labels {sorted(labels, key=str)[:5]}; labels are"
                f" integers from 0 to {_NUM_CLASSES - 1}"
            )
    return accepted


def load_image_labels(
    path: str | pathlib.Path, dataset: str, split: str, names: Iterable[str]
) -> list[frozenset[int]]:
    """Returns the accepted labels of each image, looked up by the number in its file name.

    Args:
      path: see `read`.
      dataset: name of the evaluated data set.
      split: name of the evaluated split.
      names: file names of the images.

    Returns:
      list of sets of labels, 0..999 in the order of the sorted WordNet ids.

    Raises:
      UsageError: the images are not from the val split of ILSVRC2012.
    """
    if (dataset, split) != ("ilsvrc2012", "val"):
        raise UsageError(
            f"--real_labels={path}: these labels are for the val split of ilsvrc2012, not for the"
            f" {split} split of {dataset}"
        )
    accepted = read(path)
    image_labels = []
    for name in names:
        match = _FILENAME_PATTERN.search(name)
        if not match or not 1 <= int(match[1]) <= _NUM_VAL_IMAGES:
            raise UsageError(
                f"--real_labels={path}: {name} has no image number; files must be named as in"
                " ILSVRC2012_val_00000001.JPEG"
            )
        image_labels.append(accepted[int(match[1]) - 1])
    return image_labels


def load_split_labels(
    evaluation: EvalConfig, dataset: str, split: "Source"
) -> list[frozenset[int]] | None:
    """Returns the accepted labels of each image of a split, or None without `--real_labels`.

    Raises:
      UsageError: see `load_image_labels`.
    """
    if not evaluation.real_labels:
        return None
    names = [split.describe(index) for index in range(split.num_examples)]
    return load_image_labels(evaluation.real_labels, dataset, evaluation.split, names)
