"""Reads `filename,label` tables, as those of mini-ImageNet by Ravi and Larochelle (2017)."""

import csv
import os
from collections.abc import Iterator

from input_pipeline.errors import DataError
from input_pipeline.system import regular_files

_MAX_BYTES = 2**26


def has_header(path: str | os.PathLike[str]) -> bool:
    """Returns whether the first line of a file names the columns `filename` and `label`."""
    try:
        with regular_files.open_regular(path, _MAX_BYTES) as file:
            first = file.readline(1000).decode("utf-8-sig", "replace")
    except (OSError, ValueError):
        return False
    return {"filename", "label"} <= {column.strip() for column in first.split(",")}


def read(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yields the file name and class of every row; raises DataError for a malformed file."""
    try:
        text = regular_files.read_bytes(path, _MAX_BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(text.splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: is not a CSV file ({error})") from None
    for row in rows:
        image, label = row.get("filename"), row.get("label")
        if not image or not label:
            raise DataError(f"{path}: a row is not `filename,label`")
        yield image, label
