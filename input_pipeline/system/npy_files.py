"""Reads `.npy` arrays whose headers strangers may have written.

A header is checked against the size of the file before any memory is allocated. Nothing is
unpickled.
"""

import math
from typing import IO

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
