"""Reads images in ArrayRecord files of TensorFlow Datasets, with the optional package array_record.

Each record is compressed with Zstandard, which TensorFlow cannot decompress in a graph. So
preparing and verifying read these files, and training does not.
"""

import functools
import os
import pathlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from input_pipeline.errors import DataError, UsageError, UserError
from input_pipeline.sources import tfrecord
from input_pipeline.system import regular_files

_lock = threading.Lock()  # a reader is not for several threads


@functools.lru_cache(maxsize=64)
def _open_reader(path: str, _mtime_ns: int) -> Any:
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise UsageError(
            f"{path}: an ArrayRecord file needs the package {error.name or 'array_record'}, which"
            " is not installed; run pip install -r requirements/array_record.txt"
        ) from None
    try:
        options = "readahead_buffer_size:0,max_parallelism:0"
        reader = array_record_module.ArrayRecordReader(path, options)
        if not reader.ok():  # it would have no records
            reader.read([0])  # usually raises the reason
            raise EOFError("its end is missing")
    except Exception as error:  # the package raises several types
        raise _damaged(path, error) from None
    return reader


def _open(path: str | os.PathLike[str]) -> Any:
    """Returns the package's reader of a file."""
    try:
        with regular_files.open_regular(path) as file:
            mtime_ns = os.fstat(file.fileno()).st_mtime_ns
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return _open_reader(os.fspath(path), mtime_ns)


def _damaged(path: str | os.PathLike[str], error: Exception) -> DataError:
    reason = str(error).split(";")[0].splitlines()[0]
    return DataError(f"{path}: is not a complete ArrayRecord file ({reason}); copy it again")


def _read_record(path: str | os.PathLike[str], number: int) -> dict[str, int | bytes]:
    """Returns the first value of each feature of a record."""
    try:
        with _lock:
            (record,) = _open(path).read([number])
        return tfrecord.parse_first_values(record)
    except UserError:
        raise
    except Exception as error:  # the package and the parser raise several types
        raise _damaged(path, error) from None


def list_records(
    path: pathlib.Path, image_features: Sequence[str], limit: int | None = None
) -> Iterator[tuple[dict[str, int | bytes], str, int]]:
    """Reads the records of a file.

    Args:
      path: the file.
      image_features: possible names of the feature that holds the image.
      limit: number of records after which to stop; None for all.

    Yields:
      (first value of each feature, name of the feature that holds the image, bytes of the image).

    Raises:
      UsageError: array_record is not installed.
      DataError: the file is damaged, or a record has no image.
    """
    num_records = _open(path).num_records()
    for number in range(num_records if limit is None else min(limit, num_records)):
        features = _read_record(path, number)
        name = next((name for name in image_features if name in features), "")
        yield features, name, len(_require_image(features, name, path, number))


def read_image(path: str, number: int, feature: str) -> bytes:
    """Returns the image of a record.

    Raises:
      UsageError: array_record is not installed.
      DataError: the file is damaged, or the record has no image.
    """
    return _require_image(_read_record(path, number), feature, path, number)


def _require_image(
    features: dict[str, int | bytes], name: str, path: str | os.PathLike[str], number: int
) -> bytes:
    if not isinstance(image := features.get(name), bytes):
        raise DataError(f"{path}: record {number} has no feature with an image")
    return image
