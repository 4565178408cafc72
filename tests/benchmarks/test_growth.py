"""Tests of the benchmark of growth: what it measures, medians, table and pictures."""

import argparse
import os

import cv2
import pytest

from benchmarks import growth
from benchmarks.workloads import growth_workloads, input_format_workloads
from tests.input_pipeline import encoded_images


@pytest.fixture
def args(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCHMARK_STARTED", "0.0")
    monkeypatch.setattr(input_format_workloads, "BATCH", 2)
    monkeypatch.setattr(input_format_workloads, "SIZE", 32)
    for number in range(2):
        photo = tmp_path / f"data/{number}.JPEG"
        photo.parent.mkdir(exist_ok=True)
        photo.write_bytes(encoded_images.encoded(encoded_images.picture(), "JPEG"))
    settings = {"work": str(tmp_path), "data_dir": str(tmp_path / "data"), "model": "alexnet"}
    return argparse.Namespace(**settings, size=64, batch=2, steps=2, seconds=0.05)


def test_every_axis_can_be_measured():
    assert growth.AXES.keys() == growth_workloads._MEASUREMENTS.keys()
    assert growth.AXES.keys() >= growth_workloads.PREPARATIONS.keys()


def test_images_are_links_to_photographs_in_class_folders(args, tmp_path, monkeypatch):
    monkeypatch.setattr(growth_workloads, "_CLASSES", 3)
    growth_workloads.link_images(args, 7)
    growth_workloads.link_images(args, 8)
    links = sorted((tmp_path / "images-7").rglob("*.JPEG"))
    assert [link.parent.name for link in links] == ["c0000"] * 3 + ["c0001"] * 2 + ["c0002"] * 2
    assert len({os.stat(link).st_ino for link in links}) == 2
    assert growth_workloads.measure(args, "images", 7)["images_per_second"] > 1


@pytest.mark.parametrize("axis", ["classes", "image size", "batch size"])
def test_step_is_built_with_the_value(args, monkeypatch, axis):
    """The other sizes are those of the flags."""
    from benchmarks.workloads import bare_step

    built = []

    class Step:
        def __init__(self, argv, num_classes):
            built.append((*argv[-2:], num_classes))

        def __call__(self, num_steps):
            pass

        def measure_speed(self, warm_up, steps, steps_per_call):
            return {"images_per_second": 9.0}

    monkeypatch.setattr(bare_step, "BareStep", Step)
    assert growth_workloads.measure(args, axis, 96)["images_per_second"] == 9.0
    assert built == [
        {
            "classes": ("--image_size=64", "--batch_size=2", 96),
            "image size": ("--image_size=96", "--batch_size=2", 1000),
            "batch size": ("--image_size=64", "--batch_size=96", 1000),
        }[axis]
    ]


def test_medians_are_summarized_by_axis_and_value():
    rounds = [
        {
            "workers,0": {"peak_mb": float(n), "start_seconds": 2.0 * n},
            "workers,2": {"peak_mb": 7.0},
        }
        for n in (1, 9, 2)
    ]
    results = growth.summarize(rounds, {"workers": [0, 2]})
    assert results == {"workers": {0: {"peak_mb": 2.0, "start_seconds": 4.0}, 2: {"peak_mb": 7.0}}}
    assert growth.format_table(results).splitlines()[-1].split() == ["workers", "2", "7.00"]


def test_picture_has_a_plot_for_each_quantity(tmp_path):
    results = {n: {"peak_mb": float(n), "start_seconds": 1.0} for n in (1, 10, 100)}
    path = tmp_path / "new/growth.png"
    growth_workloads.write_picture(path, "checkpoints", results, growth._TITLES)
    picture = cv2.imread(str(path))
    assert picture.shape == (280, 2 * 400, 3)
    # The middle value is in the middle of the axis: its place and not its size counts.
    blue = (picture == (180, 90, 31)).all(axis=-1)
    height = 230 - round(180 * 10 / 110)
    assert blue[height, 200]
