"""Reads `filename,label` tables, as those of mini-ImageNet by Ravi and Larochelle (2017)."""

import csv
import os
from collections.abc import Iterable, Iterator

from input_pipeline.errors import DataError
from input_pipeline.system import regular_files

_MAX_BYTES = 2**26
_IMAGE, _LABEL = "filename", "label"


def has_labels(path: str | os.PathLike[str]) -> bool:
    """Returns whether a file has the titles of the columns, and a row with both values."""
    try:
        text = regular_files.read_bytes(path, _MAX_BYTES).decode("utf-8-sig", "replace")
        return any(image and label for _, image, label in _parse(text.splitlines()))
    except (OSError, ValueError, csv.Error):
        return False


def read(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yields the file name and class of every row; raises DataError for a malformed file."""
    try:
        text = regular_files.read_bytes(path, _MAX_BYTES).decode("utf-8-sig")
        rows = list(_parse(text.splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: is not a CSV file ({error})") from None
    for line, image, label in rows:
        if not image or not label:
            raise DataError(f"{path}, line {line}: a row is not `filename,label`")
        if ".." in image.split("/"):
            raise DataError(
                f"{path}, line {line}: {image[:80]!r} leads out of the folder of the images;"
                " remove the line"
            )
        yield image, label


def _parse(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """Yields the line number, file name and class of every row; "" for a missing value."""
    reader = csv.DictReader(lines, skipinitialspace=True)
    titles = [title.strip().lower() for title in reader.fieldnames or ()]
    reader.fieldnames = titles
    for row in reader:
        image, label = (str(row.get(title) or "").strip() for title in (_IMAGE, _LABEL))
        yield reader.line_num, image, label
