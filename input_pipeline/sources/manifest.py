"""Reads and writes `manifest.json`, which marks a folder as a prepared data set.

The manifest lists every shard with its size, number of records and SHA-256. A truncated or missing
shard is therefore detected when the data set is opened, not as a short epoch.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np

from input_pipeline import datasets
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import image_folders
from input_pipeline.system import atomic_files, regular_files, typed_json

FILENAME = "manifest.json"
# Folder that a data set contains until its manifest is written.
UNFINISHED = ".unfinished"
_FORMAT_VERSION = 1

# The index has one row per record, in the order of the shards: its offset in the shard, its length
# including the TFRecord frame, and its label.
INDEX_ROW = np.dtype([("offset", "<i8"), ("length", "<i4"), ("label", "<i4")])


def _is_dataset(value: str) -> str:
    return "" if value in datasets.names() else f"is {value!r:.80}, which is not a known data set"


class _File(TypedDict):
    """A file in the folder of the data set."""

    name: Annotated[str, typed_json.is_file_name]
    sha256: str


class _Shard(_File):
    """A TFRecord shard."""

    bytes: Annotated[int, typed_json.at_least(0)]
    records: Annotated[int, typed_json.at_least(0)]


class _Split(TypedDict):
    """A split; one of lists has neither shards nor an index."""

    images: Annotated[int, typed_json.at_least(0)]
    list: _File
    shards: NotRequired[list[_Shard]]
    index: NotRequired[_File]


class _Manifest(TypedDict):
    """The parts of a manifest that are read. Only one of lists needs `root`."""

    dataset: Annotated[str, _is_dataset]
    storage: Literal["tfrecord", "lists"]
    classes: list[str]
    splits: dict[str, _Split]
    root: NotRequired[str]


def exists(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a folder is a prepared data set."""
    return bool(folder) and os.path.isfile(os.path.join(folder, FILENAME))


def read(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the manifest of a prepared data set.

    Returns:
      dict with the keys format, dataset, storage ("tfrecord" or "lists"), classes and splits,
      and with the settings of `--mode=prepare`.

    Raises:
      DataError: the file does not parse, or has another format version.
    """
    path = pathlib.Path(folder, FILENAME)
    try:
        content = typed_json.convert(regular_files.read_json(path), dict[str, Any], FILENAME)
        if (version := content.get("format")) != _FORMAT_VERSION:
            raise ValueError(f"it has format {version!r:.80}, expected {_FORMAT_VERSION}")
        metadata = typed_json.convert(content, _Manifest, FILENAME)
        is_tfrecord = metadata["storage"] == "tfrecord"
        for split, entry in metadata["splits"].items():
            if is_tfrecord and not {"shards", "index"} <= set(entry):
                raise ValueError(f"the {split} split has no shards or no index")
        if not is_tfrecord and "root" not in metadata:
            raise ValueError("it has no root")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: is not a manifest ({error}); prepare the data set again"
        ) from None
    return metadata


def write(folder: str | os.PathLike[str], metadata: Mapping[str, Any]) -> None:
    """Writes the manifest atomically. It must be the last file of a data set to be written."""
    content = {"format": _FORMAT_VERSION, **metadata}
    atomic_files.write_json(pathlib.Path(folder, FILENAME), content)


def get_split_entry(
    folder: str | os.PathLike[str], metadata: Mapping[str, Any], split: str
) -> dict[str, Any]:
    """Returns the manifest's entry of one split.

    Raises:
      UsageError: the data set has no such split.
    """
    if split not in metadata["splits"]:
        splits = ", ".join(metadata["splits"])
        raise UsageError(f"{folder}: the prepared data set has no {split} split; it has {splits}")
    return metadata["splits"][split]


def verify_file(folder: str | os.PathLike[str], entry: Mapping[str, Any]) -> pathlib.Path:
    """Returns the path of a file of the data set if its hash matches the manifest.

    Args:
      folder: folder of the data set.
      entry: the file's `name` and `sha256`.

    Raises:
      DataError: the file is missing or changed.
    """
    path = pathlib.Path(folder, entry["name"])
    if not path.is_file():
        raise DataError(f"{path}: is missing; prepare the data set again")
    if atomic_files.sha256(path) != entry["sha256"]:
        raise DataError(f"{path}: sha256 differs from {FILENAME}; prepare the data set again")
    return path


def find_damaged_shards(
    folder: str | os.PathLike[str], split_entry: Mapping[str, Any]
) -> dict[str, str]:
    """Finds shards that are missing or have the wrong size.

    Args:
      folder: folder of the data set.
      split_entry: the manifest's entry of the split.

    Returns:
      dict from the name of a damaged shard to a description of the damage.
    """
    faults = {}
    for shard in split_entry["shards"]:
        path = pathlib.Path(folder, shard["name"])
        if not path.is_file():
            faults[shard["name"]] = f"the shard with {shard['records']} records is missing"
        elif (size := path.stat().st_size) != shard["bytes"]:
            faults[shard["name"]] = (
                f"the shard has {size} bytes, expected {shard['bytes']} for its"
                f" {shard['records']} records"
            )
    return faults


def require_dataset(
    folder: str | os.PathLike[str], metadata: Mapping[str, Any], dataset: str
) -> None:
    """Raises UsageError if `--dataset` differs from the data set in the manifest."""
    if metadata["dataset"] != dataset:
        raise UsageError(
            f"--dataset={dataset}: {folder} was prepared from {metadata['dataset']}; omit the flag,"
            " or choose another --data_dir"
        )


def remap_labels(
    labels: np.ndarray,
    classes: Sequence[str],
    class_names: Sequence[str],
    folder: str | os.PathLike[str],
) -> np.ndarray:
    """Maps labels of a prepared data set to the labels of a trained run.

    Args:
      labels: int32 [N], by `classes`.
      classes: class names of the data set, by label.
      class_names: class names of the run, by label; if empty, the labels stay as they are.
      folder: folder of the data set, for error messages.

    Returns:
      int32 [N], by `class_names`.

    Raises:
      DataError: a label is out of range, or the run does not know a class.
    """
    out_of_range = labels[(labels < 0) | (labels >= len(classes))]
    if out_of_range.size:
        raise DataError(
            f"{folder}: label {out_of_range[0]} is out of range for {len(classes)} classes; prepare"
            " the data set again"
        )
    if not class_names or tuple(class_names) == tuple(classes):
        return labels
    label_of_name = {name: label for label, name in enumerate(class_names)}
    present = [classes[label] for label in np.unique(labels)]
    image_folders.require_known_classes(folder, present, class_names)
    return np.array([label_of_name.get(name, -1) for name in classes], np.int32)[labels]
