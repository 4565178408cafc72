"""Selects the classes that `--classes` names, as for ImageNet-100."""

import collections
import pathlib
from collections.abc import Sequence

from input_pipeline import datasets
from input_pipeline.errors import DataError, UsageError
from input_pipeline.system import regular_files

_MAX_BYTES = 2**26


def label_by_name(class_names: Sequence[str]) -> dict[str, int]:
    """Returns the label of each class name, and of the English names of ImageNet classes."""
    english = [datasets.display_name(name) for name in class_names]
    count = collections.Counter(english)
    # Two classes are called crane, so the English name of neither is accepted.
    labels = {name: label for label, name in enumerate(english) if count[name] == 1}
    return labels | {name: label for label, name in enumerate(class_names)}


def read(path: str, class_names: Sequence[str]) -> list[int]:
    """Reads a file of class names, one per line.

    Args:
      path: the file. A line is the name of a class, perhaps with other words behind it, or the
        English name of an ImageNet class.
      class_names: class names of the data set by label.

    Returns:
      The sorted labels of the named classes.

    Raises:
      UsageError: the file does not exist.
      DataError: a line names no class, or the file names none.
    """
    if not pathlib.Path(path).is_file():
        raise UsageError(f"--classes={path}: no such file")
    labels = label_by_name(class_names)
    found = set()
    try:
        data = regular_files.read_bytes(path, _MAX_BYTES)
    except OSError as error:
        raise DataError(f"--classes={path}: cannot be read ({error.strerror})") from None
    text = data.decode("utf-8-sig", "surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        name = line.strip() if line.strip() in labels else words[0]
        if name not in labels:
            raise DataError(
                f"{path}, line {number}: {line.strip()[:80]!r} is not one of the"
                f" {len(class_names)} classes of the data set"
            )
        found.add(labels[name])
    if not found:
        raise DataError(f"{path}: names no class")
    return sorted(found)
