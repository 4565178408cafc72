"""Reads ranges of bytes of files."""

import os


def read(path: bytes, offset: int, size: int) -> bytes:
    """Returns a range of a file.

    Raises:
      OSError: the file cannot be read, or ends inside the range.
    """
    # Opened for each range: shards are more than the files that a process may hold open.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)
    if len(data) != size:
        raise OSError(f"{os.fsdecode(path)}: ends inside the image at byte {offset}")
    return data
