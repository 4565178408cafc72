"""A folder that one process at a time writes into."""

import contextlib
import fcntl
import os
import pathlib
import time

from input_pipeline.errors import UsageError

NAME = ".lock"
# `is_held` holds the lock as well, for less than this: who is refused asks again.
_RETRY_SECONDS = 0.2
_POLL_SECONDS = 0.02


@contextlib.contextmanager
def acquire(folder, flag, busy=""):
    """Holds a folder, made if it is not there, against other processes that ask for it.

    The system frees it when a process dies, however it dies. At the end nothing is left of the
    lock, nor of a folder that was made for it and stayed empty.

    Args:
      folder: pathlib.Path.
      flag: "--NAME=VALUE" that named it, for the messages.
      busy: what to say where another process holds it.

    Raises:
      UsageError: another process holds it, or nothing can be written there.
    """
    folder = pathlib.Path(folder)
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _open_locked(folder / NAME)
    except BlockingIOError:
        raise UsageError(
            busy or f"{flag}: another process writes there; wait for it, or name another folder"
        ) from None
    except OSError as error:
        raise UsageError(
            f"{flag}: nothing can be written there ({error.strerror}); name another folder"
        ) from None
    with file:
        try:
            yield
        finally:
            (folder / NAME).unlink(missing_ok=True)
            if made:
                with contextlib.suppress(OSError):  # it holds something now
                    folder.rmdir()


def is_held(folder):
    """Whether another process holds a folder now."""
    try:
        with open(pathlib.Path(folder, NAME)) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock, or none that can be read
        return False
    return False


def _open_locked(path):
    """Opens and locks the file of that name: not one that its last holder has just removed."""
    last = time.monotonic() + _RETRY_SECONDS
    while True:
        file = open(path, "a")  # noqa: SIM115 - the caller closes it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError:
            if time.monotonic() > last:
                file.close()
                raise
            time.sleep(_POLL_SECONDS)
        except OSError:
            file.close()
            raise
        file.close()
