"""Tests reading of the ImageNet-ReaL label file, and the rejection of other files."""

import json
import os

import pytest

from input_pipeline.errors import UsageError
from loops.metrics import imagenet_real


@pytest.fixture
def published(tmp_path):
    """A file in the published format. Image i accepts i % 1000 and 3; every seventh nothing."""
    lists = [[] if i % 7 == 0 else [i % 1000, 3] for i in range(50_000)]
    path = tmp_path / "real.json"
    path.write_text(json.dumps(lists))
    return path


def test_labels_are_looked_up_by_the_number_in_the_file_name(published):
    names = [f"val/n01440764/ILSVRC2012_val_{n:08d}.JPEG" for n in (2, 50_000, 1, 5001)]
    accepted = imagenet_real.load_image_labels(published, "ilsvrc2012", "val", names)
    assert accepted == [{1, 3}, {999, 3}, set(), {0, 3}]


@pytest.mark.parametrize(
    ("dataset", "split", "name", "message"),
    [
        ("folder", "val", "ILSVRC2012_val_00000001.JPEG", "not for the val split of folder"),
        (
            "ilsvrc2012",
            "train",
            "ILSVRC2012_val_00000001.JPEG",
            "not for the train split",
        ),
        ("ilsvrc2012", "val", "n01440764_18.JPEG", "n01440764_18.JPEG has no image number"),
        ("ilsvrc2012", "val", "ILSVRC2012_val_00050001.JPEG", "has no image number"),
    ],
)
def test_images_outside_ilsvrc2012_val_are_rejected(published, dataset, split, name, message):
    with pytest.raises(UsageError, match=message):
        imagenet_real.load_image_labels(published, dataset, split, [name])


@pytest.mark.parametrize(
    "text",
    ["", "7", "[1, 2]", "[[1], [2]]", '{"a": [1]}', "[" * 100_000]
    + [json.dumps([[bad]] * 50_000) for bad in (1000, -1, "1", True, 0.5)],
)
def test_invalid_label_files_are_rejected(tmp_path, text):
    path = tmp_path / "real.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"^--real_labels="):
        imagenet_real.read(path)
    with pytest.raises(UsageError, match="no such file"):
        imagenet_real.read(tmp_path / "nowhere")


@pytest.mark.skipif("REAL_IMAGES_DIR" not in os.environ, reason="REAL_IMAGES_DIR is not set")
def test_published_file():
    """46,837 of the 50,000 images have a label (Beyer et al. 2020, section 3)."""
    path = os.path.join(os.environ["REAL_IMAGES_DIR"], "facts", "imagenet_real.json")
    assert sum(bool(labels) for labels in imagenet_real.read(path)) == 46_837
