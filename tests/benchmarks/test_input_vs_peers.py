"""Tests of the input pipeline benchmark: its sides, and the ratios between them."""

import sys

import numpy as np
import pytest

from benchmarks import input_vs_peers
from benchmarks.workloads import input_workloads
from input_pipeline import datasets
from tests.input_pipeline import encoded_images


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Creates a folder of three JPEG files."""
    folder = tmp_path_factory.mktemp("photos")
    for number, size in enumerate([(300, 260), (280, 310), (400, 300)]):
        image = encoded_images.picture().resize(size)
        data = encoded_images.encoded(image, "JPEG", quality=90)
        (folder / f"{number}.JPEG").write_bytes(data)
    return folder


@pytest.mark.parametrize("side", ["classic", "classic_opencv", "decode"])
def test_sides_report_images_per_second(side, photos):
    result = input_workloads.measure(side, photos, threads=2, seconds=0.1)
    assert 1 < result["images_per_second"] < 1e6


def test_missing_torch_is_reported_as_skipped(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # makes `import torch` fail
    result = input_workloads.measure("standard_torch", photos, threads=2, seconds=0.1)
    assert result == {"skipped": "torch is not installed"}


def test_opencv_side_normalizes_pixels(photos):
    rng = np.random.default_rng(0)
    vectors = np.reshape(datasets.IMAGENET_PCA_VECTORS, (3, 3))
    no_lighting = np.zeros(3)
    images = [
        input_workloads.augment_with_opencv(str(path), rng, no_lighting, vectors)
        for path in sorted(photos.iterdir())
    ]
    assert {image.shape for image in images} == {(224, 224, 3)}
    pixels = np.stack(images) * datasets.IMAGENET_STD + datasets.IMAGENET_MEAN
    assert pixels.min() > -0.1 and pixels.max() < 255.1 and pixels.std() > 20


def test_ratios_are_of_medians_without_skipped_sides():
    speeds = {side: [] for side in input_workloads.SIDES}
    speeds |= {"classic": [10.0, 30.0, 20.0], "classic_opencv": [4.0, 2.0], "standard": [9.0]}
    ratios = input_vs_peers.compute_ratios(speeds)
    assert [(r["ours"], r["other"]) for r in ratios] == [("classic", "classic_opencv")]
    assert ratios[0]["ratio"] == pytest.approx(20 / 3) and ratios[0]["wanted"] == 5.0
