"""ImageNet-ReaL: the reassessed labels of the ILSVRC2012 validation images."""

import json
import pathlib
import re

from input_pipeline.errors import UsageError

_NUM_VAL_IMAGES = 50_000
_NUM_CLASSES = 1000
_FILENAME_PATTERN = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")
_MAX_BYTES = 16_000_000  # the published file has 0.6 MB


def read(path):
    """Reads the published JSON file: a list of 50,000 lists of labels, in the images' order.

    Raises:
      UsageError: it is not such a file.
    """
    flag = f"--real_labels={path}"
    file = pathlib.Path(path)
    if not file.is_file():
        raise UsageError(f"{flag}: there is no such file")
    if file.stat().st_size > _MAX_BYTES:
        raise UsageError(f"{flag}: too large for a list of labels ({file.stat().st_size} bytes)")
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        sets = [frozenset(row) for row in rows]
    except (OSError, ValueError, TypeError, RecursionError):
        raise UsageError(f"{flag}: not a JSON list of lists of labels") from None
    if len(sets) != _NUM_VAL_IMAGES:
        raise UsageError(f"{flag}: has {len(sets)} images; ILSVRC2012's val split has 50000")
    for number, labels in enumerate(sets, 1):
        if any(type(label) is not int or not 0 <= label < _NUM_CLASSES for label in labels):
            raise UsageError(f"{flag}: image {number} has labels {sorted(labels, key=str)[:5]}")
    return sets


def load_image_labels(path, dataset, split, names):
    """The accepted labels of each image, by the number in its file name.

    Args:
      path: see `read`.
      dataset, split: what is evaluated.
      names: file names of the images.

    Returns:
      list of frozensets of labels, 0..999 in the order of the sorted WordNet ids.

    Raises:
      UsageError: the images are not of ILSVRC2012's val split.
    """
    if (dataset, split) != ("ilsvrc2012", "val"):
        raise UsageError(
            f"--real_labels={path}: these are labels of ilsvrc2012's val split, and this is the"
            f" {split} split of {dataset}"
        )
    sets = read(path)
    found = []
    for name in names:
        match = _FILENAME_PATTERN.search(name)
        if not match or not 1 <= int(match[1]) <= _NUM_VAL_IMAGES:
            raise UsageError(
                f"--real_labels={path}: {name} is not named as in ILSVRC2012_val_00000001.JPEG,"
                " so nobody knows which image it is"
            )
        found.append(sets[int(match[1]) - 1])
    return found


def load_split_labels(evaluation, dataset, split):
    """The accepted labels of each image of a split, or None where nobody asks for them.

    Args:
      evaluation: EvalConfig.
      dataset: its name.
      split: Source.

    Raises:
      UsageError: see `load_image_labels`.
    """
    if not evaluation.real_labels:
        return None
    names = [split.describe(index) for index in range(split.num_examples)]
    return load_image_labels(evaluation.real_labels, dataset, evaluation.split, names)
