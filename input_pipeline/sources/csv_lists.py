"""Reads `filename,label` tables, as those of mini-ImageNet by Ravi and Larochelle (2017)."""

import csv
import itertools
import os
from collections.abc import Iterable, Iterator

from input_pipeline.errors import DataError
from input_pipeline.system import regular_files

_MAX_BYTES = 2**26
_MAX_LINE_BYTES = 1000
_IMAGE, _LABEL = "filename", "label"


def has_labels(path: str | os.PathLike[str]) -> bool:
    """Returns whether the first two lines of a file are the titles of its columns and a label."""
    try:
        with regular_files.open_regular(path, _MAX_BYTES) as file:
            lines = [file.readline(_MAX_LINE_BYTES).decode("utf-8-sig", "replace") for _ in "12"]
        rows = list(itertools.islice(_parse(lines), 1))
    except (OSError, ValueError, csv.Error):
        return False
    return bool(rows) and all(rows[0][1:])


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
