"""ImageNet-ReaL's file: read as published, refused in any other form."""

import json
import os

import pytest

from input_pipeline.errors import UsageError
from loops.metrics import imagenet_real


@pytest.fixture
def published(tmp_path):
    """A file of the published form: image i accepts i % 1000; every seventh nothing."""
    rows = [[] if i % 7 == 0 else [i % 1000, 3] for i in range(50_000)]
    path = tmp_path / "real.json"
    path.write_text(json.dumps(rows))
    return path


def test_images_are_found_by_the_number_in_their_name(published):
    names = [f"val/n01440764/ILSVRC2012_val_{n:08d}.JPEG" for n in (2, 50_000, 1, 5001)]
    found = imagenet_real.load_image_labels(published, "ilsvrc2012", "val", names)
    assert found == [{1, 3}, {999, 3}, set(), {0, 3}]


@pytest.mark.parametrize(
    ("dataset", "split", "name", "message"),
    [
        ("folder", "val", "ILSVRC2012_val_00000001.JPEG", "val split of folder"),
        ("ilsvrc2012", "train", "ILSVRC2012_val_00000001.JPEG", "train split"),
        ("ilsvrc2012", "val", "n01440764_18.JPEG", "n01440764_18.JPEG is not named"),
        ("ilsvrc2012", "val", "ILSVRC2012_val_00050001.JPEG", "is not named"),
    ],
)
def test_other_images_are_refused(published, dataset, split, name, message):
    with pytest.raises(UsageError, match=message):
        imagenet_real.load_image_labels(published, dataset, split, [name])


@pytest.mark.parametrize(
    "text",
    ["", "7", "[1, 2]", "[[1], [2]]", '{"a": [1]}', "[" * 100_000]
    + [json.dumps([[bad]] * 50_000) for bad in (1000, -1, "1", True, 0.5)],
)
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "real.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"^--real_labels="):
        imagenet_real.read(path)
    with pytest.raises(UsageError, match="no such file"):
        imagenet_real.read(tmp_path / "nowhere")


@pytest.mark.skipif("REAL_IMAGES_DIR" not in os.environ, reason="REAL_IMAGES_DIR is not set")
def test_the_published_file():
    """Of the 50,000 images 46,837 have a label (Beyer et al. 2020, section 3)."""
    path = os.path.join(os.environ["REAL_IMAGES_DIR"], "facts", "imagenet_real.json")
    assert sum(bool(labels) for labels in imagenet_real.read(path)) == 46_837
