"""Writes files atomically, and hashes files."""

import contextlib
import errno
import hashlib
import os
import pathlib

# How a file system answers that cannot wait for its disk, such as some network mounts.
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file atomically: a file with this name always has its full content on disk.

    Raises:
      OSError: writing failed. The temporary file is removed and an old file is kept.
    """
    path = pathlib.Path(path)
    temporary = temporary_path(path)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            _fsync(file.fileno())
        rename_and_sync(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # report the original error
            temporary.unlink(missing_ok=True)
        raise


def temporary_path(path: pathlib.Path) -> pathlib.Path:
    """Returns where a file is written before it is renamed to `path`: `.tmp-PID-NAME`."""
    return path.with_name(f".tmp-{os.getpid()}-{path.name}")


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until the content of a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync(descriptor: int) -> None:
    """Calls fsync where the file system has it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def rename_and_sync(temporary: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Renames a file whose content is on disk, and waits until its folder is on disk too."""
    os.replace(temporary, path)
    sync(os.path.dirname(os.path.abspath(path)))


def sha256(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
