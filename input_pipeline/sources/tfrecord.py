"""Writes TFRecord shards, and reads any of their records by its index.

A record is a `tf.train.Example` with the usual ImageNet features: `image/encoded`,
`image/class/label` (from 0), `image/class/synset` and `image/filename`. Any TFRecord reader can
read the shards. A separate index file allows random access.

Integrity checks:
  When a split is opened: the sizes of the shards and the sha256 of the index.
  When a record is read: the record's checksums, by TensorFlow.
  With `--mode=verify`: the sha256 of whole shards.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from input_pipeline.arithmetic import ceil_div
from input_pipeline.errors import DataError
from input_pipeline.sources import image_files, manifest, path_table
from input_pipeline.system import atomic_files, npy_files, regular_files
from input_pipeline.text import tf_error_message

# Bytes that TFRecord adds to each record: its length, and checksums of the length and the data.
FRAME_BYTES = 16
_LENGTH_BYTES = 8
_MAX_FRAMES_CHECKED = 100_000

_ENCODED, _LABEL = "image/encoded", "image/class/label"
_SYNSET, _FILENAME = "image/class/synset", "image/filename"


def parse_first_values(record: bytes) -> dict[str, int | bytes]:
    """Returns the first text or integer of each feature of an Example; raises for other bytes."""
    features = tf.train.Example.FromString(record).features.feature
    values = {name: [*f.bytes_list.value, *f.int64_list.value][:1] for name, f in features.items()}
    return {name: value[0] for name, value in values.items() if value}


def serialize_example(data: bytes, label: int, class_name: str, name: str) -> bytes:
    """Serializes one record.

    Args:
      data: encoded image.
      label: label of the image.
      class_name: name of its class.
      name: name of the file that the image came from.
    """

    def bytes_feature(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        _ENCODED: bytes_feature(data),
        _LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        _SYNSET: bytes_feature(os.fsencode(class_name)),
        _FILENAME: bytes_feature(os.fsencode(name)),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(
        deterministic=True
    )


def parse_example(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Parses a record into (encoded image, label): a string and an int64 scalar."""
    features = {
        _ENCODED: tf.io.FixedLenFeature([], tf.string),
        _LABEL: tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_single_example(record, features)
    return parsed[_ENCODED], parsed[_LABEL]


def write_shard(path: str | os.PathLike[str], records: Iterable[bytes]) -> dict[str, Any]:
    """Writes a shard atomically.

    Returns:
      dict with name, bytes, sha256, records (their number) and lengths (bytes of each record,
      including its frame).

    Raises:
      OSError, tf.errors.OpError: the disk is full or failed.
    """
    lengths = []
    with atomic_files.replacing(path) as file:
        with tf.io.TFRecordWriter(os.fsencode(file.name)) as writer:
            for record in records:
                writer.write(record)
                lengths.append(len(record) + FRAME_BYTES)
        digest = atomic_files.sha256(file.name)
        size = os.path.getsize(file.name)
        if size != sum(lengths):
            raise OSError(f"{file.name}: wrote {size} of {sum(lengths)} bytes")
    return {
        "name": os.path.basename(path),
        "bytes": size,
        "sha256": digest,
        "records": len(lengths),
        "lengths": lengths,
    }


@dataclasses.dataclass(frozen=True)
class Shards:
    """The records of one split.

    Attributes:
      folder: folder of the data set.
      names: file name of each shard.
      first: int64 [shards + 1], index of the first record of each shard, then the total number.
      index: [N] of `manifest.INDEX_ROW`.
      labels: int32 [N], by `class_names`.
      class_names: name of each class, by label.
      file_list: name and sha256 of the list of the original files.
      hash: sha256 of the list and sha256 of the index, in hexadecimal, concatenated.
      rule: what the labels come from.
      unlabeled: always empty.
    """

    folder: str
    names: tuple[str, ...]
    first: np.ndarray
    index: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    file_list: dict[str, str]
    hash: str
    rule: str = manifest.FILENAME
    unlabeled: tuple[str, ...] = ()

    def make_reader(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """Returns the function from an index tensor to (encoded image, label).

        TensorFlow's TFRecord reader seeks to the offset of the record, checks both checksums and
        stops. No Python runs.
        """
        # Tensors are captured by reference, because constants of a graph are copied.
        shards = tf.constant(
            [os.path.join(os.fsencode(self.folder), n.encode()) for n in self.names]
        )
        first = tf.constant(self.first[1:])
        offsets, lengths = tf.constant(self.index["offset"]), tf.constant(self.index["length"])
        labels = tf.constant(self.labels)

        def read(index):
            index = tf.cast(index, tf.int64)
            shard = tf.searchsorted(first, index[tf.newaxis], side="right")  # [1]
            record = _read_record(tf.gather(shards, shard), offsets[index], lengths[index])
            return parse_example(record)[0], labels[index]

        return read

    def record(self, index: int) -> bytes:
        """Returns the encoded image of a record, and checks its label against the index.

        Raises:
          tf.errors.OpError: the record cannot be read or is damaged.
          DataError: the index file does not belong to this shard.
        """
        path = self._shard_path(index)
        row = self.index[index]
        require_frames([path], np.zeros(1, np.int32), row["offset"][np.newaxis])
        data, label = _get_record_function()(
            tf.constant([os.fsencode(path)]), row["offset"], row["length"]
        )
        if int(label) != row["label"]:
            raise DataError(f"the record has label {int(label)}, the index has {row['label']}")
        return data.numpy()

    def describe(self, index: int) -> str:
        """Returns the shard and number of a record, and its original file if known."""
        try:
            return f"{self.locate(index)} ({self.file_names[index]})"
        except DataError:  # the list is damaged, but nothing else needs it
            return self.locate(index)

    def locate(self, index: int) -> str:
        """Returns the shard of a record and its number in the shard, from 0."""
        return f"{self._shard_path(index)}, record {index - self.first[self._shard(index)]}"

    def fingerprint(self) -> str:
        """Returns the SHA-256 over class names, file names, labels and lengths, in hexadecimal."""
        text = "\n".join(self.class_names) + self.hash
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()

    @functools.cached_property
    def file_names(self) -> path_table.PathTable:
        """Names of the original files; raises DataError if the list is damaged."""
        path = manifest.verify_file(self.folder, self.file_list)
        return image_files.parse_list(path, "the list")[0]

    def _shard(self, index: int) -> int:
        """Returns the number of the shard that contains a record."""
        return int(np.searchsorted(self.first, index, side="right")) - 1

    def _shard_path(self, index: int) -> str:
        return os.path.join(self.folder, self.names[self._shard(index)])


def _read_index(path: pathlib.Path, num_records: int) -> np.ndarray:
    """Reads the index of a split; raises DataError if it is not one of this many records."""
    try:
        with regular_files.open_regular(path) as file:
            shape, dtype = npy_files.read_header(file, os.fstat(file.fileno()).st_size)
            if dtype != manifest.INDEX_ROW or shape != (num_records,) or not num_records:
                raise ValueError(f"is not an index of {num_records} records")
            return npy_files.read_data(file, shape, dtype)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}; prepare the data set again") from None


def require_frames(paths: Sequence[str], files: np.ndarray, offsets: np.ndarray) -> None:
    """Checks the lengths in the frames of records, see `_require_frame`.

    Of a large data set, evenly spread records are checked; `--mode=verify` checks all.

    Args:
      paths: the TFRecord files.
      files: [N], number of the file of each record.
      offsets: [N], where each record begins in its file.

    Raises:
      DataError: a frame claims too much.
    """
    step = max(1, ceil_div(len(files), _MAX_FRAMES_CHECKED))
    files, offsets = files[::step], offsets[::step]
    for number, path in enumerate(paths):
        with regular_files.open_regular(path) as file:
            for offset in offsets[files == number].tolist():
                _require_frame(file, path, offset)


def _require_frame(file: BinaryIO, path: str, offset: int) -> None:
    """Raises DataError if the frame at an offset claims more than its shard has.

    TensorFlow allocates what a frame claims if the checksum of the length is right, and crashes if
    that is too much. It reports a length with a wrong checksum when it reads the record.
    """
    frame = os.pread(file.fileno(), _LENGTH_BYTES + 4, offset)
    length, checksum = frame[:_LENGTH_BYTES], int.from_bytes(frame[_LENGTH_BYTES:], "little")
    num_bytes = int.from_bytes(length, "little")
    if num_bytes > os.fstat(file.fileno()).st_size and checksum == masked_crc32c(length):
        raise DataError(
            f"{path}: the record at byte {offset} claims {num_bytes} bytes; copy the shard again,"
            " or prepare the data set again"
        )


def masked_crc32c(data: bytes) -> int:
    """Returns the checksum of TFRecord's frames: a rotated CRC-32C plus a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _read_record(shard: tf.Tensor, offset: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Reads one record at an offset.

    Args:
      shard: string [1], path of the shard.
      offset: int64 scalar.
      length: integer scalar, bytes to fetch at once: the record including its frame.

    Returns:
      string scalar.
    """
    # The raw op, because tf.data.TFRecordDataset has no argument for offsets.
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=shard,
        compression_type="",
        buffer_size=tf.cast(length, tf.int64),
        byte_offsets=offset[tf.newaxis],
    )
    spec = {"output_types": [tf.string], "output_shapes": [[]]}
    first = tf.raw_ops.TakeDataset(input_dataset=records, count=tf.constant(1, tf.int64), **spec)
    return tf.raw_ops.DatasetToSingleElement(dataset=first, **spec)[0]


def find_damage(path: str | os.PathLike[str], offset: int, length: int) -> str:
    """Returns what TensorFlow says about the checksums of a record; "" if they are right.

    Args:
      path: the TFRecord file.
      offset, length: the record in the file, including its frame.
    """
    try:
        with tf.device("CPU"):
            _read_record(
                tf.constant([os.fsencode(path)]), tf.constant(offset, tf.int64), tf.constant(length)
            )
    except tf.errors.OpError as error:
        return tf_error_message(error)
    return ""


def read_feature(path: tf.Tensor, offset: tf.Tensor, length: tf.Tensor, feature: str) -> tf.Tensor:
    """Reads the bytes of one feature of a record at an offset.

    Args:
      path: string scalar, path of the TFRecord file.
      offset: int64 scalar.
      length: int64 scalar, bytes of the record including its frame.
      feature: name of the feature, which holds one string.

    Returns:
      string scalar.
    """
    record = _read_record(path[tf.newaxis], offset, length)
    features = {feature: tf.io.FixedLenFeature([], tf.string)}
    return tf.io.parse_single_example(record, features)[feature]


@functools.cache
def _get_record_function() -> Callable[
    [tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]
]:
    specs = (([1], tf.string), ([], tf.int64), ([], tf.int32))

    @tf.function(input_signature=[tf.TensorSpec(*spec) for spec in specs])
    def read_example(shard, offset, length):
        return parse_example(_read_record(shard, offset, length))

    return read_example


def open_split(
    folder: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    split: str,
    class_names: Sequence[str] = (),
    lenient: bool = False,
) -> Shards:
    """Opens a split of a data set that `--mode=prepare` wrote as TFRecord shards.

    Args:
      folder: folder of the data set.
      metadata: content of its manifest.
      split: "train", "val" or "test".
      class_names: class names of a trained run, which then define the labels; if empty, those
        of the data set.
      lenient: also opens a split with missing or truncated shards; reading their records fails.

    Raises:
      UsageError: there is no such split.
      DataError: a shard or the index is missing, truncated or changed.
    """
    entry = manifest.get_split_entry(folder, metadata, split)
    faults = {} if lenient else manifest.find_damaged_shards(folder, entry)
    for name, fault in faults.items():
        raise DataError(
            f"{os.path.join(folder, name)}: {fault}; copy the shard again, or prepare the data set"
            " again"
        )
    path = manifest.verify_file(folder, entry["index"])
    num_records = [shard["records"] for shard in entry["shards"]]
    index = _read_index(path, sum(num_records))
    sizes = np.repeat(np.array([s["bytes"] for s in entry["shards"]], np.int64), num_records)
    offset, length = index["offset"], index["length"]
    outside = (offset < 0) | (length < FRAME_BYTES) | (offset > sizes - length)
    if outside.any():
        raise DataError(
            f"{path}: record {outside.argmax()} is not inside its shard; prepare the data set again"
        )
    names = tuple(shard["name"] for shard in entry["shards"])
    if not lenient:
        paths = [os.path.join(folder, name) for name in names]
        require_frames(paths, np.repeat(np.arange(len(names)), num_records), offset)
    labels = np.ascontiguousarray(index["label"])
    classes = tuple(metadata["classes"])
    return Shards(
        folder=str(folder),
        names=names,
        first=np.concatenate([[0], np.cumsum(num_records)]).astype(np.int64),
        index=index,
        labels=manifest.remap_labels(labels, classes, class_names, folder),
        class_names=tuple(class_names) or classes,
        file_list=entry["list"],
        hash=entry["list"]["sha256"] + entry["index"]["sha256"],
    )
