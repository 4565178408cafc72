"""Tests of the benchmark of prepared data sets: its measurements and its table."""

import argparse
import itertools

import pytest

from benchmarks import input_formats
from benchmarks.workloads import input_format_workloads
from tests.input_pipeline import encoded_images


@pytest.fixture(scope="module")
def args(tmp_path_factory):
    """Returns the arguments of a side, with three JPEG files in its data folder."""
    root = tmp_path_factory.mktemp("formats")
    (root / "photos").mkdir()
    for number, size in enumerate([(460, 390), (380, 410), (400, 300)]):
        image = encoded_images.picture().resize(size)
        data = encoded_images.encoded(image, "JPEG", quality=95)
        (root / "photos" / f"{number}.JPEG").write_bytes(data)
    (root / "work").mkdir()
    return argparse.Namespace(
        data_dir=str(root / "photos"),
        work=str(root / "work"),
        threads=2,
        seconds=0.05,
        epochs=2,
    )


@pytest.fixture(autouse=True)
def _small_sizes(monkeypatch):
    monkeypatch.setattr(input_format_workloads, "BATCH", 2)
    monkeypatch.setattr(input_format_workloads, "MEMORY_BATCH", 2)
    monkeypatch.setattr(input_format_workloads, "SIZE", 32)
    monkeypatch.setattr(input_format_workloads, "IMAGENET", 5000)
    monkeypatch.setattr(input_format_workloads, "SHARDS", 3)


def test_speed_from_tfrecords(args):
    sizes = input_format_workloads.prepare(args)
    assert 0 < sizes["bytes_after"] < sizes["bytes_before"]
    assert 1 < input_format_workloads.SIDES["tfrecord"](args)["images_per_second"] < 1e6


def test_memory_is_measured_after_each_epoch(args, monkeypatch):
    """Epochs of five images in batches of two end in the third and the fifth batch."""
    batches, measured_at = itertools.count(1), []
    monkeypatch.setattr(input_format_workloads, "load_batches", lambda _: (5 for _ in batches))
    monkeypatch.setattr(
        input_format_workloads, "_resident_mb", lambda: measured_at.append(next(batches)) or 1.0
    )
    memory = input_format_workloads.measure_memory(args)
    assert memory["memory_mb"] == [1.0, 1.0] and measured_at == [4, 7]
    assert memory["peak_memory_mb"] > 100


@pytest.mark.parametrize("kind", input_formats.OPEN_KINDS)
def test_opening_reports_time_and_memory(args, kind):
    opening = input_format_workloads.SIDES[f"open_{kind}"](args)
    assert 0 < opening["seconds"] < 60
    assert opening["peak_mb"] >= opening["kept_mb"] - 1


def test_table_has_the_ratio_of_medians():
    opening = {"seconds": 0.5, "peak_mb": 99.0}
    report = {
        "images_per_second": {"files": [10.0, 30.0, 20.0], "tfrecord": [40.0, 10.0, 50.0]},
        "memory_mb": [100.0, 101.0],
        "peak_memory_mb": 120.0,
        "opening": {"list": opening},
    }
    rows = {name: (value, target) for name, value, target in input_formats.summarize(report)}
    assert rows["ratio"] == (2.0, "at least 1.4")
    assert rows["memory after epoch 2, MB"] == (101.0, "flat")
    assert rows["peak memory of opening, list, MB"] == (99.0, "under 300")
