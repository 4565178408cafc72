"""Reads ranges of bytes of files, in Python or in a graph of TensorFlow.

TensorFlow has no operation that reads a range. A graph therefore maps each file into memory as a
tensor, and copies the range out of it.

A Python function in the graph would be simpler, but would hang. TensorFlow waits for running calls
when an iterator is deleted. The deleting thread then holds the interpreter lock that they need.
"""

import ctypes
import functools
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DataError, UsageError
from input_pipeline.system import mapped_files, regular_files

# Linux allows 65,530 mapped ranges in a process, and the list is copied for each file.
_MAX_FILES = 10_000


def read(path: str, offset: int, size: int) -> bytes:
    """Returns a range of a file.

    Raises:
      OSError: the file cannot be read.
      DataError: it ends inside the range.
    """
    with regular_files.open_regular(path) as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise DataError(f"{path}: ends inside the image at byte {offset}; copy it again")
    return data


def make_graph_reader(
    files: Sequence[str],
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns the function from (number of the file, offset, size) to a string scalar.

    Args:
      files: paths of the files. If one is cut while the function is used, the process ends with
        one line, see `mapped_files`.

    Raises:
      UsageError: there are too many files.
      DataError: a file cannot be opened.
    """
    if len(files) > _MAX_FILES:
        raise UsageError(
            f"{files[0]} and {len(files) - 1} other files: more than {_MAX_FILES} files with"
            " images inside; unpack all of them, or use --mode=prepare"
        )
    with tf.device("CPU"):
        # A list of tensors holds them without a copy. It is captured by reference.
        tensors = tf.raw_ops.TensorListReserve(
            element_shape=tf.constant(-1), num_elements=len(files), element_dtype=tf.uint8
        )
        for number, path in enumerate(files):
            mapped = tf.constant([], tf.uint8)
            if status := _get_status(path):
                mapped_files.watch(path)
                mapped = _map(path, *status)
            tensors = tf.raw_ops.TensorListSetItem(input_handle=tensors, index=number, item=mapped)

    def read_in_graph(file: tf.Tensor, offset: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        mapped = tf.raw_ops.TensorListGetItem(
            input_handle=tensors, index=file, element_shape=[-1], element_dtype=tf.uint8
        )
        return to_string(tf.slice(mapped, offset[tf.newaxis], size[tf.newaxis]))

    return read_in_graph


def _get_status(path: str) -> tuple[int, int] | None:
    """Returns the (size, time of change) of a file; None if it is empty and cannot be mapped."""
    try:
        with regular_files.open_regular(path) as file:
            status = os.fstat(file.fileno())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return (status.st_size, status.st_mtime_ns) if status.st_size else None


# Never freed: a thread of TensorFlow that freed a mapping would wait for the interpreter lock.
@functools.cache
def _map(path: str, size: int, _mtime_ns: int) -> tf.Tensor:
    """Returns a file as uint8 [size], without a copy. TensorFlow's ImmutableConst copies it."""
    try:
        mapped = np.memmap(path, np.uint8, "r", shape=(size,))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be mapped into memory ({error})") from None
    # DLPack refuses read-only arrays, so the array is made again. Nothing writes to it.
    array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(mapped.ctypes.data))
    _mappings.append(mapped)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


_mappings: list[np.memmap] = []


def to_string(data: tf.Tensor) -> tf.Tensor:
    """Returns uint8 [N] as a string scalar of N bytes."""
    # A serialized tensor ends with its bytes.
    size = tf.size(data)
    return tf.strings.substr(tf.io.serialize_tensor(data), -size, size)
