"""Everything around the work of a process: standard streams, broken pipes, errors, exit codes."""

import contextlib
import errno
import io
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable

from input_pipeline import user_code
from input_pipeline.errors import UsageError, UserError
from input_pipeline.text import escape_unprintable
from loops.runtime import log_format

# Errors of a path on the command line that the system refuses.
_PATH_ERRNOS = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP)
)
_FULL_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT)  # of a write, which does not know the file


def run(command: Callable[[], None]) -> int:
    """Runs a command and returns the exit code of the process.

    Errors of the user's are printed as one line. A reader of stdout that has exited, as `head`
    does, ends the process without a traceback.
    """
    _open_closed_streams()
    _raise_file_limit()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not fit its encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    code = 0
    try:
        code = _run(command)
        sys.stdout.flush()  # otherwise the interpreter finds the broken pipe at exit
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in _FULL_DISK_ERRNOS:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not code:
            _print_error(f"stdout: {error.strerror}")
        return code or UsageError.exit_code
    return code


def _run(command: Callable[[], None]) -> int:
    log_format.set_up()
    try:
        _require_current_folder()
        with user_code.errors_in_one_line():
            command()
    except UserError as error:
        _print_error(str(error))
        return error.exit_code
    except OSError as error:
        is_refused_path = error.errno in _PATH_ERRNOS and error.filename is not None
        if not is_refused_path and error.errno not in _FULL_DISK_ERRNOS:
            raise
        path = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        _print_error(f"{path}{error.strerror}")
        return UsageError.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception:
        # Frees the objects of the frames while threads still run. At the exit of the interpreter,
        # an iterator would wait forever for its threads.
        traceback.print_exc()
        return 1
    return 0


def _raise_file_limit() -> None:
    """Raises the limit of open files to the system's: a data set may have thousands of shards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # some systems refuse their own limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _require_current_folder() -> None:
    """Raises UsageError if the current folder has been removed, since no path can be resolved."""
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError(
            f"the current folder cannot be used ({error.strerror}): change to another folder"
        ) from None


def _print_error(message: str) -> None:
    """Prints one line to stderr. Names of files and classes may contain anything."""
    sys.stderr.write(f"error: {escape_unprintable(message)}\n")


def _open_closed_streams() -> None:
    """Opens stdout and stderr on /dev/null if they are closed, as in daemons and with `>&-`."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # TensorFlow writes to descriptor 2
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
