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
from input_pipeline.system import folder_lock

_NAME = ".index"
_LOG_SECONDS = 10.0
_WAIT_SECONDS = 1.0


def find(root: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the index folder of a data set, which may not exist yet."""
    in_data_set = pathlib.Path(root, _NAME)
    folder = in_data_set if in_data_set.is_dir() else pathlib.Path(root)
    is_link = in_data_set.is_symlink()  # files would be written elsewhere
    # Root can write anywhere, but should not write to a folder that is marked read-only either.
    if not is_link and os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222:
        return in_data_set
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    digest = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return cache / "imagenet-loops" / digest


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
        yield
