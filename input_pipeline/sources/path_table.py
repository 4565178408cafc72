"""A million names in one piece of memory: the `path label` lines of a list, parsed all at once."""

import collections.abc
import os

import numpy as np
import tensorflow as tf

_NEWLINE, _SPACE, _ZERO = b"\n"[0], b" "[0], b"0"[0]
_MAX_DIGITS = 7
# What `str.splitlines` or `str.rstrip` would treat like a line's end; such lists are read slowly.
_UNUSUAL_BYTES = (b"\r", b"\t", b"\x0b", b"\x0c", b"\0")


class PathTable(collections.abc.Sequence):
    """A sequence of str, held as the bytes of `path label` lines and where each path lies.

    As str objects the names of ILSVRC 2012 take 150 MB, like this half of it, and they are there
    in a fraction of the time.

    Args:
      lines: bytes, one `path label` line for each name.
      starts, ends: int32 or int64 [N], where each path begins and ends in them.
    """

    def __init__(self, lines, starts, ends):
        self.lines = lines
        self._starts = starts
        self._ends = ends

    def __len__(self):
        return len(self._starts)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return os.fsdecode(self.lines[self._starts[index] : self._ends[index]])

    def __eq__(self, other):
        return list(self) == list(other)

    def make_lookup(self, root):
        """Returns the function from an int64 index tensor to the path below `root`.

        The table goes into tf.data by reference: constants of a graph would be copied into it.
        """
        # Out of an array of objects they are copied once; as bytes they would be copied four times.
        lines = tf.constant(np.array(self.lines, object))
        starts, lengths = tf.constant(self._starts), tf.constant(self._ends - self._starts)
        # TensorFlow takes `..` back along the path, not from where a link leads.
        prefix = os.fsencode(os.path.join(os.path.realpath(root), ""))

        def path(index):
            name = tf.strings.substr(lines, starts[index], lengths[index])
            is_absolute = tf.strings.substr(name, 0, 1) == b"/"
            return tf.where(is_absolute, name, prefix + name)

        return path


def from_names(names, labels):
    """Makes a PathTable of a list of str and their labels."""
    rows = [os.fsencode(name) for name in names]
    lines = b"".join(b"%s %d\n" % row for row in zip(rows, labels, strict=True))
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    digits = np.char.str_len(np.asarray(labels).astype(str)) if rows else lengths
    steps = lengths + digits + 2
    starts = np.cumsum(steps) - steps
    return PathTable(lines, starts, starts + lengths)


def parse(data):
    """Parses `path label` lines of the usual form, all at once.

    Args:
      data: bytes of a list.

    Returns:
      (PathTable, labels int32 [N]), or None where some line is not `path label` with a single
      space and a plain number: then it is for the caller to say which.
    """
    if not data.endswith(b"\n"):
        data += b"\n"
    if any(byte in data for byte in _UNUSUAL_BYTES):
        return None
    letters = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(letters == _NEWLINE)
    if len(data) < 2**31:  # half the memory
        newlines = newlines.astype(np.int32)
    starts = np.concatenate([newlines[:1] * 0, newlines[:-1] + 1])
    labels = np.zeros(len(newlines), np.int32)
    at = newlines - 1  # walks from the line's end over the digits
    inside = np.ones(len(newlines), bool)
    for power in range(_MAX_DIGITS):
        digit = letters[np.maximum(at, 0)].astype(np.int32) - _ZERO
        inside &= (digit >= 0) & (digit <= 9) & (at > starts)
        if not inside.any():
            break
        labels += np.where(inside, digit, 0) * 10**power
        at -= inside
    digits = newlines - 1 - at
    plain = (digits > 0) & (letters[np.maximum(at, 0)] == _SPACE)
    plain &= (at > starts) & (letters[np.maximum(at - 1, 0)] != _SPACE)
    plain &= (digits == 1) | (letters[at + 1] != _ZERO)  # no leading zeros
    if not plain.all():
        return None
    return PathTable(data, starts, at), labels
