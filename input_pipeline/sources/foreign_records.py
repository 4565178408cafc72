"""Finds the images in TFRecord files that other programs wrote, without reading the images.

A record is a `tf.train.Example`: a map from names of features to lists of values. The program
jumps from one length to the next and reads only the small features: the class, its name, and the
name of the file. TensorFlow checks the checksums of a record whenever it is read.
"""

import os
import pathlib
from collections.abc import Mapping
from io import FileIO
from typing import NamedTuple

from input_pipeline.errors import DataError
from input_pipeline.sources import tfrecord
from input_pipeline.sources.packed_images import Entry
from input_pipeline.system import regular_files

IMAGE_FEATURES = ("image/encoded", "image")
_NUMBER_FEATURES = ("image/class/label", "label")
_WNID_FEATURES = ("image/class/synset",)
_NAME_FEATURES = ("image/filename", "file_name")
_FRAME_HEAD, _FRAME_TAIL = 12, 4  # length and its checksum; checksum of the data
_WINDOW = 1024
_MAX_VALUE_BYTES = 1024  # longer values are images
_MAX_FIELDS = 100_000  # of a message
_VARINT, _BYTES = 0, 2  # wire types of protocol buffers
_BYTES_LIST, _INT64_LIST = 1, 3  # fields of `tf.train.Feature`


class _Section(NamedTuple):
    start: int
    end: int


class _Window:
    """Reads a file at any position, and keeps the last bytes that it read."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._start, self._data = 0, b""

    def read(self, position: int, size: int) -> bytes:
        """Returns bytes of the file; fewer at its end."""
        begin = position - self._start
        if begin < 0 or begin + size > len(self._data):
            self._file.seek(position)
            self._start, self._data = position, self._file.read(max(size, _WINDOW))
            begin = 0
        return self._data[begin : begin + size]

    def read_varint(self, position: int) -> tuple[int, int]:
        """Returns a variable-length integer, and the position behind it."""
        value = 0
        for number, byte in enumerate(self.read(position, 10)):
            value |= (byte & 0x7F) << 7 * number
            if byte < 0x80:
                return value, position + number + 1
        raise ValueError("a malformed integer")

    def read_text(self, section: _Section) -> bytes:
        """Returns the bytes of a short field."""
        size = section.end - section.start
        if not 0 <= size <= _MAX_VALUE_BYTES:
            raise ValueError("a name that is too long")
        return self.read(section.start, size)

    def fields(self, section: _Section) -> list[tuple[int, _Section]]:
        """Returns the number of each field of a message, and where its value is."""
        position, fields = section.start, []
        while position < section.end:
            tag, start = self.read_varint(position)
            value, position = self.read_varint(start)
            if tag & 7 == _BYTES:
                start, position = position, position + value
            elif tag & 7 != _VARINT:
                raise ValueError(f"wire type {tag & 7}")
            fields.append((tag >> 3, _Section(start, position)))
            if len(fields) > _MAX_FIELDS:
                raise ValueError("too many fields")
        if position != section.end:
            raise ValueError("a field that is too long")
        return fields


def list_images(path: pathlib.Path, limit: int | None = None) -> tuple[list[Entry], str]:
    """Returns the images of a TFRecord file, and the feature that holds them.

    Args:
      path: the file.
      limit: number of images after which to stop; None for all.

    Raises:
      DataError: the file is truncated, or a record is not an Example with an image and its class.
    """
    try:
        with regular_files.open_regular(path) as file:
            return _list_images(path, file.raw, limit)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _list_images(path: pathlib.Path, file: FileIO, limit: int | None) -> tuple[list[Entry], str]:
    size = os.fstat(file.fileno()).st_size
    if not size:  # as a copy to a full disk leaves it
        raise DataError(f"{path}: is empty; copy the file again")
    entries: list[Entry] = []
    image_features = set()
    window, offset = _Window(file), 0
    while offset < size and (limit is None or len(entries) < limit):
        length = int.from_bytes(window.read(offset, 8), "little")
        end = offset + _FRAME_HEAD + length + _FRAME_TAIL
        if end > size:
            raise DataError(
                f"{path}: is truncated in record {len(entries)}: it has {size} bytes, the"
                f" record needs {end}; copy the file again"
            )
        if length > regular_files.MAX_IMAGE_BYTES:
            raise DataError(f"{path}: record {len(entries)} claims {length} bytes; remove it")
        try:
            example = _Section(offset + _FRAME_HEAD, end - _FRAME_TAIL)
            features = _read_features(window, example)
            image = next(name for name in IMAGE_FEATURES if name in features)
        except (ValueError, StopIteration) as error:
            if damage := tfrecord.find_damage(path, offset, end - offset):
                raise DataError(
                    f"{path}: record {len(entries)} is damaged ({damage}); copy the file again"
                ) from None
            reason = str(error) or f"no feature {' or '.join(IMAGE_FEATURES)}"
            raise DataError(
                f"{path}: record {len(entries)} is not an example with an image ({reason})"
            ) from None
        image_features.add(image)
        entries.append(make_entry(features, path, len(entries), offset, end - offset))
        offset = end
    if len(image_features) > 1:
        raise DataError(f"{path}: records have different features: {', '.join(image_features)}")
    return entries, "".join(image_features)


def make_entry(
    features: Mapping[str, int | bytes | None],
    path: pathlib.Path,
    record: int,
    offset: int,
    size: int,
    place: tuple[int, int, int] = (0, 0, 0),
) -> Entry:
    """Returns what the features of a record say about its image.

    Args:
      features: first value of each feature.
      path: the file.
      record: number of the record, which names an image without a name.
      offset, size, place: see Entry.
    """
    name, wnid = (_get_text(features, names) for names in (_NAME_FEATURES, _WNID_FEATURES))
    number = next((features[n] for n in _NUMBER_FEATURES if n in features), -1)
    return Entry(
        os.path.basename(name) or f"{path.name}-{record:06d}",
        wnid,
        number if isinstance(number, int) else -1,
        *(offset, size, place),
    )


def _get_text(features: Mapping[str, int | bytes | None], names: tuple[str, ...]) -> str:
    values = (features.get(name) for name in names)
    return next((os.fsdecode(value) for value in values if isinstance(value, bytes)), "")


def _read_features(window: _Window, example: _Section) -> dict[str, int | bytes | None]:
    """Returns the first value of each feature; None for a long or an empty one."""
    features: dict[str, int | bytes | None] = {}
    for _, all_features in window.fields(example):
        for _, pair in window.fields(all_features):
            fields = dict(window.fields(pair))
            key = window.read_text(fields.get(1, _Section(0, 0))).decode()
            features[key] = _read_first_value(window, fields.get(2, _Section(0, 0)))
    return features


def _read_first_value(window: _Window, feature: _Section) -> int | bytes | None:
    for kind, values in window.fields(feature):
        if kind == _BYTES_LIST and values.end > values.start:
            # Only the first value, because the list of an image would be read to its end.
            _, position = window.read_varint(values.start)
            length, position = window.read_varint(position)
            return window.read(position, length) if length <= _MAX_VALUE_BYTES else None
        if kind == _INT64_LIST:
            for _, value in window.fields(values):
                number = window.read_varint(value.start)[0]
                return number - 2**64 if number >= 2**63 else number
    return None
