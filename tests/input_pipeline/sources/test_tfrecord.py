"""TFRecord sets: their batches are those of the files, anybody can read them, faults are named."""

import dataclasses
import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import pipeline
from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import prepare, verify
from input_pipeline.sources import manifest, source, tfrecord
from input_pipeline.system import atomic_files
from loops.config import dataset_flags

FAULTS = ("payload bit", "length bit", "cut in a record", "cut at a border", "empty", "missing")


@pytest.fixture(scope="module")
def raw(tiny_folder):
    return DataConfig(dataset="folder", data_dir=str(tiny_folder), image_size=16, min_crop_area=0.3)


@pytest.fixture(scope="module")
def shards(raw, tmp_path_factory):
    """The tiny set in shards of one or two records: (folder, manifest)."""
    out = tmp_path_factory.mktemp("tfrecord") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare.shard_writer, "_MEGABYTE", 2000)
        facts = prepare.prepare(raw, PrepareConfig(shard_megabytes=1), out, "tfrecord")
    return out, facts


@pytest.fixture
def copy(shards, raw, tmp_path):
    """A copy to break, and its config."""
    shutil.copytree(shards[0], tmp_path / "copy")
    return dataclasses.replace(raw, data_dir=str(tmp_path / "copy"))


def _batches(config, first_sample=0, count=12, batch=5):
    split = source.open_split(config, "train")
    dataset = pipeline.train_dataset(split, config, 3, first_sample, batch)
    return list(dataset.take(count).as_numpy_iterator())


def test_batches_are_those_of_the_files_bit_for_bit(raw, shards):
    """Over three epochs, from a start in the middle of one."""
    records = dataclasses.replace(raw, data_dir=str(shards[0]))
    for one, two in zip(_batches(raw, 20), _batches(records, 20), strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], two[key], err_msg=key)


def test_anybody_can_read_the_shards(raw, shards):
    out, facts = shards
    split = source.open_split(raw, "train")
    paths = [str(out / shard["name"]) for shard in facts["splits"]["train"]["shards"]]
    assert len(paths) > 5
    records = list(tf.data.TFRecordDataset(paths).as_numpy_iterator())
    assert len(records) == split.num_examples
    for index, record in enumerate(records):
        features = tf.train.Example.FromString(record).features.feature
        assert set(features) == {
            *("image/encoded", "image/class/label", "image/class/synset", "image/filename")
        }
        name = features["image/filename"].bytes_list.value[0].decode()
        assert split.describe(index).endswith(name)
        data = features["image/encoded"].bytes_list.value[0]
        assert data == pathlib.Path(split.describe(index)).read_bytes()
        assert features["image/class/label"].int64_list.value[0] == split.labels[index]
        assert features["image/class/synset"].bytes_list.value[0].decode() == name.split("/")[1]


def test_the_manifest_says_what_is_on_the_disk(shards):
    out, facts = shards
    for split, of_split in facts["splits"].items():
        index = np.load(out / of_split["index"]["name"])
        at = 0
        for shard in of_split["shards"]:
            data = (out / shard["name"]).read_bytes()
            assert (len(data), atomic_files.sha256(out / shard["name"])) == (
                shard["bytes"],
                shard["sha256"],
            )
            rows = index[at : at + shard["records"]]
            assert rows["offset"].tolist() == [0, *np.cumsum(rows["length"])[:-1].tolist()]
            assert rows["length"].sum() == len(data)
            at += shard["records"]
        assert at == len(index) == of_split["images"]
        lines = (out / f"{split}.txt").read_text().splitlines()
        assert [int(line.split()[-1]) for line in lines] == index["label"].tolist()


def _break(folder, name, fault):
    path = pathlib.Path(folder, name)
    data = bytearray(path.read_bytes())
    first = 12 + int.from_bytes(data[:8], "little") + 4
    if fault == "payload bit":
        data[first // 2] ^= 4
    elif fault == "length bit":
        data[1] ^= 1
    elif fault == "cut in a record":
        data = data[: len(data) - 30]
    elif fault == "cut at a border":
        data = data[:first]
    elif fault == "empty":
        data = b""
    path.write_bytes(data)
    if fault == "missing":
        path.unlink()


def _two_record_shard(facts):
    shards = facts["splits"]["train"]["shards"]
    return next(shard["name"] for shard in shards if shard["records"] > 1)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_reported_with_shard_and_record(copy, shards, fault):
    name = _two_record_shard(shards[1])
    _break(copy.data_dir, name, fault)
    if fault.endswith("bit"):  # found when the record is read
        split = source.open_split(copy, "train")
        index, reason = pipeline.find_first_unreadable(split, range(split.num_examples))
        assert f"{name}, record 0 (" in split.describe(index) and reason
        replaced = sum(int((b["replaced"] > 0).sum()) for b in _batches(copy, count=4))
        assert replaced == 1  # the next image of the order stands in, none is lost
    else:  # found when the set is opened
        with pytest.raises(DataError, match=rf"{name}: .*\d+ records"):
            source.open_split(copy, "train")
    report, _ = verify.verify(copy, PrepareConfig())
    found = [f for f in report["findings"] if f["kind"] in ("shard", "record")]
    assert found[0]["kind"] == "shard" and found[0]["file"] == name
    if fault in ("missing", "empty"):
        assert report["bad"] >= 1
    else:
        record = next(f for f in found if f["kind"] == "record" and f"{name}, record " in f["file"])
        assert "Graph" not in record["why"]
        if fault == "payload bit":
            assert record["why"] == "corrupted record at 12"  # its data


@pytest.mark.parametrize("fault", ["cut", "another name", "missing"])
def test_a_list_that_is_not_the_manifests(copy, fault):
    """Images are read without it, and called by shard and record; verifying says what it is."""
    path = pathlib.Path(copy.data_dir, "train.txt")
    lines = path.read_bytes().splitlines(keepends=True)
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(b"".join(lines[:-1] if fault == "cut" else [b"x" + lines[0], *lines[1:]]))
    split = source.open_split(copy, "train")
    said = split.describe(split.num_examples - 1)
    assert "tfrecord, record " in said and lines[-1].split()[0].decode() not in said
    with pytest.raises(DataError, match=r"train\.txt"):
        verify.verify(copy, PrepareConfig())


def test_another_datasets_flag_is_refused(copy):
    with pytest.raises(UsageError, match=r"--dataset=lists: .*prepared from folder"):
        source.open_split(dataclasses.replace(copy, dataset="lists"), "train")
    plain = dataclasses.replace(copy, dataset="shapes")
    assert dataset_flags.resolve_dataset(plain, frozenset()).dataset == "folder"
    with pytest.raises(UsageError, match="--dataset=shapes"):
        dataset_flags.resolve_dataset(plain, frozenset({"dataset"}))


@pytest.mark.parametrize("file", ["manifest.json", "train.index.npy"])
def test_a_changed_index_or_manifest_is_refused(copy, file):
    path = pathlib.Path(copy.data_dir, file)
    path.write_bytes(path.read_bytes()[:-9] + b"\0" * 8)
    with pytest.raises(DataError, match=file):
        source.open_split(copy, "train")


def test_a_split_that_is_not_there(copy):
    facts = manifest.read(copy.data_dir)
    with pytest.raises(UsageError, match="no holdout split, it has train, val, test"):
        tfrecord.open_split(copy.data_dir, facts, "holdout")


def test_classes_of_a_run_hold(copy):
    classes = ("new", "stripes", "grid", "disc")
    own = source.open_split(copy, "train")
    split = source.open_split(copy, "train", classes)
    assert [classes[n] for n in split.labels] == [own.class_names[n] for n in own.labels]
    assert int(split.read(tf.constant(0, tf.int64))[1]) == 3
    with pytest.raises(DataError, match="disc is not one of the 2 known classes"):
        source.open_split(copy, "train", ("grid", "stripes"))


def test_a_manifest_of_a_later_format(copy):
    path = pathlib.Path(copy.data_dir, "manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(DataError, match="format 99, wanted 1"):
        source.open_split(copy, "train")


def test_images_kept_in_memory_are_the_same(copy, raw):
    kept = dataclasses.replace(copy, cache="ram")
    for one, two in itertools.zip_longest(_batches(raw, 7, 4), _batches(kept, 7, 4)):
        for key in one:
            np.testing.assert_array_equal(one[key], two[key], err_msg=key)
