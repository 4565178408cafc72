"""TFRecord data sets: identical batches, standard records, and errors for damaged shards."""

import dataclasses
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
from tests.command_line import parse

FAULTS = (
    *("payload bit", "length bit", "cut inside a record", "cut between records"),
    *("empty", "missing"),
)


@pytest.fixture(scope="module")
def raw(tiny_folder):
    return DataConfig(dataset="folder", data_dir=str(tiny_folder), image_size=16, min_crop_area=0.3)


@pytest.fixture(scope="module")
def shards(raw, tmp_path_factory):
    """Prepares the tiny set in shards of one or two records; returns (folder, manifest)."""
    out = tmp_path_factory.mktemp("tfrecord") / "set"
    metadata = prepare.prepare(raw, PrepareConfig(shard_megabytes=0.002), out, "tfrecord")
    return out, metadata


@pytest.fixture
def copy(shards, raw, tmp_path):
    """Copies the shards, so that a test may damage them; returns the config of the copy."""
    shutil.copytree(shards[0], tmp_path / "copy")
    return dataclasses.replace(raw, data_dir=str(tmp_path / "copy"))


def _batches(config, first_sample=0, count=12, batch=5):
    split = source.open_split(config, "train")
    dataset = pipeline.train_dataset(split, config, 3, first_sample, batch)
    return list(dataset.take(count).as_numpy_iterator())


def test_batches_are_bit_identical_to_image_files(raw, shards):
    """Over three epochs, starting in the middle of an epoch."""
    records = dataclasses.replace(raw, data_dir=str(shards[0]))
    for expected, batch in zip(_batches(raw, 20), _batches(records, 20), strict=True):
        for key in expected:
            np.testing.assert_array_equal(batch[key], expected[key], err_msg=key)


def test_shards_are_readable_by_any_tfrecord_reader(raw, shards):
    out, metadata = shards
    split = source.open_split(raw, "train")
    paths = [str(out / shard["name"]) for shard in metadata["splits"]["train"]["shards"]]
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


def test_manifest_and_index_match_the_shards(shards):
    out, metadata = shards
    for split, entry in metadata["splits"].items():
        index = np.load(out / entry["index"]["name"])
        first = 0
        for shard in entry["shards"]:
            data = (out / shard["name"]).read_bytes()
            assert (len(data), atomic_files.sha256(out / shard["name"])) == (
                shard["bytes"],
                shard["sha256"],
            )
            rows = index[first : first + shard["records"]]
            assert rows["offset"].tolist() == [0, *np.cumsum(rows["length"])[:-1].tolist()]
            assert rows["length"].sum() == len(data)
            first += shard["records"]
        assert first == len(index) == entry["images"]
        lines = (out / f"{split}.txt").read_text().splitlines()
        assert [int(line.split()[-1]) for line in lines] == index["label"].tolist()


def _damage(folder, name, fault):
    """Damages a shard in one of the ways of FAULTS."""
    path = pathlib.Path(folder, name)
    data = bytearray(path.read_bytes())
    end_of_first_record = 12 + int.from_bytes(data[:8], "little") + 4
    if fault == "payload bit":
        data[end_of_first_record // 2] ^= 4
    elif fault == "length bit":
        data[1] ^= 1
    elif fault == "cut inside a record":
        data = data[: len(data) - 30]
    elif fault == "cut between records":
        data = data[:end_of_first_record]
    elif fault == "empty":
        data = b""
    path.write_bytes(data)
    if fault == "missing":
        path.unlink()


def _shard_with_two_records(metadata):
    shards = metadata["splits"]["train"]["shards"]
    return next(shard["name"] for shard in shards if shard["records"] > 1)


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_shards_and_records_are_reported(copy, shards, fault):
    name = _shard_with_two_records(shards[1])
    _damage(copy.data_dir, name, fault)
    if fault.endswith("bit"):  # detected when the record is read
        split = source.open_split(copy, "train")
        index, reason = pipeline.find_first_unreadable(split, range(split.num_examples))
        assert f"{name}, record 0 (" in split.describe(index) and reason
        replaced = sum(int((b["replaced"] > 0).sum()) for b in _batches(copy, count=4))
        assert replaced == 1  # by the next image in the order
    else:  # detected when the split is opened
        with pytest.raises(DataError, match=rf"{name}: .*\d+ records"):
            source.open_split(copy, "train")
    report, _ = verify.verify(copy, PrepareConfig())
    findings = [f for f in report["findings"] if f["kind"] in ("shard", "record")]
    assert findings[0]["kind"] == "shard" and findings[0]["file"] == name
    if fault in ("missing", "empty"):
        assert report["bad"] >= 1
    else:
        record = next(
            f for f in findings if f["kind"] == "record" and f"{name}, record " in f["file"]
        )
        assert "Graph" not in record["why"]
        if fault == "payload bit":
            assert record["why"] == "corrupted record at 12"  # 12: the start of its data


@pytest.mark.parametrize("fault", ["truncated", "renamed image", "missing"])
def test_damaged_file_list_affects_only_descriptions_and_verify(copy, fault):
    """Images are described by shard and record alone, and `verify` reports the list."""
    path = pathlib.Path(copy.data_dir, "train.txt")
    lines = path.read_bytes().splitlines(keepends=True)
    if fault == "missing":
        path.unlink()
    else:
        damaged = lines[:-1] if fault == "truncated" else [b"x" + lines[0], *lines[1:]]
        path.write_bytes(b"".join(damaged))
    split = source.open_split(copy, "train")
    description = split.describe(split.num_examples - 1)
    assert "tfrecord, record " in description
    assert lines[-1].split()[0].decode() not in description
    with pytest.raises(DataError, match=r"train\.txt"):
        verify.verify(copy, PrepareConfig())


def test_dataset_flag_that_differs_from_manifest_is_refused(copy):
    with pytest.raises(UsageError, match=r"--dataset=lists: .*prepared from folder"):
        source.open_split(dataclasses.replace(copy, dataset="lists"), "train")
    prepared = f"--data_dir={copy.data_dir}"
    assert dataset_flags.resolve_dataset(parse(prepared)).data.dataset == "folder"
    with pytest.raises(UsageError, match="--dataset=shapes"):
        dataset_flags.resolve_dataset(parse(prepared, "--dataset=shapes"))


@pytest.mark.parametrize("file", ["manifest.json", "train.index.npy"])
def test_damaged_index_or_manifest_is_refused(copy, file):
    path = pathlib.Path(copy.data_dir, file)
    path.write_bytes(path.read_bytes()[:-9] + b"\0" * 8)
    with pytest.raises(DataError, match=file):
        source.open_split(copy, "train")


def test_missing_split_is_refused(copy):
    metadata = manifest.read(copy.data_dir)
    with pytest.raises(UsageError, match="no holdout split; it has train, val, test"):
        tfrecord.open_split(copy.data_dir, metadata, "holdout")


def test_class_names_of_run_define_the_labels(copy):
    classes = ("new", "stripes", "grid", "disc")
    own = source.open_split(copy, "train")
    split = source.open_split(copy, "train", classes)
    assert [classes[n] for n in split.labels] == [own.class_names[n] for n in own.labels]
    assert int(split.read(tf.constant(0, tf.int64))[1]) == 3
    with pytest.raises(DataError, match=r"disc is not a known class \(1 unknown, 2 known\)"):
        source.open_split(copy, "train", ("grid", "stripes"))


def test_manifest_with_unknown_format_is_refused(copy):
    path = pathlib.Path(copy.data_dir, "manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(DataError, match="format 99, expected 1"):
        source.open_split(copy, "train")


def test_ram_cache_gives_the_same_batches(copy, raw):
    cached = dataclasses.replace(copy, cache="ram")
    for expected, batch in zip(_batches(raw, 7, 4), _batches(cached, 7, 4), strict=True):
        for key in expected:
            np.testing.assert_array_equal(batch[key], expected[key], err_msg=key)


def _replace_index(folder, write):
    """Replaces the index of the train split and its hash; `write` gets a path and the array."""
    path, metadata = folder / "train.index.npy", manifest.read(folder)
    write(path, np.load(path))
    metadata["splits"]["train"]["index"]["sha256"] = atomic_files.sha256(path)
    atomic_files.write_json(folder / "manifest.json", metadata)


def _claim_many_rows(path, index):
    header = {"descr": index.dtype.descr, "fortran_order": False, "shape": (10**11,)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(64))


def _set_column(name, value):
    def write(path, index):
        index[name][1] = value
        np.save(path, index)

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_claim_many_rows, r"does not match shape \(100000000000,\)"),
        (lambda path, index: np.save(path, np.array([{}])), "is a pickled array"),
        (lambda path, index: path.write_bytes(b"PK\x03\x04junk"), "is not an .npy array"),
        (lambda path, index: path.write_bytes(path.read_bytes()[:-1]), "does not match shape"),
        (lambda path, index: np.save(path, index[1:]), "is not an index of 23 records"),
        (_set_column("label", 99), "label 99 is out of range for 3 classes"),
        (_set_column("label", -1), "label -1 is out of range"),
        (_set_column("offset", -8), "record 1 is not inside its shard"),
        (_set_column("offset", 2**62), "record 1 is not inside its shard"),
        (_set_column("length", 2**31 - 1), "record 1 is not inside its shard"),
        (_set_column("length", -5), "record 1 is not inside its shard"),
    ],
)
def test_index_of_a_stranger_is_checked_when_opened(copy, write, message):
    _replace_index(pathlib.Path(copy.data_dir), write)
    with pytest.raises(DataError, match=message):
        source.open_split(copy, "train")


def test_frame_that_claims_a_huge_record_is_a_data_error(copy):
    """TensorFlow crashes if the checksum of the length is right."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    folder = pathlib.Path(copy.data_dir)
    shard = manifest.read(folder)["splits"]["train"]["shards"][0]["name"]
    with open(folder / shard, "r+b") as file:
        length = (2**62).to_bytes(8, "little")
        file.write(length + masked_crc32c(length).to_bytes(4, "little"))
    with pytest.raises(DataError, match=f"{shard}: the record at byte 0 claims {2**62} bytes"):
        source.open_split(copy, "train")
    report, _ = verify.verify(copy, PrepareConfig())
    assert {"shard", "record"} <= report["counts"].keys()
