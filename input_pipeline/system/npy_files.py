"""Reads `.npy` arrays whose headers strangers may have written.

A header is checked against the size of the file before any memory is allocated. Nothing is
unpickled or decompressed.
"""

import contextlib
import math
import zipfile
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_header(file: IO[bytes], num_bytes: int) -> tuple[tuple[int, ...], np.dtype]:
    """Reads the header of an array in C order; the file is then at its data.

    Args:
      file: at the beginning of the array.
      num_bytes: length of header and data, which the header must state exactly.

    Returns:
      (shape, dtype).

    Raises:
      ValueError: the header is malformed, or states another length.
    """
    try:
        version = npy.read_magic(file)
        shape, is_fortran, dtype = _HEADER_READERS[version](file)
    except Exception as error:  # NumPy's parser raises many types
        raise ValueError(f"is not an .npy array ({error!r:.200})") from None
    if is_fortran or dtype.hasobject:
        raise ValueError("is a pickled array or one in Fortran order")
    if min(shape, default=0) < 0 or num_bytes != file.tell() + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"has {num_bytes} bytes, which does not match shape {shape} of {dtype}")
    return shape, dtype


def read_data(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Reads an array, or some rows of one, after `read_header`; it is read-only.

    Raises:
      ValueError: the file is truncated.
    """
    length = math.prod(shape) * dtype.itemsize
    data = file.read(length)
    if len(data) != length:
        raise ValueError("the file is truncated")
    return np.frombuffer(data, dtype).reshape(shape)


class OpenArray(NamedTuple):
    """An array of a zip archive, opened behind its header."""

    file: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype


@contextlib.contextmanager
def open_zipped(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype | type[np.generic], rank: int
) -> Iterator[OpenArray]:
    """Opens an array of a zip archive behind its header.

    The entry must be uncompressed and exactly as long as its header states, so an array cannot be
    larger than the file.

    Raises:
      ValueError: there is no such array of this type and rank.
    """
    if f"{name}.npy" not in archive.namelist():
        raise ValueError(f"{name} is missing")
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise ValueError(f"{name} is compressed; save it with numpy.savez")
    with archive.open(info) as file:
        try:
            shape, stored = read_header(file, info.file_size)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
        matches = stored.kind == "S" if dtype is np.bytes_ else stored == np.dtype(dtype)
        if not matches or len(shape) != rank:
            raise ValueError(f"{name} is {stored} of shape {shape}")
        yield OpenArray(file, shape, stored)


def read_zipped(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype | type[np.generic], rank: int
) -> np.ndarray:
    """Reads an array of a zip archive; see `open_zipped`."""
    with open_zipped(archive, name, dtype, rank) as opened:
        array = read_data(*opened)
        opened.file.read(1)  # zipfile compares the checksum at the end of the entry
    return array
