"""Files that flags name: JSON results, tables and pages, also where they are streams or pipes."""

import contextlib
import json
import os
import pathlib
import sys

from input_pipeline.errors import UsageError

# Names of what this process has open already: to open them anew would write over one another.
_STREAMS = {
    **dict.fromkeys(("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"), "stdout"),
    **dict.fromkeys(("/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"), "stderr"),
}


def write_json(path, facts):
    """Writes facts to a file, whole or not at all."""
    write_bytes(path, (json.dumps(facts, indent=1) + "\n").encode())


def is_stream(path):
    """Whether a path is that of stdout or stderr."""
    return str(path) in _STREAMS


def write_bytes(path, data):
    """Writes a file, whole or not at all; a link stays one, and so does what is no file."""
    if is_stream(path):
        stream = getattr(sys, _STREAMS[str(path)])
        stream.flush()
        stream.buffer.write(data)
        stream.buffer.flush()
        return
    path = pathlib.Path(path)
    if path.exists() and not path.is_file():  # a pipe: to be written, not replaced
        path.write_bytes(data)
        return
    path = path.resolve()
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):  # the name may be the trouble
            temporary.unlink(missing_ok=True)  # half a file, on a full disk
        raise


def write_flag_output(flag, path, content, write=write_json):
    """Writes the file that a flag names.

    Args:
      flag, path: as typed.
      content: what `write` takes.
      write: `write_json` or `write_bytes`.

    Raises:
      UsageError: it cannot be written.
    """
    try:
        write(path, content)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"{flag}={path}: cannot be written ({error.strerror})") from None


def write_json_output(path, content):
    """Writes the file of `--json`, as typed; nothing where it is empty."""
    if path:
        write_flag_output("--json", path, content)
