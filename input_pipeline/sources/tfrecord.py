"""Images in TFRecord shards: the schema, writing a shard, and reading any record by its number.

A record is a `tf.train.Example` as most ImageNet tools write it: `image/encoded`,
`image/class/label` (from 0, as everywhere here), `image/class/synset`, `image/filename`. Any
TFRecord reader takes the shards; what makes them random access is the index beside them.

What is checked: when a split is opened, the sizes of shards and the sha256 of the index; when a
record is read, its own checksums, by TensorFlow; by `--mode=verify`, the sha256 of whole shards.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DataError
from input_pipeline.sources import image_files, manifest
from input_pipeline.system import atomic_files

# Bytes that the format puts around a record: its length, and the checksums of length and bytes.
FRAME_BYTES = 16

_ENCODED, _LABEL = "image/encoded", "image/class/label"
_SYNSET, _FILENAME = "image/class/synset", "image/filename"


def serialize_example(data, label, class_name, name):
    """The bytes of one record.

    Args:
      data: bytes of an encoded image.
      label: int.
      class_name: name of the class.
      name: of the file that the image came from.
    """

    def of_bytes(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        _ENCODED: of_bytes(data),
        _LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        _SYNSET: of_bytes(os.fsencode(class_name)),
        _FILENAME: of_bytes(os.fsencode(name)),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(
        deterministic=True
    )


def parse_example(record):
    """Encoded image and label of a record: a string and an int64 scalar tensor."""
    features = {
        _ENCODED: tf.io.FixedLenFeature([], tf.string),
        _LABEL: tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_single_example(record, features)
    return parsed[_ENCODED], parsed[_LABEL]


def write_shard(path, records):
    """Writes a shard; it is there under its name only when all of it is on the disk.

    Args:
      path: of the shard.
      records: iterable of bytes.

    Returns:
      dict: name, bytes, sha256, records, and lengths, those of the records with their frames.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    lengths = []
    with tf.io.TFRecordWriter(os.fsencode(temporary)) as writer:
        for record in records:
            writer.write(record)
            lengths.append(len(record) + FRAME_BYTES)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = os.path.getsize(temporary)
    if size != sum(lengths):
        raise OSError(f"{temporary}: {size} bytes were written of {sum(lengths)}")
    atomic_files.rename_and_sync(temporary, path)
    facts = {"name": path.name, "bytes": size, "sha256": digest, "records": len(lengths)}
    return {**facts, "lengths": lengths}


@dataclasses.dataclass(frozen=True)
class Shards:
    """The records of one split.

    Attributes:
      folder: of the set.
      names: of the shards.
      first: int64 [shards + 1], number of the first record of each, then of all.
      index: array [N] of `manifest.INDEX_ROW`.
      labels: int32 [N], by `class_names`.
      class_names: name of each class.
      file_list: name and sha256 of the list of the files that the records came from.
      hash: sha256 of the list and the index, hexadecimal.
    """

    folder: str
    names: tuple
    first: np.ndarray
    index: np.ndarray
    labels: np.ndarray
    class_names: tuple
    file_list: dict
    hash: str

    def make_reader(self):
        """Returns the function from an index tensor to (encoded image, label).

        One record is read by its offset: TensorFlow's own TFRecord reader seeks to it, checks
        both checksums and stops, without any Python.
        """
        # Captured by reference: constants of a graph would be copied into it.
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

    def record(self, index):
        """Encoded image of record `index`, once its own label is found to be the index's.

        Raises:
          tf.errors.OpError: it cannot be read or is damaged.
          DataError: the index is not that of this shard.
        """
        shard = int(np.searchsorted(self.first, index, side="right")) - 1
        path = os.path.join(self.folder, self.names[shard])
        row = self.index[index]
        paths = tf.constant([os.fsencode(path)])
        data, label = _get_record_function()(paths, row["offset"], row["length"])
        if int(label) != row["label"]:
            raise DataError(f"label {int(label)}, in the index {row['label']}")
        return data.numpy()

    def describe(self, index):
        """Shard, record and original file of record `index`; without the last if unknown."""
        try:
            return f"{self.locate(index)} ({self.file_names[index]})"
        except DataError:  # of the list, which nothing else hangs on
            return self.locate(index)

    def locate(self, index):
        """Shard and record, from 0, of record `index`."""
        shard = int(np.searchsorted(self.first, index, side="right")) - 1
        where = os.path.join(self.folder, self.names[shard])
        return f"{where}, record {index - self.first[shard]}"

    def fingerprint(self):
        """sha256 over names of classes and files, labels and lengths of records, hexadecimal."""
        words = "\n".join(self.class_names) + self.hash
        return hashlib.sha256(words.encode(errors="surrogateescape")).hexdigest()

    @functools.cached_property
    def file_names(self):
        """Names of the files that the records came from; DataError where the list is damaged."""
        path = manifest.verify_file(self.folder, self.file_list)
        return image_files.parse_list(path, "the list")[0]


def _read_record(shard, offset, length):
    """The record at an offset.

    Args:
      shard: string [1], a file.
      offset: int64 scalar.
      length: int32 scalar, with the frame: so much is fetched at once.

    Returns:
      scalar string tensor.
    """
    # The Python class does not offer the offsets, the operation does.
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=shard,
        compression_type="",
        buffer_size=tf.cast(length, tf.int64),
        byte_offsets=offset[tf.newaxis],
    )
    form = {"output_types": [tf.string], "output_shapes": [[]]}
    one = tf.raw_ops.TakeDataset(input_dataset=records, count=tf.constant(1, tf.int64), **form)
    return tf.raw_ops.DatasetToSingleElement(dataset=one, **form)[0]


@functools.cache
def _get_record_function():
    forms = (([1], tf.string), ([], tf.int64), ([], tf.int32))

    @tf.function(input_signature=[tf.TensorSpec(*form) for form in forms])
    def whole_record(shard, offset, length):
        return parse_example(_read_record(shard, offset, length))

    return whole_record


def open_split(folder, facts, split, class_names=(), lenient=False):
    """Opens a split of a prepared set.

    Args:
      folder: of the set.
      facts: its manifest.
      split: "train", "val" or "test".
      class_names: the classes of a trained run, whose labels then hold; else the set's own.
      lenient: opens a split with missing or cut shards too: their records fail when read.

    Returns:
      Shards.

    Raises:
      UsageError: no such split.
      DataError: shards or their index are missing, cut or changed.
    """
    of_split = manifest.get_split_entry(folder, facts, split)
    for name, fault in ({} if lenient else manifest.find_damaged_shards(folder, of_split)).items():
        mend = "copy the shard again, or prepare the set anew"
        raise DataError(f"{os.path.join(folder, name)}: {fault}; {mend}")
    path = manifest.verify_file(folder, of_split["index"])
    index = np.load(path, allow_pickle=False)
    records = [shard["records"] for shard in of_split["shards"]]
    if index.dtype != manifest.INDEX_ROW or len(index) != sum(records) or not len(index):
        raise DataError(f"{path}: not an index of {sum(records)} records; prepare the set anew")
    labels = np.ascontiguousarray(index["label"])
    classes = tuple(facts["classes"])
    return Shards(
        folder=str(folder),
        names=tuple(shard["name"] for shard in of_split["shards"]),
        first=np.concatenate([[0], np.cumsum(records)]).astype(np.int64),
        index=index,
        labels=manifest.remap_labels(labels, classes, class_names, folder),
        class_names=tuple(class_names) or classes,
        file_list=of_split["list"],
        hash=of_split["list"]["sha256"] + of_split["index"]["sha256"],
    )
