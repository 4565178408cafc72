"""Reads images in Parquet files, with the optional package pyarrow."""

import collections
import functools
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import file_ranges
from input_pipeline.system import regular_files, typed_json

# Names of the column of class numbers, in order of preference.
_LABELS = ("label", "labels", "cls", "fine_label", "target", "class", "class_id", "category")
# Row groups that are kept decoded. Images are read in random order, so few repeat.
_MAX_CACHED_GROUPS = 4
_MAX_GROUP_ROWS, _MAX_GROUP_BYTES = 2**20, 2**33
_BLOCK_BYTES = 1 << 16  # what Snappy compresses at a time
NOT_ALONE = (-1, 0, 0)  # see Row


class Columns(NamedTuple):
    """The columns of a Parquet file of images.

    Attributes:
      image: path of the column of encoded images, such as image.bytes.
      name: path of the column of file names, or "".
      label: name of the column of class numbers.
      class_names: class names by number, or ().
    """

    image: str
    name: str
    label: str
    class_names: tuple[str, ...]


def _import_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"a Parquet file needs the package {error.name or 'pyarrow'}, which is not installed;"
            " run pip install -r requirements/parquet.txt"
        ) from None
    return pyarrow.parquet


@functools.lru_cache(maxsize=4096)
def _read_metadata(path: str, _mtime_ns: int) -> Any:
    parquet = _import_parquet()
    try:
        return parquet.read_metadata(path)
    except Exception as error:  # pyarrow raises many types for malformed files
        raise DataError(f"{path}: is not a complete Parquet file ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0]


def get_metadata(path: str | os.PathLike[str]) -> Any:
    """Returns pyarrow's FileMetaData.

    Raises:
      UsageError: pyarrow is not installed.
      DataError: the file is damaged.
    """
    try:
        with regular_files.open_regular(path) as file:
            mtime_ns = os.fstat(file.fileno()).st_mtime_ns
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return _read_metadata(str(path), mtime_ns)


class NoColumnsError(DataError):
    """A file has no column of images, or no column of class numbers."""


def find_columns(path: pathlib.Path) -> Columns:
    """Finds the columns of the images and of their classes.

    Raises:
      UsageError: pyarrow is not installed.
      NoColumnsError: the file has no such columns.
      DataError: it is damaged.
    """
    metadata = get_metadata(path)
    columns = {
        c.path: c.physical_type for c in map(metadata.schema.column, range(metadata.num_columns))
    }
    binary = [p for p, kind in columns.items() if kind == "BYTE_ARRAY"]
    images = [p for p in binary if p.endswith(".bytes") or p in ("image", "img", "jpg", "jpeg")]
    # Any other whole number may be a width or the number of a row.
    labels = [p for p in _LABELS if columns.get(p, "").startswith("INT")]
    if not images or not labels:
        found = ", ".join(f"{p} ({kind})" for p, kind in columns.items())
        raise NoColumnsError(
            f"{path}: has no column of images (image.bytes) with a column of class numbers"
            f" ({', '.join(_LABELS)}); it has {found}; rename or add it"
        )
    name = images[0].removesuffix(".bytes") + ".path"
    return Columns(
        images[0],
        name if name in columns else "",
        labels[0],
        _read_class_names(metadata, labels[0]),
    )


def _read_class_names(metadata: Any, label: str) -> tuple[str, ...]:
    """Returns the class names that Hugging Face's libraries write."""
    try:
        facts = regular_files.parse_json(metadata.metadata[b"huggingface"])
        names = facts["info"]["features"][label]["names"]
        return typed_json.convert(names, tuple[str, ...], "names")
    except (TypeError, KeyError, ValueError):
        return ()


class Row(NamedTuple):
    """One row of a Parquet file.

    Attributes:
      name: file name of the image, or "".
      number: class number, or -1.
      offset, size: range of the file that holds the image.
      place: (bytes that this range has when it is decompressed, first byte of the image in them,
        bytes of the image). The first number is 0 if the range is not compressed. If it is -1,
        the row cannot be read alone: `offset` is then its number in the file.
    """

    name: str
    number: int
    offset: int
    size: int
    place: tuple[int, int, int]


def list_rows(path: pathlib.Path, columns: Columns, limit: int | None = None) -> list[Row]:
    """Returns the rows of a file. Without a limit, the images are read and checked too.

    Args:
      path: the file.
      columns: its columns.
      limit: number of rows after which to stop, whose images are not located; None for all.

    Raises:
      DataError: the file is damaged.
    """
    metadata = get_metadata(path)
    _require_usual_groups(path, metadata)
    wanted = [column for column in (columns.name, columns.label) if column]
    rows: list[Row] = []
    try:
        with _open(str(path)) as file:
            for group in range(metadata.num_row_groups):
                if limit is not None and len(rows) >= limit:
                    break
                table = _flatten(file.read_row_group(group, wanted))
                numbers = table[columns.label].to_pylist()
                names = table[columns.name].to_pylist() if columns.name else [""] * len(numbers)
                places = [(len(rows) + row, 0, NOT_ALONE) for row in range(len(numbers))]
                if limit is None:
                    places = _locate_images(path, file, metadata, group, columns.image, len(rows))
                for name, number, place in zip(names, numbers, places, strict=True):
                    rows.append(
                        Row(os.fsdecode(name or ""), -1 if number is None else int(number), *place)
                    )
    except Exception as error:  # pyarrow and the parser of pages raise many types
        raise _damaged(path, group, error) from None
    return rows[:limit]


def _damaged(path: str | os.PathLike[str], group: int, error: Exception) -> DataError:
    return DataError(f"{path}: is damaged in row group {group} ({_reason(error)}); copy it again")


def _require_usual_groups(path: pathlib.Path, metadata: Any) -> None:
    """Raises DataError if a row group, which is decoded at once, claims to fill the memory."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.num_rows > _MAX_GROUP_ROWS or group.total_byte_size > _MAX_GROUP_BYTES:
            raise DataError(
                f"{path}: row group {number} has {group.num_rows} rows and {group.total_byte_size}"
                " bytes; write smaller row groups"
            )


def _flatten(table: Any) -> Any:
    """Returns a table whose columns have the paths of the schema as names."""
    while any(str(field.type).startswith("struct") for field in table.schema):
        table = table.flatten()
    return table


def _open(path: str) -> Any:
    return _import_parquet().ParquetFile(path, metadata=get_metadata(path))


def _locate_images(
    path: pathlib.Path, file: Any, metadata: Any, group: int, image: str, first_row: int
) -> list[tuple[int, int, tuple[int, int, int]]]:
    """Finds the (offset, size, place) of each image of a row group, see Row.

    A row group has about 100 images, too many to decode for each image. Snappy compresses 64 KB at
    a time, independently of the bytes before. An image is therefore in a few blocks. Each place
    is tried here, so an image is never read from a wrong place.
    """
    table = _flatten(file.read_row_group(group, [image]))
    values = [value or b"" for value in table[image].to_pylist()]
    facts = metadata.row_group(group)
    index = next(k for k in range(facts.num_columns) if facts.column(k).path_in_schema == image)
    column = facts.column(index)
    start = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset:
        start = min(start, column.dictionary_page_offset)
    with regular_files.open_regular(path) as binary:
        binary.seek(start)
        chunk = binary.read(column.total_compressed_size)
    pages = list(_read_pages(chunk, column.compression))
    # An image without bytes is a bad one like others.
    located: dict[bytes, tuple[int, int, tuple[int, int, int]]] = {b"": (start, 0, (0, 0, 0))}
    page_number = position = 0
    for value in values:
        while page_number < len(pages) and value not in located:
            found = pages[page_number].body.find(value, position)
            if found < 0:
                page_number, position = page_number + 1, 0
                continue
            position = found + len(value)
            if (position_in_chunk := pages[page_number].locate(found, len(value))) is not None:
                offset, size, place = position_in_chunk
                if _decompress(chunk[offset : offset + size], place) == value:
                    located[value] = (start + offset, size, place)
            break
    return [
        located.get(value, (first_row + row, len(value), NOT_ALONE))
        for row, value in enumerate(values)
    ]


class _Page(NamedTuple):
    """A page of a column.

    Attributes:
      start: where its data begins in the column, compressed.
      body: its data, decompressed.
      blocks: where each block begins in the column, then the end; empty if it is not compressed.
    """

    start: int
    body: bytes
    blocks: list[int]

    def locate(self, first: int, size: int) -> tuple[int, int, tuple[int, int, int]] | None:
        """Returns the (offset, size, place) of some bytes of `body`, see Row."""
        if not self.blocks:
            return self.start + first, size, (0, 0, size)
        begin, end = first // _BLOCK_BYTES, -(-(first + size) // _BLOCK_BYTES)
        if end >= len(self.blocks) or not size:
            return None
        total = min(end * _BLOCK_BYTES, len(self.body)) - begin * _BLOCK_BYTES
        offset = self.blocks[begin]
        return offset, self.blocks[end] - offset, (total, first - begin * _BLOCK_BYTES, size)


def _read_pages(chunk: bytes, compression: str) -> Iterator[_Page]:
    """Yields the pages of a column that have one of the known forms."""
    position = 0
    while position < len(chunk):
        header, position = _read_struct(chunk, position)
        body_size, size = header.get(2, 0), header.get(3, 0)
        end = position + size
        is_version_2 = 8 in header  # a part of such a page is never compressed
        if compression == "UNCOMPRESSED":
            yield _Page(position, chunk[position:end], [])
        elif compression == "SNAPPY" and not is_version_2:
            body = _snappy().decompress(chunk[position:end], body_size).to_pybytes()
            if blocks := _find_blocks(chunk, position, end):
                yield _Page(position, body, blocks)
        position = end


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _read_struct(data: bytes, position: int) -> tuple[dict[int, int], int]:
    """Reads a page header, a struct in Thrift's compact protocol.

    Returns:
      (the integers by field, with 1 for a field of another type; the position behind it).
    """
    fields: dict[int, int] = {}
    number = 0
    while True:
        byte = data[position]
        position += 1
        if byte == 0:
            return fields, position
        kind, number = byte & 0x0F, number + (byte >> 4)
        if not byte >> 4:
            number, position = _read_varint(data, position)
            number = number >> 1 ^ -(number & 1)
        fields[number] = 1
        if kind in (4, 5, 6):  # integers
            value, position = _read_varint(data, position)
            fields[number] = value >> 1 ^ -(value & 1)
        elif kind == 3:  # byte
            position += 1
        elif kind == 7:  # double
            position += 8
        elif kind == 8:  # bytes
            size, position = _read_varint(data, position)
            position += size
        elif kind == 12:  # struct
            _, position = _read_struct(data, position)
        elif kind not in (1, 2):  # true and false have no value
            raise ValueError(f"type {kind} in a page header")


def _find_blocks(data: bytes, position: int, end: int) -> list[int]:
    """Returns where each 64 KB block of a Snappy stream begins, and the end.

    Returns an empty list if the blocks are not apart.
    """
    total, position = _read_varint(data, position)
    blocks, done = [position], 0
    while position < end:
        tag = data[position]
        position += 1
        if tag & 3 == 0:  # bytes follow
            size = (tag >> 2) + 1
            if size > 60:
                num_bytes = size - 60
                size = int.from_bytes(data[position : position + num_bytes], "little") + 1
                position += num_bytes
            position += size
        else:  # a copy of earlier bytes
            size = (tag >> 2 & 7) + 4 if tag & 3 == 1 else (tag >> 2) + 1
            position += (0, 1, 2, 4)[tag & 3]
        if done // _BLOCK_BYTES != (done + size) // _BLOCK_BYTES:
            if (done + size) % _BLOCK_BYTES:
                return []
            blocks.append(position)
        done += size
    if done != total:
        return []
    return [*blocks, end] if done % _BLOCK_BYTES else blocks


@functools.cache
def _snappy() -> Any:
    import pyarrow

    return pyarrow.Codec("snappy")


def _decompress(data: bytes, place: tuple[int, int, int]) -> bytes:
    """Returns an image from the bytes of its range, see Row."""
    total, first, size = place
    if not total:
        return data
    head, rest = bytearray(), total
    while rest > 0x7F:
        head.append(rest & 0x7F | 0x80)
        rest >>= 7
    head.append(rest)
    try:
        body = _snappy().decompress(bytes(head) + data, total)
    except OSError:  # it needs bytes of an earlier block
        return b""
    return body.slice(first, size).to_pybytes()


_lock = threading.Lock()
_groups: collections.OrderedDict[tuple[str, str, int], Any] = collections.OrderedDict()


def require_random_access(path: str, totals: np.ndarray) -> None:
    """Raises UsageError if an image cannot be read alone.

    Args:
      path: one of the files.
      totals: the first number of the place of each image, see Row.
    """
    if num_others := int((totals < 0).sum()):
        raise UsageError(
            f"{path}: {num_others} images have no random access, because the compression is not"
            " Snappy; use --mode=prepare, which reads them"
        )


def extract_in_graph(data: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Returns the image in the bytes of its range, as a string scalar.

    Args:
      data: string scalar.
      place: int32 [3], see Row.
    """
    total, first, size = tf.unstack(place)
    return tf.cond(
        total == 0,
        lambda: data,
        lambda: file_ranges.to_string(_decompress_in_graph(data, total)[first : first + size]),
    )


def _decompress_in_graph(data: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    """Decompresses Snappy blocks of `total` bytes in all; returns uint8 [total].

    TensorFlow decompresses the elements of its data service with Snappy. The bytes of such an
    element, a protocol buffer in a variant tensor, are put together here.
    """

    def field(number: int, *parts: bytes | tf.Tensor) -> list[bytes | tf.Tensor]:
        length = sum(len(p) if isinstance(p, bytes) else tf.strings.length(p) for p in parts)
        return [bytes([number << 3 | 2]), _varint_in_graph(length), *parts]

    size = _varint_in_graph(total)
    shape = field(2, *field(2, b"\x08", size))
    component = field(2, bytes([1 << 3, tf.uint8.as_datatype_enum]), *shape, *field(4, size))
    element = field(2, *field(1, size, data), *component)
    variant = field(15, *field(1, b"tensorflow.data.CompressedElement"), *element)
    head = bytes([1 << 3, tf.variant.as_datatype_enum, 2 << 3 | 2, 0])  # a scalar variant
    # Joined once, because each join copies the data.
    compressed = tf.io.parse_tensor(tf.strings.join([head, *variant]), tf.variant)
    return tf.raw_ops.UncompressElement(
        compressed=compressed, output_types=[tf.uint8], output_shapes=[[None]]
    )[0]


def _varint_in_graph(number: tf.Tensor) -> tf.Tensor:
    """Returns an integer as a variable-length integer of 5 bytes."""
    digits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(number, [0, 7, 14, 21, 28]), 0x7F)
    marked = tf.bitwise.bitwise_or(digits, [0x80, 0x80, 0x80, 0x80, 0])
    return file_ranges.to_string(tf.cast(marked, tf.uint8))


def read_image(
    path: str, offset: int, size: int, place: tuple[int, int, int], column: str
) -> bytes:
    """Returns the image of a row.

    Args:
      path: path of the file.
      offset, size, place: see Row.
      column: path of the column of images.

    Raises:
      OSError: the file cannot be read.
      DataError: it is damaged.
    """
    if place[0] < 0:
        return _read_row(path, offset, column)
    image = _decompress(file_ranges.read(path, offset, size), place)
    if len(image) != place[2]:
        raise DataError(f"{path}: is damaged at byte {offset}; copy it again")
    return image


def _read_row(path: str, row: int, column: str) -> bytes:
    """Returns the image in a row. Its whole row group is decoded."""
    metadata = get_metadata(path)
    if row >= metadata.num_rows:
        raise DataError(f"{path}: has no row {row}; copy it again")
    group, first = 0, 0
    while row >= first + metadata.row_group(group).num_rows:
        first += metadata.row_group(group).num_rows
        group += 1
    key = (path, column, group)
    with _lock:
        values = _groups.get(key)
    if values is None:
        try:
            with _open(path) as file:
                values = _flatten(file.read_row_group(group, [column]))[column].combine_chunks()
        except Exception as error:  # pyarrow raises many types for damaged files
            raise _damaged(path, group, error) from None
        with _lock:
            _groups[key] = values
            while len(_groups) > _MAX_CACHED_GROUPS:
                _groups.popitem(last=False)
    return values[row - first].as_py() or b""
