"""Locks a folder so that only one process at a time writes into it."""

import contextlib
import errno
import fcntl
import os
import pathlib
import time
from collections.abc import Iterator
from typing import BinaryIO

from absl import logging

from input_pipeline.errors import UsageError

NAME = ".lock"
# How a file system answers that has no locks, such as Lustre without its option `flock`.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
# `is_held` takes the lock for a shorter time than this. A refused process therefore retries.
_RETRY_SECONDS = 0.2
_POLL_SECONDS = 0.02


@contextlib.contextmanager
def acquire(
    folder: str | os.PathLike[str], flag: str, busy: str = "", must_be_new: bool = False
) -> Iterator[None]:
    """Locks a folder against other processes, and creates it if it does not exist.

    The operating system releases the lock when the process ends, even if it is killed. On exit
    the lock file is removed, and so is a folder that was created here and is still empty.
    A file system without locks gets a warning, and no lock.

    Args:
      folder: folder to lock.
      flag: "--NAME=VALUE" that names the folder, for error messages.
      busy: error message if another process holds the lock; by default one that starts with
        `flag`.
      must_be_new: whether the folder must not exist yet.

    Raises:
      FileExistsError: `must_be_new` was given, and the folder exists.
      UsageError: another process holds the lock, or the folder is not writable.
    """
    folder = pathlib.Path(folder)
    created = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=not must_be_new)
        file = _open_locked(folder / NAME)
    except BlockingIOError:
        raise UsageError(
            busy
            or f"{flag}: another process is writing to this folder; wait for it, or choose another"
            " folder"
        ) from None
    except OSError as error:
        if must_be_new and isinstance(error, FileExistsError) and folder.is_dir():
            raise
        raise UsageError(
            f"{flag}: cannot write to this folder ({error.strerror}); choose another folder"
        ) from None
    with file:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the disk became read-only, or is not empty
                (folder / NAME).unlink(missing_ok=True)
                if created:
                    folder.rmdir()


def is_held(folder: str | os.PathLike[str]) -> bool:
    """Returns whether another process holds the lock of a folder."""
    try:
        with _open(pathlib.Path(folder, NAME), os.O_RDONLY) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file, or an unreadable one
        return False
    return False


def _open_locked(path: pathlib.Path) -> BinaryIO:
    """Opens and locks the lock file.

    Retries if the previous holder has just removed the opened file: a lock on a removed file
    protects nothing.

    Raises:
      BlockingIOError: another process holds the lock.
      OSError: the file cannot be opened or locked.
    """
    deadline = time.monotonic() + _RETRY_SECONDS
    while True:
        file = _open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise
            time.sleep(_POLL_SECONDS)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                logging.warning(
                    "%s: the file system has no locks (%s); a second process that writes to this"
                    " folder would not be noticed",
                    path.parent,
                    error.strerror,
                )
                return file
            file.close()
            raise
        file.close()


def _open(path: pathlib.Path, flags: int) -> BinaryIO:
    """Opens the lock file. A link is an error, and a pipe does not block."""
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(os.open(path, flags, 0o666), "rb")
