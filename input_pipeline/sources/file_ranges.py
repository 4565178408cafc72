"""Reads ranges of bytes of files, in Python or in a graph of TensorFlow.

TensorFlow has no operation that reads a range. A graph therefore maps each file into memory as a
tensor, and copies the range out of it.

A Python function in the graph would be simpler, but would hang. TensorFlow waits for running calls
when an iterator is deleted. The deleting thread then holds the interpreter lock that they need.
"""

import os
from collections.abc import Callable, Sequence

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
            if size := _get_size(path):  # an empty file cannot be mapped
                mapped_files.watch(path)
                mapped = tf.raw_ops.ImmutableConst(
                    dtype=tf.uint8, shape=[size], memory_region_name=path
                )
            tensors = tf.raw_ops.TensorListSetItem(input_handle=tensors, index=number, item=mapped)

    def read_in_graph(file: tf.Tensor, offset: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        mapped = tf.raw_ops.TensorListGetItem(
            input_handle=tensors, index=file, element_shape=[-1], element_dtype=tf.uint8
        )
        return to_string(tf.slice(mapped, offset[tf.newaxis], size[tf.newaxis]))

    return read_in_graph


def _get_size(path: str) -> int:
    try:
        with regular_files.open_regular(path) as file:
            return os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def to_string(data: tf.Tensor) -> tf.Tensor:
    """Returns uint8 [N] as a string scalar of N bytes."""
    # A serialized tensor ends with its bytes.
    size = tf.size(data)
    return tf.strings.substr(tf.io.serialize_tensor(data), -size, size)
