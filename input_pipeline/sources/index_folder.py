"""The folder for what is written down about a data set: indexes of its files, its split.

It is `.index` in the data set. For a data set that is read-only it is in the user's cache.
"""

import contextlib
import hashlib
import os
import pathlib
import time
from collections.abc import Iterator

from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.system import atomic_files, folder_lock

_NAME = ".index"
_LOG_SECONDS = 10.0
_WAIT_SECONDS = 1.0


def find(root: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the folder to write an index of a data set into, which may not exist yet.

    Raises:
      UsageError: the data set is read-only, and the user has no home.
    """
    index = in_data_set(root)
    folder = index if index.is_dir() else pathlib.Path(root)
    is_link = index.is_symlink()  # files would be written elsewhere
    # Root can write anywhere, but should not write to a folder that is marked read-only either.
    if not is_link and os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222:
        return index
    if (in_cache := _find_in_cache(root)) is None:
        raise UsageError(
            f"{root}: is read-only, and there is no home folder for its index; set XDG_CACHE_HOME"
        )
    return in_cache


def in_data_set(root: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the index folder in a data set, which may not exist."""
    return pathlib.Path(root, _NAME)


def list_existing(root: str | os.PathLike[str], name: str) -> list[pathlib.Path]:
    """Returns the files of a name that belong to a data set: first in it, then in the cache.

    A data set can become read-only, or writable, after a file was written.
    """
    existing = []
    if _exists(in_data_set(root) / name):
        existing.append(in_data_set(root) / name)
    in_cache = _find_in_cache(root)
    with contextlib.suppress(PermissionError):  # another user's home has nothing of this user
        if in_cache is not None and _exists(in_cache / name):
            existing.append(in_cache / name)
    return existing


def _exists(path: pathlib.Path) -> bool:
    """Returns whether a file exists; raises OSError if a permission is missing to tell."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _find_in_cache(root: str | os.PathLike[str]) -> pathlib.Path | None:
    """Returns the index folder in the user's cache; None if the user has no home."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # as the specification of these variables says
        cache = os.path.expanduser("~/.cache")
    if not os.path.isabs(cache):
        return None
    digest = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return pathlib.Path(cache, "imagenet-loops", digest)


@contextlib.contextmanager
def lock(folder: pathlib.Path) -> Iterator[None]:
    """Locks an index folder, and creates it if it does not exist. Waits for other processes.

    Raises:
      UsageError: the folder is not writable.
    """
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(folder_lock.acquire(folder, f"the index {folder}"))
                break
            except UsageError:
                if not folder_lock.is_held(folder):
                    raise
                logging.log_every_n_seconds(
                    logging.INFO, "waiting for another process to write %s", _LOG_SECONDS, folder
                )
                time.sleep(_WAIT_SECONDS)
        for temporary in folder.glob(f"{atomic_files.TEMPORARY_PREFIX}*"):  # of a killed process
            with contextlib.suppress(OSError):  # it only takes space
                temporary.unlink()
        yield
