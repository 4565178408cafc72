"""Writes the files that flags name: JSON results, tables and pages, also to stdout and pipes.

A link that the user names is followed. Files inside a folder, whose links may come from strangers,
are written with `atomic_files` instead.
"""

import json
import os
import pathlib
import sys
from collections.abc import Callable

from input_pipeline.errors import UsageError
from input_pipeline.system import atomic_files

# Streams that this process already has open. Opening them again would overwrite earlier output.
_STREAMS = {
    **dict.fromkeys(("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"), "stdout"),
    **dict.fromkeys(("/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"), "stderr"),
}


def write_json(path: pathlib.Path | str, content: dict | list) -> None:
    """Writes JSON to a file; see `write_bytes`."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def is_stream(path: pathlib.Path | str) -> bool:
    """Returns whether a path names stdout or stderr."""
    return str(path) in _STREAMS


def write_bytes(path: pathlib.Path | str, data: bytes) -> None:
    """Writes a file atomically.

    Symbolic links are followed and stay links. Pipes, devices, stdout and stderr are written to.
    """
    if is_stream(path):
        stream = getattr(sys, _STREAMS[str(path)])
        stream.flush()
        stream.buffer.write(data)
        stream.buffer.flush()
        return
    path = pathlib.Path(path)
    if path.exists() and not path.is_file():  # a pipe must be written to, not replaced
        path.write_bytes(data)
        return
    atomic_files.write_bytes(os.path.realpath(path), data)  # also a link that leads to itself


def write_flag_output(
    flag: str,
    path: pathlib.Path | str,
    content: dict | list | bytes,
    write: Callable[..., None] = write_json,
) -> None:
    """Writes the file that a flag names.

    Args:
      flag: name of the flag, with its dashes.
      path: value of the flag.
      content: the argument of `write`.
      write: `write_json` or `write_bytes`.

    Raises:
      UsageError: the file cannot be written.
    """
    try:
        write(path, content)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"{flag}={path}: cannot be written ({error.strerror})") from None


def write_json_output(path: str, content: dict | list) -> None:
    """Writes the file of `--json`; does nothing if the flag is empty."""
    if path:
        write_flag_output("--json", path, content)
