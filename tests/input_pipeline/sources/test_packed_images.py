"""Indexing tar files, TFRecords and Parquet files: interruptions, damaged files, labels."""

import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.config import DataConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import (
    foreign_records,
    layouts,
    packed_images,
    source,
    tar_files,
)
from input_pipeline.sources.packed_images import Entry, Labels, Part
from tests.input_pipeline import imagenet_layouts
from tests.input_pipeline.files import put

ILSVRC = DataConfig(dataset="ilsvrc2012")


def _open(folder, split="train", dataset="ilsvrc2012"):
    config = dataclasses.replace(ILSVRC, data_dir=str(folder), dataset=dataset)
    return source.open_split(config, split)


def _label_all_zero(entries):
    labels = np.zeros(len(entries), np.int32)
    return Labels(("a",), labels, [entry.name for entry in entries], "zero")


def test_interrupted_indexing_continues_after_the_last_finished_part(tmp_path):
    """The last line is incomplete, as after kill -9."""
    put(tmp_path / "x.tar", b"12345")
    scanned = []

    def scan(number):
        scanned.append(number)
        if number == 3 and len(scanned) == 4:
            raise KeyboardInterrupt
        return [Entry(f"{number}.jpg", "", -1, number, 1)]

    def list_parts():
        return [Part(str(n), 0, lambda n=n: scan(n)) for n in range(5)]

    arguments = (tmp_path, "train", packed_images.TAR, [tmp_path / "x.tar"], list_parts)
    with pytest.raises(KeyboardInterrupt):
        packed_images.open_indexed(*arguments, _label_all_zero)
    unfinished = tmp_path / ".index" / "train.unfinished"
    unfinished.write_bytes(unfinished.read_bytes()[:-5])  # of part 2
    images = packed_images.open_indexed(*arguments, _label_all_zero)
    assert scanned == [0, 1, 2, 3, 2, 3, 4]
    assert [*images.names] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert images.rows["offset"].tolist() == [0, 1, 2, 3, 4]
    assert [p.name for p in unfinished.parent.iterdir()] == ["train.npz"]
    packed_images.open_indexed(*arguments, _label_all_zero)
    assert len(scanned) == 7
    put(tmp_path / "x.tar", b"123456")  # a changed file is indexed again
    packed_images.open_indexed(*arguments, _label_all_zero)
    assert scanned[7:] == [0, 1, 2, 3, 4]


@pytest.mark.faults
def test_killed_indexing_continues(tmp_path):
    folder = imagenet_layouts.make("three_tars", tmp_path)
    program = f"""
import os, signal
from input_pipeline.config import DataConfig
from input_pipeline.sources import source, tar_files
list_images = tar_files.list_images
def killed(path, class_name="", start=0):
    if class_name == {imagenet_layouts.TRAIN[-1][0]!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return list_images(path, class_name, start)
tar_files.list_images = killed
source.open_split(DataConfig(dataset="ilsvrc2012", data_dir={str(folder)!r}), "train")
"""
    root = pathlib.Path(__file__).parents[3]
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True)
    assert ended.returncode == -signal.SIGKILL
    unfinished = folder / ".index" / "ilsvrc2012-train.unfinished"
    assert len(unfinished.read_text().splitlines()) == 4  # the files, and three of four classes
    assert _open(folder).num_examples == 24


def test_read_only_data_set_is_indexed_in_the_cache_folder(tmp_path, monkeypatch, caplog):
    folder = imagenet_layouts.make("webdataset", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder.chmod(0o555)
    before = sorted(folder.iterdir())
    assert _open(folder).num_examples == 24
    assert sorted(folder.iterdir()) == before
    (index,) = (tmp_path / "cache").rglob("*.npz")
    assert str(index) in caplog.text
    folder.chmod(0o755)


@pytest.mark.parametrize(
    ("layout", "name", "keep"),
    [
        ("three_tars", "ILSVRC2012_img_train.tar", 0.8),
        ("three_tars", "ILSVRC2012_img_val.tar", 0.5),
        ("half_unpacked", "train/n01443537.tar", 0.5),
        ("half_unpacked", "train/n01443537.tar", 0.0),
        ("webdataset", "imagenet1k-train-0001.tar", 0.5),
        ("tfds", "5.1.0/imagenet2012-train.tfrecord-00001-of-00002", 0.7),
        ("tensorflow_models", "train-00000-of-00002", 0.7),
        ("parquet", "data/train-00001-of-00003.parquet", 0.7),
    ],
)
def test_truncated_file_is_named(tmp_path, layout, name, keep):
    if layout == "parquet":
        pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    folder = imagenet_layouts.make(layout, tmp_path)
    path = folder / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    split = "val" if "val" in name else "train"
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}\b") as caught:
        _open(folder, split)
    assert "\n" not in str(caught.value)


def test_tar_file_cut_between_two_images_is_refused(tmp_path):
    """Only the empty blocks at its end are missing then."""
    images = [(name, data) for _, name, data in imagenet_layouts.TRAIN[:2]]
    data = imagenet_layouts.tar_bytes(images)
    end = tar_files.list_members(_put(tmp_path / "a.tar", data))[1].offset - 512
    with pytest.raises(DataError, match=r"b\.tar: is not a complete tar file \(its end is missing"):
        tar_files.list_members(_put(tmp_path / "b.tar", data[:end]))


def _put(path, data):
    put(path, data)
    return path


@pytest.mark.parametrize("layout", ["tfds", "tensorflow_models"])
def test_missing_shard_is_named(tmp_path, layout):
    folder = imagenet_layouts.make(layout, tmp_path)
    (shard,) = folder.rglob("*train*00001-of-00002")
    shard.unlink()
    with pytest.raises(DataError, match=rf"{re.escape(str(shard))}: is missing; 1 of 2 shards"):
        layouts.recognize(folder)


def test_damaged_record_fails_when_it_is_read(tmp_path):
    """TensorFlow checks the checksum. The index of the other records stays valid."""
    folder = imagenet_layouts.make("tensorflow_models", tmp_path)
    path = folder / "train-00000-of-00002"
    split = _open(folder)
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    bad = []
    for index in range(24):
        try:
            split.read(tf.constant(index))
        except tf.errors.DataLossError:
            bad.append(split.describe(index))
    assert len(bad) == 1
    assert bad[0].startswith(f"{path} (train/")


def _write_generic_records(folder, numbers, wnids=None):
    rows = [
        {"image/encoded": b"image", "image/class/label": number, "image/filename": b"%d.jpg" % i}
        for i, number in enumerate(numbers)
    ]
    for row, wnid in zip(rows, wnids or (), strict=False):
        row["image/class/synset"] = wnid.encode()
    imagenet_layouts.write_records(folder / "train-00000-of-00001", rows)


@pytest.mark.parametrize(("first", "rule"), [(0, "from 0"), (1, "from 1")])
def test_class_numbers_without_names(tmp_path, first, rule, caplog):
    """Numbers 1 to 1000 start at 1. If 0 occurs, they start at 0."""
    _write_generic_records(tmp_path, range(first, first + 1000))
    split = _open(tmp_path)
    assert sorted(split.labels.tolist()) == list(range(1000))
    assert f"labels from class numbers {rule}" in caplog.text


def test_class_numbers_that_contradict_class_names_are_refused(tmp_path):
    wnids = imagenet_layouts.WNIDS
    _write_generic_records(tmp_path, (1, 2, 2), (wnids[0], wnids[1], wnids[2]))
    with pytest.raises(DataError, match=r"inconsistent labels: 2\.jpg has class number 2, but its"):
        _open(tmp_path)


def test_own_classes_are_numbered_by_the_files(tmp_path):
    """A data set without WordNet ids has its class numbers as class names."""
    _write_generic_records(tmp_path, (2, 0, 1, 2))
    assert layouts.recognize(tmp_path).dataset == "folder"
    split = _open(tmp_path, dataset="folder")
    assert split.class_names == ("0", "1", "2")
    assert split.labels.tolist() == [0, 1, 2, 2]


def test_records_that_are_no_images_are_refused(tmp_path):
    imagenet_layouts.write_records(tmp_path / "a", [{"label": 3}])
    with pytest.raises(DataError, match=r"a: record 0 is not an example with an image"):
        foreign_records.list_images(tmp_path / "a")
    with tf.io.TFRecordWriter(str(tmp_path / "b")) as writer:
        writer.write(b"\xff" * 99)
    with pytest.raises(DataError, match=r"b: record 0 is not an example with an image"):
        foreign_records.list_images(tmp_path / "b")


def test_data_service_reads_records_but_no_tar_files(tmp_path):
    for layout, reads in (("tfds", True), ("webdataset", False)):
        folder = imagenet_layouts.make(layout, tmp_path)
        config = dataclasses.replace(ILSVRC, data_dir=str(folder), data_service="host:1")
        if reads:
            assert source.open_split(config, "train").num_examples == 24
        else:
            with pytest.raises(UsageError, match=r"--data_service=host:1: .* --mode=prepare"):
                source.open_split(config, "train")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("data/train_images_0.tar.gz", "tar -xzf"),
        ("imagenet2012-train.array_record-00000-of-01024", "--file_format=tfrecord"),
        ("train_500_0.50_90.beton", "class folders"),
        ("train.rec", "im2rec"),
        ("mini-imagenet-cache-train.pkl", "timm/mini-imagenet"),
        ("train_data_batch_1", "--short_side=64"),
        ("train.h5", "class folders"),
    ],
)
def test_known_files_that_cannot_be_read_are_named_with_a_remedy(tmp_path, name, remedy):
    put(tmp_path / name)
    with pytest.raises(UsageError, match=rf"{pathlib.Path(name).name} is one of .*{remedy}"):
        layouts.recognize(tmp_path)


def test_unfinished_prepared_data_set_is_not_read(tmp_path):
    imagenet_layouts.make("tensorflow_models", tmp_path)
    folder = tmp_path / "tensorflow_models"
    (folder / ".unfinished").mkdir()
    with pytest.raises(UsageError, match="unfinished prepared data set; run the same"):
        layouts.recognize(folder)


def test_sparse_and_endless_members_of_tar_files_are_refused(tmp_path):
    member = tarfile.TarInfo("a.jpg")
    member.type = tarfile.GNUTYPE_SPARSE
    put(tmp_path / "sparse.tar", member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match=r"sparse\.tar: a\.jpg is sparse"):
        tar_files.list_members(tmp_path / "sparse.tar")
    member = tarfile.TarInfo("a.jpg")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12  # a size of -1, in base 256
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 256 + sum(header[156:512]))
    put(tmp_path / "negative.tar", bytes(header) + bytes(1024))
    with pytest.raises(DataError, match=r"negative\.tar"):
        tar_files.list_members(tmp_path / "negative.tar")
