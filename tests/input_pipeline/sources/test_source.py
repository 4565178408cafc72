"""Opening a split: its files and labels, the cache, and warnings about missing classes."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import datasets
from input_pipeline.config import DataConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import shapes, source
from input_pipeline.system import available_memory


def _fill(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return str(root)


def _contents(split):
    dataset = tf.data.Dataset.range(split.num_examples).map(split.read)
    return [(data.decode(), int(label)) for data, label in dataset.as_numpy_iterator()]


def _warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


def test_open_folder(tmp_path, caplog):
    names = ["train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "val/b/1.jpg", "test/a/1.jpg"]
    config = DataConfig(dataset="folder", data_dir=_fill(tmp_path, *names))
    train = source.open_split(config, "train")
    assert train.num_examples == 3 and train.class_names == ("a", "b")
    assert train.labels.dtype == np.int32 and train.labels.tolist() == [0, 0, 1]
    assert _contents(train) == [(names[0], 0), (names[1], 0), (names[2], 1)]
    assert [train.describe(i) for i in range(3)] == [f"{tmp_path}/{name}" for name in names[:3]]
    data, label = train.read(tf.constant(2, tf.int64))
    assert data.numpy() == names[2].encode() and label.dtype == tf.int32 and label == 1
    assert _contents(source.open_split(config, "val")) == [(names[3], 1)]
    assert _contents(source.open_split(config, "test")) == [(names[4], 0)]
    assert not _warnings(caplog)  # the expected sizes of user data are unknown


def test_open_lists(tmp_path):
    _fill(tmp_path, "x.jpg", "y.jpg")
    for split, text in (("train", "x.jpg 1\ny.jpg 0\n"), ("val", "y.jpg 1\n")):
        (tmp_path / f"{split}.txt").write_text(text)
    config = DataConfig(
        dataset="lists",
        data_dir=str(tmp_path),
        train_list=str(tmp_path / "train.txt"),
        val_list=str(tmp_path / "val.txt"),
    )
    train, val = (source.open_split(config, split) for split in ("train", "val"))
    assert _contents(train) == [("x.jpg", 1), ("y.jpg", 0)]
    assert _contents(val) == [("y.jpg", 1)]
    assert train.class_names == val.class_names == ("0", "1")
    with pytest.raises(UsageError, match="--test_list"):
        source.open_split(config, "test")


@pytest.mark.parametrize("name", ["ilsvrc2012", "mini_imagenet"])
def test_labels_follow_the_class_table(tmp_path, name, caplog):
    table = datasets.load_class_table(name)
    wnids = [table[i][0] for i in (7, 3)]
    root = _fill(tmp_path, *(f"train/{wnid}/1.JPEG" for wnid in wnids))
    split = source.open_split(DataConfig(dataset=name, data_dir=root), "train")
    assert split.class_names == tuple(wnid for wnid, _ in table)
    assert _contents(split) == [(f"train/{wnids[1]}/1.JPEG", 3), (f"train/{wnids[0]}/1.JPEG", 7)]
    full = {"ilsvrc2012": 1_281_167, "mini_imagenet": 50_000}[name]
    expected = f"{name}/train has 2 images; the full data set has {full}"
    assert _warnings(caplog) == [expected]


def test_class_folder_missing_from_class_table_is_refused(tmp_path):
    root = _fill(tmp_path, "train/n00000001/1.JPEG")
    with pytest.raises(DataError, match=r"n00000001 is .*, 1000 known.*--dataset=folder"):
        source.open_split(DataConfig(dataset="ilsvrc2012", data_dir=root), "train")


def test_class_names_of_run_take_precedence(tmp_path):
    root = _fill(tmp_path, "train/a/1.jpg", "val/b/1.jpg")
    config = DataConfig(dataset="folder", data_dir=root)
    with pytest.raises(DataError, match="val: b is not"):
        source.open_split(config, "val")
    assert _contents(source.open_split(config, "val", ("a", "b"))) == [("val/b/1.jpg", 1)]


@pytest.mark.parametrize("name", ["folder", "ilsvrc2012", "mini_imagenet"])
def test_data_dir_is_required(name):
    with pytest.raises(UsageError, match=f"--dataset={name} needs --data_dir"):
        source.open_split(DataConfig(dataset=name), "train")


def test_error_names_missing_data_dir(tmp_path):
    absent = str(tmp_path / "absent")
    with pytest.raises(UsageError, match=f"{absent}: .*--data_dir"):
        source.open_split(DataConfig(dataset="folder", data_dir=absent), "train")


def test_shapes_are_drawn_in_data_dir(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(shapes, "SPLIT_SIZES", {"train": 20, "val": 10, "test": 10})
    monkeypatch.chdir(tmp_path)
    config = DataConfig(dataset="shapes", data_dir=str(tmp_path / "elsewhere"))
    in_default = source.open_split(DataConfig(), "train")
    assert in_default.describe(0) == "data/shapes/train/arrow/00000.jpg"
    assert in_default.class_names == shapes.CLASSES
    assert in_default.labels.tolist() == [label for label in range(10) for _ in range(2)]
    in_data_dir = source.open_split(config, "train")
    assert in_default.fingerprint == in_data_dir.fingerprint
    data, label = in_data_dir.read(tf.constant(5, tf.int64))
    path = tmp_path / "elsewhere" / "train" / shapes.CLASSES[2] / "00001.jpg"
    assert data.numpy() == path.read_bytes() and label == 2
    assert "shapes/train has 20 images; the full data set has 2000" in _warnings(caplog)


def test_full_data_set_causes_no_warning(tmp_path, monkeypatch, caplog):
    spec = datasets.DatasetSpec(split_sizes={"train": 2, "val": 1})
    monkeypatch.setattr(datasets, "get", {"folder": spec}.__getitem__)
    root = _fill(tmp_path, "train/a/1.jpg", "train/a/2.jpg", "val/a/1.jpg", "val/a/2.jpg")
    config = DataConfig(dataset="folder", data_dir=root)
    source.open_split(config, "train", ("a",))
    assert _warnings(caplog) == []
    source.open_split(config, "val", ("a",))
    assert _warnings(caplog) == ["folder/val has 2 images; the full data set has 1"]


@pytest.mark.parametrize(
    ("in_val", "expected"),
    [
        ("abcdefg", []),
        ("abdefg", ["1 class missing from val: c"]),
        ("ab", ["5 classes missing from val: c, d, e, f, g"]),
        ("a", ["6 classes missing from val: b, c, d, e, f, ..."]),
    ],
)
def test_warning_about_classes_missing_from_val(tmp_path, caplog, in_val, expected):
    names = [f"train/{name}/1.jpg" for name in "abcdefg"] + [f"val/{name}/1.jpg" for name in in_val]
    config = DataConfig(dataset="folder", data_dir=_fill(tmp_path, *names))
    train, val = (source.open_split(config, split) for split in ("train", "val"))
    source.warn_of_missing_classes(train, val)
    assert _warnings(caplog) == expected


def test_warning_about_classes_without_images(tmp_path, caplog):
    root = _fill(tmp_path, "train/a/1.jpg", "train/b/._1.jpg", "train/c/1.jpg", "val/a/1.jpg")
    config = DataConfig(dataset="folder", data_dir=root)
    train, val = (source.open_split(config, split) for split in ("train", "val"))
    assert (train.class_names, train.labels.tolist()) == (("a", "b", "c"), [0, 2])
    source.warn_of_missing_classes(train, val)
    assert _warnings(caplog)[-2:] == [
        "1 class without images in train: b",
        "1 class missing from val: c",
    ]


def test_fingerprint_depends_on_names_and_labels(tmp_path):
    def fingerprint(folder, *names):
        root = _fill(tmp_path / folder, *names)
        return source.open_split(DataConfig(dataset="folder", data_dir=root), "train").fingerprint

    first = fingerprint("one", "train/a/1.jpg", "train/b/1.jpg")
    assert fingerprint("two", "train/a/1.jpg", "train/b/1.jpg") == first
    assert fingerprint("name", "train/a/1.jpg", "train/b/2.jpg") != first
    assert fingerprint("label", "train/a/1.jpg", "train/b/1.jpg", "train/aa/1.jpg") != first


def test_ram_cache_refuses_data_set_larger_than_memory(tmp_path, monkeypatch):
    """The data set has four files of 13 bytes. 70 % of the free memory may be used."""
    names = ["train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "train/b/2.jpg"]
    config = DataConfig(dataset="folder", data_dir=_fill(tmp_path, *names), cache="ram")
    for free, fits in ((80, True), (60, False), (None, True)):
        monkeypatch.setattr(available_memory, "available_bytes", lambda free=free: free)
        if fits:
            assert len(_contents(source.open_split(config, "train"))) == 4
        else:
            with pytest.raises(UsageError, match=r"--cache=ram: folder/train needs about"):
                source.open_split(config, "train")


def test_ram_cache_stores_unreadable_file_as_empty(tmp_path):
    config = DataConfig(dataset="folder", data_dir=_fill(tmp_path, "train/a/1.jpg"), cache="ram")
    (tmp_path / "train/a/2.jpg").symlink_to("nowhere")
    split = source.open_split(config, "train")
    assert [data for data, _ in _contents(split)] == ["train/a/1.jpg", ""]
