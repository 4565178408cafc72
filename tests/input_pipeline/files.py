"""Helpers for tests of data sets on disk."""

import pathlib


def put(path: pathlib.Path, data: bytes = b"image") -> None:
    """Writes a file and creates its parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
