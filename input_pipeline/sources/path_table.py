"""Parses and stores millions of paths compactly, as the bytes of `path label` lines."""

import collections.abc
import os
from collections.abc import Callable, Iterable, Sequence
from typing import cast, overload

import numpy as np
import tensorflow as tf

_NEWLINE, _SPACE, _ZERO = b"\n"[0], b" "[0], b"0"[0]
_MAX_DIGITS = 7
# `str.splitlines` or `str.rstrip` treat these as line ends or whitespace. Lists that contain them
# take the slow parser.
_UNUSUAL_BYTES = (b"\r", b"\t", b"\x0b", b"\x0c", b"\0")


class PathTable(collections.abc.Sequence[str]):
    """A sequence of str, stored as the bytes of `path label` lines and the position of each path.

    The paths of ILSVRC 2012 take 150 MB as str objects and half of that in this form. This form
    is also built in a fraction of the time.

    Args:
      lines: one `path label` line for each path.
      starts, ends: int32 or int64 [N], byte positions of each path in `lines`.
    """

    def __init__(self, lines: bytes, starts: np.ndarray, ends: np.ndarray) -> None:
        self.lines = lines
        self._starts = starts
        self._ends = ends

    @property
    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """The start and end of each path in `lines`."""
        return self._starts, self._ends

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return os.fsdecode(self.lines[self._starts[index] : self._ends[index]])

    def __eq__(self, other: object) -> bool:
        return list(self) == list(cast(Iterable[str], other))

    def make_lookup(self, root: str | os.PathLike[str]) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns the function from an int64 index tensor to the full path below `root`.

        The function captures the table by reference, because constants of a graph are copied.
        """
        # From an object array TensorFlow copies the bytes once, from bytes four times.
        lines = tf.constant(np.array(self.lines, object))
        starts, lengths = tf.constant(self._starts), tf.constant(self._ends - self._starts)
        # Resolve links first, because TensorFlow simplifies `link/..` without following the link.
        prefix = os.fsencode(os.path.join(os.path.realpath(root), ""))

        def path(index):
            name = tf.strings.substr(lines, starts[index], lengths[index])
            is_absolute = tf.strings.substr(name, 0, 1) == b"/"
            return tf.where(is_absolute, name, prefix + name)

        return path


def from_names(names: Iterable[str], labels: Sequence[int] | np.ndarray) -> PathTable:
    """Builds a PathTable from paths and their labels."""
    paths = [os.fsencode(name) for name in names]
    lines = b"".join(b"%s %d\n" % pair for pair in zip(paths, labels, strict=True))
    path_lengths = np.fromiter(map(len, paths), np.int64, len(paths))
    num_digits = np.char.str_len(np.asarray(labels).astype(str)) if paths else path_lengths
    line_lengths = path_lengths + num_digits + 2
    starts = np.cumsum(line_lengths) - line_lengths
    return PathTable(lines, starts, starts + path_lengths)


def parse(data: bytes) -> tuple[PathTable, np.ndarray] | None:
    """Parses `path label` lines of the usual form, all lines at once.

    Args:
      data: content of a list file.

    Returns:
      (paths, labels), with labels as int32 [N]. None if a line is not `path label` with a single
      space and a plain number: the caller then finds and names that line.
    """
    if not data.endswith(b"\n"):
        data += b"\n"
    if any(byte in data for byte in _UNUSUAL_BYTES):
        return None
    characters = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(characters == _NEWLINE)
    if len(data) < 2**31:  # halves the memory
        newlines = newlines.astype(np.int32)
    starts = np.concatenate([newlines[:1] * 0, newlines[:-1] + 1])
    labels = np.zeros(len(newlines), np.int32)
    position = newlines - 1  # moves from the end of each line to the front, over the digits
    in_label = np.ones(len(newlines), bool)
    for power in range(_MAX_DIGITS):
        digit = characters[np.maximum(position, 0)].astype(np.int32) - _ZERO
        in_label &= (digit >= 0) & (digit <= 9) & (position > starts)
        if not in_label.any():
            break
        labels += np.where(in_label, digit, 0) * 10**power
        position -= in_label
    num_digits = newlines - 1 - position
    is_plain = (num_digits > 0) & (characters[np.maximum(position, 0)] == _SPACE)
    is_plain &= (position > starts) & (characters[np.maximum(position - 1, 0)] != _SPACE)
    is_plain &= (num_digits == 1) | (characters[position + 1] != _ZERO)  # no leading zeros
    if not is_plain.all():
        return None
    return PathTable(data, starts, position), labels
