"""Tests the comparison of an evaluation with the published accuracy."""

import pytest

from loops.checkpointing.run_folder import Record
from loops.config.config import Config
from loops.evaluation import published_figures

RESULTS = {"num_examples": 50_000, "top1": 0.802, "top1_low": 0.798, "top1_high": 0.806}


def find(repository="timm/resnet50.a1_in1k", results=RESULTS, **values):
    values = {
        "dataset": "ilsvrc2012",
        "image_size": 224,
        "crop_fraction": 0.95,
        "interpolation": "bicubic",
        "torchvision_rounding": True,
        **values,
    }
    config = Config().replace(**values)
    record = Record(config, (), {}, {"repository": repository} if repository else {})
    return published_figures.find(record, config, results)


def describe(published, **results):
    name, text = published_figures.format_row({**RESULTS, **results, "published": published})
    assert name == "published"
    return text


def test_the_same_test_is_compared_by_the_interval():
    published = find()
    assert (published["top1"], published["top5"]) == (0.80382, 0.94598)
    assert describe(published) == (
        "top-1 80.38%, top-5 94.60% with the center crop; ours top-1 80.20% (79.80% to 80.60%),"
        " inside our 95 % interval"
    )
    assert "outside our 95 % interval" in describe(published, top1_high=0.803)
    ten_crops = {"top1": 0.81, "center_crop": RESULTS}
    assert "ours top-1 80.20%" in describe(published, **ten_crops)


def test_the_figure_of_the_same_size_is_taken():
    published = find(image_size=288, crop_fraction=1.0)
    assert published["top1"] == 0.8124 and published["differences"] == []
    # 224 / 0.9032 is 248.01, and 224 / 0.9 is 248.9. Both are rounded down.
    assert find("timm/resnet34.ra4_e3600_r224_in1k", crop_fraction=0.9032)["differences"] == []


@pytest.mark.parametrize(
    ("values", "difference"),
    [
        ({"crop_fraction": 0.875}, "short side 256, published with 235"),
        ({"interpolation": "bilinear"}, "interpolation bilinear, published with bicubic"),
        ({"torchvision_rounding": False}, "short side 236, published with 235"),
    ],
)
def test_another_test_is_named(values, difference):
    assert f"another test: {difference}" in describe(find(**values))


def test_other_weights_and_other_images_have_no_published_accuracy():
    assert find(repository="") is None
    assert find(repository="timm/other") is None
    assert find(split="train") is None
    assert find(dataset="folder") is None
    assert find(results={**RESULTS, "num_examples": 100}) is None
