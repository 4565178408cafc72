"""The same images in every layout of ImageNet give the same labels, bytes, order and batches."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import pipeline
from input_pipeline.config import PrepareConfig
from input_pipeline.preparation import prepare, verify
from input_pipeline.sources import source
from loops.config import dataset_flags
from tests.command_line import parse
from tests.input_pipeline import imagenet_layouts


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("layouts")


@pytest.fixture(params=[*imagenet_layouts.LAYOUTS], scope="module")
def data(request, root):
    """The DataConfig of a layout that --data_dir alone names."""
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    folder = imagenet_layouts.make(request.param, root)
    return _resolve(folder)


def _resolve(folder, *words):
    config = dataset_flags.resolve_dataset(parse(f"--data_dir={folder}", *words))
    dataset_flags.require_named_dataset(config)
    sizes = {"image_size": 32, "batch_size": 8, "min_crop_area": 0.25}
    return dataclasses.replace(config.data, **sizes)


@pytest.fixture(scope="module")
def expected(root):
    """The Sources of class folders."""
    config = _resolve(imagenet_layouts.make("class_folders", root / "expected"))
    return {split: source.open_split(config, split) for split in ("train", "val")}, config


def _contents(split):
    images = tf.data.Dataset.range(split.num_examples).map(split.read, num_parallel_calls=4)
    return [(int(label), image) for image, label in images.as_numpy_iterator()]


def test_training_and_evaluation_read_the_same_images_in_the_same_order(data, expected):
    splits, config = expected
    assert data.dataset == "ilsvrc2012"
    for name, images in (("train", imagenet_layouts.TRAIN), ("val", imagenet_layouts.VAL)):
        split = source.open_split(data, name)
        assert _contents(split) == imagenet_layouts.contents(images)
        assert split.class_names == imagenet_layouts.WNIDS
        assert split.labels.tolist() == splits[name].labels.tolist()
        assert split.fingerprint == splits[name].fingerprint
        # The file name without its extension is in the description of every image.
        for index, (_, file_name, _) in enumerate(images):
            assert file_name[:-5] in split.describe(index)
    train = source.open_split(data, "train")
    batches = [
        pipeline.load_first_samples(images, settings, seed=5, count=4)
        for images, settings in ((train, data), (splits["train"], config))
    ]
    tf.nest.map_structure(np.testing.assert_array_equal, *batches)


def test_verify_finds_every_image_good(data):
    report, checksums = verify.verify(data, PrepareConfig())
    assert report["images"] == {"train": 24, "val": 8}
    assert report["bad"] == 0
    assert report["label_map"] == "sorted"
    assert len(checksums) == 32


def test_prepare_writes_the_same_records(data, tmp_path):
    out = tmp_path / "out"
    facts = prepare.prepare(data, PrepareConfig(), out, "tfrecord")
    assert facts["dataset"] == "ilsvrc2012"
    assert facts["unlabelled"] == 0
    for name, images in (("train", imagenet_layouts.TRAIN), ("val", imagenet_layouts.VAL)):
        prepared = source.open_split(dataclasses.replace(data, data_dir=str(out)), name)
        assert _contents(prepared) == imagenet_layouts.contents(images)
