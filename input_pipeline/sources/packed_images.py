"""Reads images that lie inside larger files, in place: tar files, TFRecords of others, Parquet.

An index file has the position of every image. It is made once, part by part: an interrupted run
continues after the last finished part. It lies in the folder `.index` of the data set, or in a
cache folder if the data set is read-only.

Images have the names and the order that the same images have in class folders. All layouts of a
data set therefore give the same batches and the same fingerprint.
"""

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline.errors import DataError
from input_pipeline.sources import (
    array_records,
    file_ranges,
    image_files,
    index_folder,
    parquet_files,
    path_table,
    tfrecord,
)
from input_pipeline.system import (
    atomic_files,
    npy_files,
    regular_files,
    typed_json,
)
from input_pipeline.text import pluralize, tf_error_message

# One row per image: number of its file, label, and position. The position is the range of bytes of
# the image in a tar file, the frame of its record in a TFRecord file, or the range of bytes of a
# Parquet file with the place of the image in them.
_ROW = np.dtype(
    [("file", "<i4"), ("label", "<i4"), ("offset", "<i8"), ("size", "<i8"), ("place", "<i4", 3)]
)
_FORMAT_VERSION = 1
_LOG_SECONDS = 10.0
_MAX_INDEX_BYTES = 2**33
_MAX_RANGE_BYTES = regular_files.MAX_IMAGE_BYTES + 2**20  # with the frame of a record
_MAX_NAME_LENGTH = 1000

TAR, RECORD, PARQUET, ARRAY_RECORD = "tar", "record", "parquet", "array_record"


NOT_ALONE = parquet_files.NOT_ALONE


class Entry(NamedTuple):
    """What a file says about one of its images.

    Attributes:
      name: file name of the image, without folders.
      wnid: name of its class, or "".
      number: number of its class, or -1.
      offset, size: its position in the file.
      place: where the image is in this range of a Parquet file, see `parquet_files.Row`. It is
        NOT_ALONE if the image cannot be read alone. `offset` is then its number in the file.
    """

    name: str
    wnid: str
    number: int
    offset: int
    size: int
    place: tuple[int, int, int] = (0, 0, 0)


class Part(NamedTuple):
    """A part of a split that is indexed at once, such as a shard.

    Attributes:
      name: distinct in the split.
      file: number of its file.
      scan: function that returns its images.
    """

    name: str
    file: int
    scan: Callable[[], list[Entry]]


class _Details(TypedDict):
    """The part of an index file that is JSON. The file may be a stranger's."""

    facts: Any
    classes: list[str]
    rule: str
    unlabeled: list[str]


class Labels(NamedTuple):
    """The labels of all entries of a split.

    Attributes:
      classes: class names by label.
      labels: int32 [N]; -1 for an image without a label.
      names: name of each image.
      rule: what the labels come from, for the log.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    names: list[str]
    rule: str


@dataclasses.dataclass(frozen=True)
class PackedImages:
    """The images of one split.

    Attributes:
      storage: TAR, RECORD, PARQUET or ARRAY_RECORD; all but the first are followed by ":" and the
        feature or column that holds the image.
      files: paths of the files.
      rows: [N] of `_ROW`, sorted by label and then by name.
      names: path that each image has in class folders.
      labels: int32 [N], by `class_names`.
      class_names: name of each class, by label.
      rule: what the labels come from.
      unlabeled: names of images without a label, which are left out.
    """

    storage: str
    files: tuple[str, ...]
    rows: np.ndarray
    names: path_table.PathTable
    labels: np.ndarray
    class_names: tuple[str, ...]
    rule: str
    unlabeled: tuple[str, ...]

    @property
    def is_mapped(self) -> bool:
        """Whether the files are mapped into the memory of this process."""
        return self.storage.partition(":")[0] != RECORD

    def make_reader(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """Returns the function from an index tensor to (encoded image, label).

        Raises:
          UsageError: the compression of a Parquet file allows no random access.
        """
        # Tensors are captured by reference, because constants of a graph are copied.
        columns = ("file", "offset", "size", "place")
        file, offset, size, place = (
            tf.constant(np.ascontiguousarray(self.rows[column])) for column in columns
        )
        labels = tf.constant(self.labels)
        kind, _, key = self.storage.partition(":")
        if kind == RECORD:
            paths = tf.constant([os.fsencode(path) for path in self.files])

            def read_record(index):
                position = paths[file[index]], offset[index], size[index]
                return tfrecord.read_feature(*position, key), labels[index]

            return read_record
        if kind == PARQUET:
            parquet_files.require_random_access(self.files[0], self.rows["place"][:, 0])
        read_range = file_ranges.make_graph_reader(self.files)

        def read(index):
            data = read_range(file[index], offset[index], size[index])
            if kind == PARQUET:
                data = parquet_files.extract_in_graph(data, place[index])
            return tf.ensure_shape(data, []), labels[index]

        return read

    def describe(self, index: int) -> str:
        """Returns the file of an image, and its name."""
        return f"{self.files[self.rows['file'][index]]} ({self.names[index]})"

    def fingerprint(self) -> str:
        """Returns the SHA-256 over names and labels, equal to that of the same class folders."""
        digest = hashlib.sha256("\n".join(self.class_names).encode(errors="surrogateescape"))
        digest.update(self.names.lines)
        return digest.hexdigest()


def read_image(
    storage: str, path: str, offset: int, size: int, place: tuple[int, int, int]
) -> bytes:
    """Returns the bytes of one image.

    Args:
      storage: see PackedImages.
      path: path of the file.
      offset, size, place: position of the image.

    Raises:
      OSError: the file cannot be read.
      DataError: it is damaged.
    """
    kind, _, key = storage.partition(":")
    if kind == RECORD:
        tfrecord.require_frames([path], np.zeros(1, np.int32), np.array([offset]))
        start, length = (tf.constant(value, tf.int64) for value in (offset, size))
        try:
            return tfrecord.read_feature(tf.constant(os.fsencode(path)), start, length, key).numpy()
        except tf.errors.OpError as error:
            reason = tf_error_message(error)
            raise DataError(f"{path}: is damaged at byte {offset} ({reason})") from None
    if kind == PARQUET:
        return parquet_files.read_image(path, offset, size, place, key)
    if kind == ARRAY_RECORD:
        return array_records.read_image(path, offset, key)
    return file_ranges.read(path, offset, size)


def open_indexed(
    root: pathlib.Path,
    split: str,
    storage: str,
    files: Sequence[pathlib.Path],
    list_parts: Callable[[], Iterable[Part]],
    find_labels: Callable[[Sequence[Entry]], Labels],
    label_facts: str = "",
) -> PackedImages:
    """Opens the images of a split; makes the index if there is none for these files and labels.

    Args:
      root: folder of the data set.
      split: "train", "val" or "test".
      storage: see PackedImages.
      files: the files that hold the images.
      list_parts: function that returns all parts.
      find_labels: function that labels the entries of all parts.
      label_facts: identifies the labels, if they do not come from these files.

    Raises:
      UsageError: the index cannot be written anywhere.
      DataError: a file is damaged, or the split has no image.
    """
    facts: dict[str, Any] = {
        "format": _FORMAT_VERSION,
        "storage": storage,
        # Sizes and times tell whether the files are those that were indexed.
        "files": [
            [os.path.relpath(file, root), (stat := os.stat(file)).st_size, stat.st_mtime_ns]
            for file in files
        ],
        **({"labels": label_facts} if label_facts else {}),
    }
    found = (_load(path, facts) for path in index_folder.list_existing(root, f"{split}.npz"))
    index = next((index for index in found if index is not None), None)
    if index is None:
        path = index_folder.find(root) / f"{split}.npz"
        with index_folder.lock(path.parent):
            index = _load(path, facts) or _make(path, facts, split, list_parts, find_labels)
    details, rows, names = index
    if not len(rows):
        raise DataError(f"{root}: no labeled image in the {split} split ({details['rule']})")
    if storage.startswith(RECORD):
        tfrecord.require_frames(list(map(str, files)), rows["file"], rows["offset"])
    return PackedImages(
        storage,
        tuple(map(str, files)),
        rows,
        names,
        np.ascontiguousarray(rows["label"]),
        tuple(details["classes"]),
        details["rule"],
        tuple(details["unlabeled"]),
    )


def _load(
    path: pathlib.Path, facts: dict[str, Any]
) -> tuple[_Details, np.ndarray, path_table.PathTable] | None:
    """Returns (details, rows, names) of an index file; None if it is not one of these files.

    The file may be a stranger's. It only tells where to read, so a wrong one is made again.
    """
    if not os.path.lexists(path):
        return None
    try:
        with (
            regular_files.open_regular(path, _MAX_INDEX_BYTES) as file,
            zipfile.ZipFile(file) as archive,
        ):
            text = npy_files.read_zipped(archive, "details", np.uint8, 1).tobytes()
            details = typed_json.convert(regular_files.parse_json(text), _Details, "details")
            if details["facts"] != facts:
                logging.info("%s: the files have changed; they are indexed again", path)
                return None
            rows, lines, starts, ends = (
                npy_files.read_zipped(archive, name, dtype, 1)
                for name, dtype in (
                    *(("rows", _ROW), ("lines", np.uint8)),
                    *(("starts", np.int64), ("ends", np.int64)),
                )
            )
        if not len(rows) == len(starts) == len(ends):
            raise ValueError("its arrays have different lengths")
        if not ((starts >= 0) & (starts <= ends) & (ends <= len(lines))).all():
            raise ValueError("a name is outside of the names")
        if not _are_inside(rows, len(details["classes"]), facts).all():
            raise ValueError("an image is outside of its file or class")
    except Exception as error:  # zipfile raises many types for malformed files
        logging.warning("%s: cannot be used (%s); the files are indexed again", path, error)
        return None
    return details, rows, path_table.PathTable(lines.tobytes(), starts, ends)


def _are_inside(rows: np.ndarray, num_classes: int, facts: dict[str, Any]) -> np.ndarray:
    """Returns for each row whether its image is inside a file, and its label inside the classes."""
    sizes = np.array([size for _, size, _ in facts["files"]], np.int64)
    file, label, offset, size = (rows[name] for name in ("file", "label", "offset", "size"))
    inside = (file >= 0) & (file < len(sizes)) & (label >= 0) & (label < num_classes)
    inside &= (offset >= 0) & (size >= 0) & (size <= _MAX_RANGE_BYTES)
    total, first, length = rows["place"].T.astype(np.int64)
    is_row_number = total < 0  # see `parquet_files.Row`
    inside &= is_row_number | (offset <= sizes[np.clip(file, 0, len(sizes) - 1)] - size)
    inside &= (total <= _MAX_RANGE_BYTES) & (first >= 0) & (length >= 0)
    return inside & ((total <= 0) | (first <= total - length))


def _make(
    path: pathlib.Path,
    facts: dict[str, Any],
    split: str,
    list_parts: Callable[[], Iterable[Part]],
    find_labels: Callable[[Sequence[Entry]], Labels],
) -> tuple[_Details, np.ndarray, path_table.PathTable]:
    """Makes and writes an index file; returns its content as `_load` does."""
    logging.info("indexing %s: %s, into %s", split, pluralize(len(facts["files"]), "file"), path)
    unfinished = path.with_suffix(".unfinished")
    entries: list[Entry] = []
    files: list[int] = []
    for file, part_entries in _scan_parts(unfinished, facts, split, list(list_parts())):
        entries += part_entries
        files += [file] * len(part_entries)
    _require_usable(entries, files, facts)
    found = find_labels(entries)
    labels = found.labels.tolist()
    labeled = (i for i, label in enumerate(labels) if label >= 0)
    order = sorted(labeled, key=lambda i: (labels[i], found.names[i]))
    rows = np.empty(len(order), _ROW)
    rows["file"] = [files[i] for i in order]
    rows["label"] = found.labels[order]
    rows["offset"] = [entries[i].offset for i in order]
    rows["size"] = [entries[i].size for i in order]
    rows["place"] = np.array([entries[i].place for i in order], np.int32).reshape(-1, 3)
    if not (inside := _are_inside(rows, len(found.classes), facts)).all():
        row = int(np.argmin(inside))
        name = facts["files"][rows["file"][row]][0]
        unfinished.unlink(missing_ok=True)
        raise DataError(
            f"{name}: {entries[order[row]].name} has {rows['size'][row]} bytes at byte"
            f" {rows['offset'][row]}, which is too many or not inside the file; remove it"
        )
    names = path_table.from_names([found.names[i] for i in order], rows["label"])
    details: _Details = {
        "facts": facts,
        "classes": list(found.classes),
        "rule": found.rule,
        "unlabeled": [found.names[i] for i in np.flatnonzero(found.labels < 0).tolist()],
    }
    starts, ends = names.positions
    buffer = io.BytesIO()
    np.savez(
        buffer,
        details=np.frombuffer(json.dumps(details).encode(), np.uint8),
        rows=rows,
        lines=np.frombuffer(names.lines, np.uint8),
        starts=starts,
        ends=ends,
    )
    atomic_files.write_bytes(path, buffer.getvalue())
    unfinished.unlink(missing_ok=True)
    logging.info("indexed %s: %s, in %s", split, pluralize(len(order), "image"), path)
    return details, rows, names


def _scan_parts(
    unfinished: pathlib.Path, facts: dict[str, Any], split: str, parts: list[Part]
) -> Iterator[tuple[int, list[Entry]]]:
    """Yields the file and the entries of each part.

    Each finished part is one line of the file `unfinished`. A killed process leaves an incomplete
    last line, which is ignored.
    """
    finished = _read_unfinished(unfinished, facts)
    if finished:
        logging.info("%s: continuing after %d of %d parts", split, len(finished), len(parts))
    with atomic_files.replacing(unfinished) as log:  # without an incomplete line
        for value in (facts, *finished.items()):
            log.write(_format_line(value))
    with atomic_files.open_to_append(unfinished) as log:
        num_images, last_time = sum(map(len, finished.values())), time.monotonic()
        for number, part in enumerate(parts, 1):
            if part.name not in finished:
                entries = part.scan()
                log.write(_format_line([part.name, entries]))
                log.flush()
                num_images += len(entries)
            else:
                entries = finished[part.name]
            yield part.file, entries
            if time.monotonic() > last_time + _LOG_SECONDS:
                last_time = time.monotonic()
                message = "indexing %s: %d of %d parts, %d images"
                logging.info(message, split, number, len(parts), num_images)


def _format_line(value: Any) -> bytes:
    return (json.dumps(value) + "\n").encode()


def _read_unfinished(path: pathlib.Path, facts: dict[str, Any]) -> dict[str, list[Entry]]:
    """Returns the entries of each finished part, if they are of the same files.

    The file may be a stranger's; without it the parts are scanned again.
    """
    try:
        lines = regular_files.read_bytes(path, _MAX_INDEX_BYTES).split(b"\n")[:-1]
        if not lines or lines[0] != json.dumps(facts).encode():
            return {}
        parts = dict(map(regular_files.parse_json, lines[1:]))
        return {name: list(map(_parse_entry, entries)) for name, entries in parts.items()}
    except (OSError, ValueError, TypeError):
        return {}


def _parse_entry(value: list[Any]) -> Entry:
    name, wnid, number, offset, size, place = value
    total, first, length = place
    numbers = (number, offset, size, total, first, length)
    if type(name) is not str or type(wnid) is not str or {*map(type, numbers)} != {int}:
        raise ValueError("a wrong type")
    if not all(-(2**31) <= value < 2**31 for value in place) or max(offset, size) >= 2**62:
        raise ValueError("a number out of range")
    os.fsencode(name)
    return Entry(name, wnid, number, offset, size, (total, first, length))


def _require_usable(entries: Sequence[Entry], files: Sequence[int], facts: dict[str, Any]) -> None:
    """Raises DataError if a class has an unlikely number, or a name that is no text."""
    usable: set[str] = set()
    for entry, file in zip(entries, files, strict=True):
        where = f"{facts['files'][file][0]}: {entry.name}"
        if not -1 <= entry.number <= image_files.MAX_LABEL:
            raise DataError(
                f"{where} has class number {entry.number}, not one from 0 to"
                f" {image_files.MAX_LABEL}"
            )
        if entry.wnid in usable:
            continue
        try:
            typed_json.convert(entry.wnid, str, "the class name")
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        if len(entry.wnid) > _MAX_NAME_LENGTH:
            raise DataError(f"{where} has a class name of {len(entry.wnid)} characters")
        usable.add(entry.wnid)
