"""Writes files atomically and never through a link, and hashes files.

Folders may come from strangers. A new file therefore has a random name, is created exclusively, and
replaces a link instead of writing to its target.
"""

import contextlib
import errno
import functools
import hashlib
import io
import json
import os
import pathlib
import secrets
import stat
from collections.abc import Iterator

from input_pipeline.system import regular_files

TEMPORARY_PREFIX = ".tmp-"

# How a file system answers that cannot wait for its disk, such as some network mounts.
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file atomically; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def write_json(path: str | os.PathLike[str], content: dict | list) -> None:
    """Writes a JSON file atomically; see `replacing`."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[io.BufferedRandom]:
    """Opens a file that takes a name at the end of the context, when its content is on disk.

    A file with this name therefore always has its full content. The permissions of a replaced file
    are kept. A link is replaced, and its target stays as it is.

    Raises:
      OSError: writing failed. The temporary file is removed and an old file is kept.
    """
    path = pathlib.Path(path)
    mode = _find_mode(path)
    temporary = temporary_path(path.parent)
    create = functools.partial(os.open, mode=0o666 if mode is None else mode)
    file = open(temporary, "x+b", opener=create)  # noqa: SIM115 - an existing file must stay
    try:
        with file:
            if mode is not None:
                with contextlib.suppress(OSError):  # some file systems have no permissions
                    os.fchmod(file.fileno(), mode)  # without the umask
            yield file
            file.flush()
            _fsync(file.fileno())
        _rename_and_sync(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # report the original error
            temporary.unlink(missing_ok=True)
        raise


def temporary_path(folder: pathlib.Path) -> pathlib.Path:
    """Returns the path of a temporary file or folder, with a random name."""
    return folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"


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


def open_to_append(path: str | os.PathLike[str]) -> io.BufferedWriter:
    """Opens a regular file to append to it, and creates it if it does not exist.

    Raises:
      PermissionError: it is a link, or not a regular file.
      OSError: it cannot be opened.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if os.path.islink(path):
            raise regular_files.refusal(path, "is a link, which is not followed") from None
        if error.errno in (errno.ENXIO, errno.EISDIR):  # a pipe without a reader, a folder
            raise regular_files.refusal(path, "is not a regular file") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise regular_files.refusal(path, "is not a regular file")
    return open(descriptor, "ab")


def make_folder(path: str | os.PathLike[str]) -> None:
    """Makes a folder inside another folder, unless it exists.

    Raises:
      PermissionError: it is a link, so files in it would be written elsewhere.
      OSError: it cannot be made.
    """
    if os.path.islink(path):
        raise regular_files.refusal(path, "is a link, which is not followed")
    pathlib.Path(path).mkdir(exist_ok=True)


def sha256(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a regular file, in hexadecimal."""
    with regular_files.open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_mode(path: pathlib.Path) -> int | None:
    """Returns the permissions of an existing regular file; None for a new one."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return stat.S_IMODE(status.st_mode) & 0o777 if stat.S_ISREG(status.st_mode) else None


def _rename_and_sync(temporary: pathlib.Path, path: pathlib.Path) -> None:
    """Renames a file whose content is on disk, and waits until its folder is on disk too."""
    os.replace(temporary, path)
    sync(path.absolute().parent)
