"""Reads files that strangers may have made: no pipe blocks, no device is read, memory is bounded.

Links to regular files are followed. People build subsets of data sets with links, and download
tools link to their caches.
"""

import errno
import io
import json
import os
import stat
from typing import Any

_MAX_JSON_BYTES = 64 * 2**20
# An image of the largest accepted number of pixels takes less in every format.
MAX_IMAGE_BYTES = 2**30


class _NamedFile(io.FileIO):
    """A file whose errors name it, also those after it has been opened."""

    def readinto(self, buffer: Any) -> int | None:  # type: ignore[override]
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise _name_file(error, self) from None

    def read(self, size: int | None = -1) -> bytes | None:  # type: ignore[override]
        try:
            return super().read(size)
        except OSError as error:
            raise _name_file(error, self) from None

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            raise _name_file(error, self) from None


def _name_file(error: OSError, file: io.FileIO) -> OSError:
    error.filename = os.fspath(file.name)
    return error


def open_regular(
    path: str | os.PathLike[str], max_bytes: int | None = None
) -> "io.BufferedReader[io.FileIO]":
    """Opens a regular file for reading. Errors of reading name it.

    Args:
      path: the file, or a link to it.
      max_bytes: largest accepted size; None for any.

    Raises:
      PermissionError: it is a folder, pipe, device or socket, or is too large.
      OSError: it cannot be opened.
    """
    # Opening a device can have effects, so its type is checked before. A pipe that replaces the
    # file in between does not block, because of the flag, and is found by the second check.
    _require_regular(path, os.stat(path), max_bytes)
    file: io.BufferedReader[io.FileIO] = io.BufferedReader(
        _NamedFile(path, opener=_open_without_blocking)
    )
    try:
        _require_regular(path, os.fstat(file.fileno()), max_bytes)
    except OSError:
        file.close()
        raise
    return file


def read_bytes(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Reads a regular file; see `open_regular`."""
    with open_regular(path, max_bytes) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file; see `open_regular` and `parse_json`."""
    return parse_json(read_bytes(path, _MAX_JSON_BYTES))


def parse_json(text: bytes | str) -> Any:
    """Parses JSON.

    Raises:
      ValueError: it is not JSON in UTF-8, or is nested too deeply.
    """
    try:
        return json.loads(text.decode() if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def refusal(path: str | os.PathLike[str], reason: str) -> PermissionError:
    """Returns the error for a path that must not be opened. `main.py` prints it as one line."""
    return PermissionError(errno.EPERM, reason, os.fspath(path))


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _require_regular(
    path: str | os.PathLike[str], status: os.stat_result, max_bytes: int | None
) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise refusal(path, "is a folder, pipe, device or socket, not a file")
    if max_bytes is not None and status.st_size > max_bytes:
        raise refusal(path, f"has {status.st_size} bytes, and at most {max_bytes} are read")
