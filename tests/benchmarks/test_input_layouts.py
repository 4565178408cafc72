"""Tests of the benchmark of layouts: every writer writes what is read, and the tables."""

import argparse

import pytest
import tensorflow as tf

from benchmarks import input_layouts
from benchmarks.workloads import input_format_workloads, input_layout_workloads
from input_pipeline import datasets
from input_pipeline.config import DataConfig
from input_pipeline.sources import source
from tests.input_pipeline import encoded_images

LAYOUTS = [*input_layout_workloads.WRITERS]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Returns the function that runs a side on three JPEG files."""
    monkeypatch.setattr(input_format_workloads, "BATCH", 2)
    monkeypatch.setattr(input_format_workloads, "SIZE", 32)
    monkeypatch.setattr(input_layout_workloads, "_IMAGES_PER_SHARD", 4)
    (tmp_path / "photos").mkdir()
    for number, size in enumerate([(460, 390), (380, 410), (400, 300)]):
        data = encoded_images.encoded(encoded_images.picture().resize(size), "JPEG")
        (tmp_path / "photos" / f"{number}.JPEG").write_bytes(data)
    settings = {"work": str(tmp_path), "data_dir": str(tmp_path / "photos"), "threads": 2}
    settings |= {"seconds": 0.05, "entries": 5, "images": 2000}

    def run_side(side):
        return input_layout_workloads.run_side(argparse.Namespace(side=side, **settings))

    return run_side


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_has_the_same_photographs(run, tmp_path, layout):
    if layout == "Parquet":
        pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    assert run(f"copy {layout}") == {"images": 6}
    config = DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path / layout.replace(" ", "_")))
    split = source.open_split(config, "train")
    photos = [path.read_bytes() for path in sorted((tmp_path / "photos").iterdir())]
    read = [split.read(tf.constant(i, tf.int64))[0].numpy() for i in range(6)]
    assert read == [photo for photo in photos for _ in range(2)]
    assert split.labels.tolist() == [0, 0, 333, 333, 666, 666]
    assert split.class_names == datasets.load_wnids("ilsvrc2012")
    if layout == "tar of tars":  # each takes seconds
        assert 1 < run(f"speed {layout}")["images_per_second"] < 1e6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hollow_data_set_is_opened(run, layout):
    if layout == "Parquet":
        pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    run(f"write {layout}")
    for _ in range(2):
        opening = run(f"open {layout}")
        assert 0 < opening["seconds"] < 60
        assert opening["peak_mb"] < 200


def test_tables():
    fast, slow = {"seconds": 1.5, "peak_mb": 99.0}, {"seconds": 9.0, "peak_mb": 400.0}
    report = {"layouts": {"a": {"index": slow, "open": fast}, "b": {"index": fast, "open": slow}}}
    assert input_layouts.summarize_index(report) == [
        ["a", 9.0, 400.0, 1.5, 99.0, "yes"],
        ["b", 1.5, 99.0, 9.0, 400.0, "no"],
    ]
    speeds = {"class folders": [10.0, 20.0, 40.0], "x": [9.0, 19.2, 44.0], "y": [9.0, 18.0, 50.0]}
    assert input_layouts.summarize_speed({"images_per_second": speeds}) == [
        ["class folders", 20.0, 1.0, ""],
        ["x", 19.2, 0.96, "yes"],
        ["y", 18.0, 0.9, "no"],
    ]
