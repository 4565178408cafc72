"""ArrayRecord files are prepared and verified; training and evaluation name the command."""

import dataclasses
import re
import sys

import pytest
import tensorflow as tf

from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import prepare, verify
from input_pipeline.sources import array_records, source
from tests.input_pipeline import imagenet_layouts
from tests.input_pipeline.files import put

TRAIN_SHARD = "imagenet2012-train.array_record-00001-of-00002"


def _config(folder):
    return DataConfig(dataset="ilsvrc2012", data_dir=str(folder))


@pytest.fixture
def folder(tmp_path):
    """The records of `imagenet_layouts.tfds` in ArrayRecord files, with the options of TFDS."""
    module = pytest.importorskip(
        "array_record.python.array_record_module",
        reason="requirements/array_record.txt is not installed",
    )
    root = imagenet_layouts.make("tfds", tmp_path)
    for path in root.rglob("*.tfrecord-*"):
        name = path.name.replace("tfrecord", "array_record")
        writer = module.ArrayRecordWriter(str(path.with_name(name)), "group_size:1")
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            writer.write(record)
        writer.close()
        path.unlink()
    return root


def test_prepare_and_verify_read_every_image(folder, tmp_path):
    report, checksums = verify.verify(_config(folder), PrepareConfig())
    assert (report["images"], report["bad"]) == ({"train": 24, "val": 8}, 0)
    assert len(checksums) == 32
    prepare.prepare(_config(folder), PrepareConfig(), tmp_path / "out", "tfrecord")
    for name, images in (("train", imagenet_layouts.TRAIN), ("val", imagenet_layouts.VAL)):
        split = source.open_split(_config(tmp_path / "out"), name)
        contents = [split.read(tf.constant(i, tf.int64)) for i in range(split.num_examples)]
        expected = imagenet_layouts.contents(images)
        assert [(int(label), data.numpy()) for data, label in contents] == expected


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_truncated_file_is_named(folder, keep):
    path = folder / "5.1.0" / TRAIN_SHARD
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    message = rf"^{re.escape(str(path))}: is not a complete ArrayRecord file \(.*\); copy it again"
    with pytest.raises(DataError, match=message):
        verify.verify(_config(folder), PrepareConfig())


def test_damaged_record_is_named(folder):
    path = folder / "5.1.0" / TRAIN_SHARD
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: "):
        verify.verify(_config(folder), PrepareConfig())


def test_record_without_an_image_is_named(folder):
    path = folder / "5.1.0" / TRAIN_SHARD
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: record 0 has no feature"):
        next(array_records.list_records(path, ("pixels",)))


@pytest.mark.parametrize("split", ["train", "val"])
def test_training_and_evaluation_name_the_command(tmp_path, split):
    put(tmp_path / "imagenet2012-train.array_record-00000-of-00001")
    put(tmp_path / "imagenet2012-validation.array_record-00000-of-00001")
    command = rf"run --mode=prepare --data_dir={tmp_path} --out=DIR"
    with pytest.raises(UsageError, match=command):
        source.open_split(_config(tmp_path), split)


def test_missing_package_is_named(tmp_path, monkeypatch):
    for name in ("array_record", "array_record.python"):
        monkeypatch.setitem(sys.modules, name, None)
    put(tmp_path / "train.array_record-00000-of-00001")
    config = dataclasses.replace(_config(tmp_path), dataset="folder")
    with pytest.raises(UsageError, match=r"pip install -r requirements/array_record\.txt"):
        verify.verify(config, PrepareConfig())
