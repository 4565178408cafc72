"""The record of a prepared data set: `manifest.json`, by which `--data_dir` is recognised.

It names every shard with its size, records and sha256, so that a shard which was cut or went
missing is found when the set is opened and not as a short epoch.
"""

import json
import os
import pathlib

import numpy as np

from input_pipeline.errors import DataError, UsageError
from input_pipeline.system.atomic_files import sha256, write_bytes

FILENAME = "manifest.json"
_FORMAT_VERSION = 1

# One row for each record, in the order of the shards: where it begins in its shard, its length
# with the frame that TFRecord puts around it, and its label.
INDEX_ROW = np.dtype([("offset", "<i8"), ("length", "<i4"), ("label", "<i4")])


def exists(folder):
    """Whether a folder is a prepared data set."""
    return bool(folder) and os.path.isfile(os.path.join(folder, FILENAME))


def read(folder):
    """Reads the manifest of a prepared data set.

    Returns:
      dict: format, dataset, storage ("tfrecord" or "lists"), classes, splits, and what `prepare`
      says of how it was made.

    Raises:
      DataError: it does not parse, or another version wrote it.
    """
    path = pathlib.Path(folder, FILENAME)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        known = facts["format"]
        complete = {"dataset", "storage", "classes", "splits"} <= set(facts)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} is not a manifest: {error}; prepare the set anew") from None
    if known != _FORMAT_VERSION or not complete:
        raise DataError(
            f"{path} has format {known}, wanted {_FORMAT_VERSION}; prepare the set anew"
        )
    return facts


def write(folder, facts):
    """Writes the manifest, the last file of a set, whole or not at all."""
    text = json.dumps({"format": _FORMAT_VERSION, **facts}, indent=1) + "\n"
    write_bytes(pathlib.Path(folder, FILENAME), text.encode())


def get_split_entry(folder, facts, split):
    """What the manifest says of one split.

    Raises:
      UsageError: the set has no such split.
    """
    if split not in facts["splits"]:
        have = ", ".join(facts["splits"])
        raise UsageError(f"{folder}: the prepared set has no {split} split, it has {have}")
    return facts["splits"][split]


def verify_file(folder, entry):
    """The path of a small file of the set, once its bytes are those of the manifest.

    Args:
      folder: of the set.
      entry: dict with its name and sha256.
    """
    path = pathlib.Path(folder, entry["name"])
    if not path.is_file():
        raise DataError(f"{path} is missing from the prepared set")
    if sha256(path) != entry["sha256"]:
        raise DataError(f"{path}: sha256 is not that of {FILENAME}; prepare the set anew")
    return path


def find_damaged_shards(folder, of_split):
    """What is wrong with the shards of a split by their sizes.

    Args:
      folder: of the set.
      of_split: what the manifest says of the split.

    Returns:
      dict from a shard's name to a sentence; whole shards are left out.
    """
    faults = {}
    for shard in of_split["shards"]:
        path = pathlib.Path(folder, shard["name"])
        if not path.is_file():
            faults[shard["name"]] = f"the shard is missing, with its {shard['records']} records"
        elif (size := path.stat().st_size) != shard["bytes"]:
            faults[shard["name"]] = (
                f"{size} bytes, not the {shard['bytes']} of its {shard['records']} records"
            )
    return faults


def require_dataset(folder, facts, dataset):
    """Raises UsageError where `--dataset` says another data set than the manifest."""
    if facts["dataset"] != dataset:
        raise UsageError(
            f"--dataset={dataset}: {folder} is prepared from {facts['dataset']}; leave the flag"
            " out, or name another --data_dir"
        )


def remap_labels(labels, classes, class_names, folder):
    """Labels by the classes of a trained run, where those are in another order.

    Args:
      labels: int32 [N], by `classes`.
      classes: of the prepared set.
      class_names: of the run, or () for the set's own.
      folder: for the message.

    Returns:
      int32 [N].

    Raises:
      DataError: a class that the run does not know.
    """
    if not class_names or tuple(class_names) == tuple(classes):
        return labels
    numbers = {name: number for number, name in enumerate(class_names)}
    present = [classes[label] for label in np.unique(labels)]
    unknown = [name for name in present if name not in numbers]
    if unknown:
        raise DataError(
            f"{folder}: class {unknown[0]} is not one of the {len(class_names)} known classes"
            f" ({len(unknown)} such classes)"
        )
    return np.array([numbers.get(name, -1) for name in classes], np.int32)[labels]
