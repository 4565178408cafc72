"""Reading only some classes: the same images and labels as class folders of these classes alone."""

import dataclasses
import os

import pytest
import tensorflow as tf

from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import prepare, raw_layouts, verify
from input_pipeline.sources import class_subset, source
from tests.input_pipeline import imagenet_layouts

# In another order than that of the labels, by id, by English name, and with words behind the id.
_LINES = "n02119789 kit fox\n\ngoldfish\nn02100735\n"
_SELECTED = ("n01443537", "n02100735", "n02119789")


def _contents(split):
    images = tf.data.Dataset.range(split.num_examples).map(split.read)
    return [(int(label), image) for image, label in images.as_numpy_iterator()]


@pytest.mark.parametrize("layout", ["class_folders", "three_tars", "tensorflow_models"])
def test_selected_classes_are_those_of_their_class_folders(tmp_path, layout):
    folder = imagenet_layouts.make(layout, tmp_path)
    subset = tmp_path / "subset" / "train"
    whole = imagenet_layouts.make("class_folders", tmp_path / "whole")
    subset.mkdir(parents=True)
    for wnid in _SELECTED:
        os.symlink(whole / "train" / wnid, subset / wnid)
    expected = source.open_split(DataConfig(dataset="folder", data_dir=str(subset.parent)), "train")
    (tmp_path / "classes.txt").write_text(_LINES)
    classes = str(tmp_path / "classes.txt")
    config = DataConfig(dataset="ilsvrc2012", data_dir=str(folder), classes=classes)
    split = source.open_split(config, "train")
    assert split.class_names == expected.class_names == _SELECTED
    assert _contents(split) == _contents(expected)
    names = [split.describe(index).rpartition("/")[2].rstrip(")") for index in range(18)]
    assert names == [expected.describe(index).rpartition("/")[2] for index in range(18)]
    assert source.open_split(config, "train", _SELECTED).labels.tolist() == split.labels.tolist()
    with pytest.raises(UsageError, match=r"--classes=.*: the run was trained on other classes"):
        source.open_split(config, "train", _SELECTED[:2])
    with pytest.raises(DataError, match=r"the val split has no image of these classes"):
        source.open_split(config, "val")
    raw = raw_layouts.find(config, PrepareConfig())
    assert raw.classes == _SELECTED
    assert [(i.label, i.read()) for i in raw.splits["train"]] == _contents(expected)


def test_selected_classes_of_a_test_set_without_splits(tmp_path):
    """As of ImageNet-Sketch, for a run on a selection of ImageNet's classes."""
    train = imagenet_layouts.make("class_folders", tmp_path / "whole") / "train"
    train.rename(tmp_path / "sketch")
    (tmp_path / "classes.txt").write_text(_LINES)
    classes = str(tmp_path / "classes.txt")
    config = DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path / "sketch"), classes=classes)
    split = source.open_split(config, "val", _SELECTED)
    names = [split.describe(index).split("/")[-2] for index in range(split.num_examples)]
    assert names == [_SELECTED[label] for label in split.labels]
    assert set(names) == set(_SELECTED)


def test_prepared_data_set_gives_selected_classes(tiny_folder, tmp_path):
    (tmp_path / "classes.txt").write_text("stripes\ndisc\n")
    out, config = tmp_path / "out", DataConfig(dataset="folder", data_dir=str(tiny_folder))
    prepare.prepare(config, PrepareConfig(), out, "tfrecord")
    selected = {"data_dir": str(out), "classes": str(tmp_path / "classes.txt")}
    config = dataclasses.replace(config, **selected)
    split = source.open_split(config, "train")
    assert split.class_names == ("disc", "stripes")
    assert split.labels.tolist() == [0] * 8 + [1] * 7
    with pytest.raises(UsageError, match=r"--classes=.*; omit the flag"):
        verify.verify(config, PrepareConfig())


def test_unknown_and_ambiguous_names_are_refused(tmp_path):
    path = tmp_path / "classes.txt"
    for line, message in (("n01440764\ncrane", "line 2: 'crane'"), ("", "names no class")):
        path.write_text(line)
        with pytest.raises(DataError, match=message):
            class_subset.read(str(path), imagenet_layouts.WNIDS)
    with pytest.raises(UsageError, match="no such file"):
        class_subset.read(str(tmp_path / "absent"), imagenet_layouts.WNIDS)
