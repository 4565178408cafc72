"""Manifests of prepared data sets that strangers may have written."""

import json

import numpy as np
import pytest

from input_pipeline.errors import DataError
from input_pipeline.sources import manifest

FILE = {"name": "train.txt", "sha256": "0"}
SHARD = {"name": "a.tfrecord", "sha256": "0", "bytes": 10, "records": 1}
VALID = {
    "format": 1,
    "dataset": "folder",
    "storage": "tfrecord",
    "classes": ["a"],
    "splits": {"train": {"images": 1, "list": FILE, "shards": [SHARD], "index": FILE}},
}


def write(folder, **changes):
    """Writes a manifest with changes, and returns what is read."""
    (folder / "manifest.json").write_text(json.dumps({**VALID, **changes}))
    return manifest.read(folder)


def train(**changes):
    return {"splits": {"train": {**VALID["splits"]["train"], **changes}}}


def test_a_valid_manifest_is_returned_with_unknown_keys(tmp_path):
    assert write(tmp_path, new=1) == {**VALID, "new": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": [1]},
        {"format": 2},
        {"classes": None},
        {"classes": [1, 2]},
        {"dataset": "x"},
        {"dataset": []},
        {"storage": "x"},
        {"storage": "lists"},  # has no root
        {"splits": ["train"]},
        {"splits": {"train": []}},
        train(index=None),
        train(shards=5),
        train(shards=[{**SHARD, "records": "8"}]),
        train(shards=[{**SHARD, "records": -8}]),
        train(shards=[{**SHARD, "name": 5}]),
        train(shards=[{**SHARD, "name": "/dev/zero"}]),
        train(shards=[{**SHARD, "name": "../a.tfrecord"}]),
        train(list={**FILE, "name": "../../etc/passwd"}),
        train(index={**FILE, "name": ""}),
        train(index={**FILE, "name": "a\0"}),
    ],
)
def test_other_types_and_paths_are_data_errors(tmp_path, changes):
    with pytest.raises(DataError, match=r"manifest.json: is not a manifest \(.+\); prepare"):
        write(tmp_path, **changes)


def test_a_missing_index_is_a_data_error(tmp_path):
    entry = {k: v for k, v in VALID["splits"]["train"].items() if k != "index"}
    with pytest.raises(DataError, match="train split has no shards or no index"):
        write(tmp_path, splits={"train": entry})


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "5"])
def test_malformed_json_is_a_data_error(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="is not a manifest"):
        manifest.read(tmp_path)


@pytest.mark.parametrize("label", [-1, 2])
@pytest.mark.parametrize("class_names", [(), ("b", "a")])
def test_labels_out_of_range_are_data_errors(label, class_names):
    labels = np.array([0, label], np.int32)
    with pytest.raises(DataError, match=f"label {label} is out of range for 2 classes"):
        manifest.remap_labels(labels, ("a", "b"), class_names, "folder")
