"""Reads images in Parquet files, with the optional package pyarrow."""

import collections
import functools
import json
import os
import pathlib
import threading
from typing import Any, NamedTuple

from input_pipeline.errors import DataError, UsageError

# Row groups that are kept decoded. Images are read in random order, so few repeat.
_MAX_CACHED_GROUPS = 4


class Columns(NamedTuple):
    """The columns of a Parquet file of images.

    Attributes:
      image: path of the column of encoded images, such as image.bytes.
      name: path of the column of file names, or "".
      label: name of the column of class numbers.
      class_names: class names by number, or ().
    """

    image: str
    name: str
    label: str
    class_names: tuple[str, ...]


def _import_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"a Parquet file needs the package {error.name or 'pyarrow'}, which is not installed;"
            " run pip install -r requirements/parquet.txt"
        ) from None
    return pyarrow.parquet


@functools.lru_cache(maxsize=4096)
def _read_metadata(path: str, _mtime_ns: int) -> Any:
    parquet = _import_parquet()
    try:
        return parquet.read_metadata(path)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: is not a complete Parquet file ({reason})") from None


def get_metadata(path: str | os.PathLike[str]) -> Any:
    """Returns pyarrow's FileMetaData.

    Raises:
      UsageError: pyarrow is not installed.
      DataError: the file is damaged.
    """
    return _read_metadata(str(path), os.stat(path).st_mtime_ns)


def find_columns(path: pathlib.Path) -> Columns:
    """Finds the columns of the images and of their classes.

    Raises:
      UsageError: pyarrow is not installed.
      DataError: the file has no such columns, or is damaged.
    """
    metadata = get_metadata(path)
    columns = {
        c.path: c.physical_type for c in map(metadata.schema.column, range(metadata.num_columns))
    }
    binary = [p for p, kind in columns.items() if kind == "BYTE_ARRAY"]
    images = [p for p in binary if p.endswith(".bytes") or p in ("image", "img", "jpg", "jpeg")]
    numbers = [p for p, kind in columns.items() if kind.startswith("INT")]
    labels = [p for p in numbers if p in ("label", "labels", "cls", "fine_label")] or numbers
    if not images or not labels:
        found = ", ".join(f"{p} ({kind})" for p, kind in columns.items())
        raise DataError(
            f"{path}: has no column of images (image.bytes) with a column of classes (label); it"
            f" has {found}"
        )
    name = images[0].removesuffix(".bytes") + ".path"
    return Columns(
        images[0],
        name if name in columns else "",
        labels[0],
        _read_class_names(metadata, labels[0]),
    )


def _read_class_names(metadata: Any, label: str) -> tuple[str, ...]:
    """Returns the class names that Hugging Face's libraries write."""
    try:
        facts = json.loads(metadata.metadata[b"huggingface"])
        return tuple(facts["info"]["features"][label]["names"])
    except (TypeError, KeyError, ValueError):
        return ()


def list_rows(path: pathlib.Path, columns: Columns) -> list[tuple[str, int, int]]:
    """Returns (file name, class number, estimated bytes) of each row."""
    metadata = get_metadata(path)
    wanted = [column for column in (columns.name, columns.label) if column]
    rows = []
    with _open(str(path)) as file:
        for group in range(metadata.num_row_groups):
            facts = metadata.row_group(group)
            size = facts.total_byte_size // max(1, facts.num_rows)
            table = file.read_row_group(group, wanted).flatten()
            numbers = table[columns.label].to_pylist()
            names = table[columns.name].to_pylist() if columns.name else [""] * len(numbers)
            rows += [
                (n or "", -1 if k is None else k, size) for n, k in zip(names, numbers, strict=True)
            ]
    return rows


def _open(path: str) -> Any:
    return _import_parquet().ParquetFile(path, metadata=get_metadata(path))


_lock = threading.Lock()
_groups: collections.OrderedDict[tuple[str, str, int], Any] = collections.OrderedDict()


def read_row(path: bytes, row: int, _size: int, column: str) -> bytes:
    """Returns the image in one row. Its whole row group is decoded.

    Raises:
      OSError: the file is damaged.
    """
    name = os.fsdecode(path)
    metadata = get_metadata(name)
    group, first = 0, 0
    while row >= first + metadata.row_group(group).num_rows:
        first += metadata.row_group(group).num_rows
        group += 1
    key = (name, column, group)
    with _lock:
        values = _groups.get(key)
    if values is None:
        with _open(name) as file:
            table = file.read_row_group(group, [column])
        for _ in range(column.count(".")):
            table = table.flatten()
        values = table[column].combine_chunks()
        with _lock:
            _groups[key] = values
            while len(_groups) > _MAX_CACHED_GROUPS:
                _groups.popitem(last=False)
    return values[row - first].as_py() or b""
