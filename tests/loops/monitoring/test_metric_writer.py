"""The sink of measurements, read back: event files as TensorBoard reads them, and JSON lines."""

import contextlib
import json
import logging
import math
import pathlib

import cv2
import numpy as np
import pytest

from loops.monitoring import metric_writer, plots
from tests.loops.quartered_images import assert_quarters, quarters

TRAIN = {"loss/total": 1.25, "accuracy/top1": 0.5, "speed/images_per_second": 100.0}


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_measurements_arrive_in_all_three_places(tmp_path, read_events, caplog):
    with caplog.at_level(logging.INFO, logger="absl"), metric_writer.MetricWriter(tmp_path) as sink:
        sink.measure("train", 20, TRAIN)
        sink.measure("eval", 20, {"loss/total": 1.5, "accuracy/top1": 0.25})
        sink.measure("train", 40, {**TRAIN, "loss/total": 0.75})
    assert lines(tmp_path) == [
        {"split": "train", "step": 20, **TRAIN},
        {"split": "eval", "step": 20, "loss/total": 1.5, "accuracy/top1": 0.25},
        {"split": "train", "step": 40, **TRAIN, "loss/total": 0.75},
    ]
    train, evaluated = read_events(tmp_path / "train"), read_events(tmp_path / "eval")
    assert set(train) == set(TRAIN)
    assert train["loss/total"] == {20: 1.25, 40: 0.75}
    # The same tag names, so that TensorBoard draws both curves into one chart.
    assert evaluated == {"loss/total": {20: 1.5}, "accuracy/top1": {20: 0.25}}
    assert caplog.messages[0].startswith("train step 20: ")
    for word in ("1.2500", "50.00%", "100.0 images/s"):
        assert word in caplog.messages[0]


def test_measurements_can_be_read_before_the_end(tmp_path, read_events):
    """A killed run has lost nothing that it had measured."""
    sink = metric_writer.MetricWriter(tmp_path)
    sink.measure("train", 3, TRAIN)
    assert lines(tmp_path)[0]["step"] == 3
    assert read_events(tmp_path / "train")["loss/total"] == {3: 1.25}
    sink.__exit__()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_in_json(tmp_path, value):
    """NaN is no JSON: other programs' readers would stop at the line."""
    with metric_writer.MetricWriter(tmp_path) as sink:
        sink.measure("train", 1, {"loss/total": value, "accuracy/top1": 0.5})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert lines(tmp_path) == [
        {"split": "train", "step": 1, "loss/total": None, "accuracy/top1": 0.5}
    ]


def test_numbers_of_numpy_and_python(tmp_path):
    with metric_writer.MetricWriter(tmp_path) as sink:
        sink.measure("train", np.int64(4), {"loss/total": np.float64(0.5), "optim/skipped": 3})
    assert lines(tmp_path) == [{"split": "train", "step": 4, "loss/total": 0.5, "optim/skipped": 3}]


def write_old(run):
    old = [
        {"split": split, "step": step, "loss/total": 1.0}
        for step in (10, 20, 30)
        for split in ("train", "eval")
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    return old


def test_resuming_drops_the_lines_of_lost_steps(tmp_path):
    old = write_old(tmp_path)
    with metric_writer.MetricWriter(tmp_path, resumed_at=20) as sink:
        sink.measure("train", 30, {"loss/total": 2.0})
    assert lines(tmp_path) == [*old[:4], {"split": "train", "step": 30, "loss/total": 2.0}]
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    "broken", ['{"split": "train", "st', "\0\0\0", "[]", "7", "{}", '{"step": null}', "\n"]
)
def test_resuming_drops_a_line_that_a_kill_left_broken(tmp_path, broken):
    old = write_old(tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(broken)
    with metric_writer.MetricWriter(tmp_path, resumed_at=30) as sink:
        sink.measure("train", 40, {"loss/total": 2.0})
    assert lines(tmp_path) == [*old, {"split": "train", "step": 40, "loss/total": 2.0}]


def test_without_resuming_nothing_is_dropped(tmp_path):
    old = write_old(tmp_path)
    with metric_writer.MetricWriter(tmp_path) as sink:
        sink.measure("eval", 5, {"loss/total": 2.0})
    assert lines(tmp_path) == [*old, {"split": "eval", "step": 5, "loss/total": 2.0}]


def test_a_fresh_run_has_nothing_to_drop(tmp_path):
    with metric_writer.MetricWriter(tmp_path, resumed_at=0):
        pass
    assert lines(tmp_path) == []


def test_the_grid_that_tensorboard_gets(tmp_path, read_events):
    images = np.stack([quarters(64)] * 2)
    with metric_writer.MetricWriter(tmp_path) as sink:
        sink.image_grid("train", 0, "images/augmented", images, ["one", "two"])
    (tag, by_step), *others = read_events(tmp_path / "train").items()
    assert (tag, others) == ("images/augmented", [])
    (png,) = by_step[0]
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decoded, plots.draw_image_grid(images, ["one", "two"]))
    assert_quarters(decoded[:128, :128])


def test_a_run_is_described_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    with metric_writer.MetricWriter(tmp_path / ".") as sink:
        sink.describe("**a net**", {"learning_rate": 0.5, "model": "resnet_18", "xla": False})
    reader = event_accumulator.EventAccumulator(str(tmp_path / "train"), {"tensors": 0})
    reader.Reload()
    assert reader.Tensors("run")[0].tensor_proto.string_val == [b"**a net**"]
    content = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    row = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert row["learning_rate"].number_value == 0.5
    assert row["model"].string_value == "resnet_18"
    assert row["xla"].bool_value is False


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_costs_measurements_and_nothing_else(tmp_path, caplog):
    with metric_writer.MetricWriter(tmp_path) as sink, open("/dev/full", "w", buffering=1) as full:
        sink.measure("train", 1, TRAIN)
        sink._file, file = full, sink._file
        sink.measure("train", 2, TRAIN)
        sink._file = file
        with contextlib.suppress(OSError):
            full.close()
    assert [line["step"] for line in lines(tmp_path)] == [1]
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert said[0] == "not on the disk: measurements of step 2: [Errno 28] No space left on device"
