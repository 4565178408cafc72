"""The sink of measurements, read back: event files as TensorBoard reads them, and JSON lines."""

import json
import logging
import math

import cv2
import numpy as np
import pytest

from loops.run import summaries

TRAIN = {"loss/total": 1.25, "accuracy/top1": 0.5, "speed/images_per_second": 100.0}


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_measurements_arrive_in_all_three_places(tmp_path, read_events, caplog):
    with caplog.at_level(logging.INFO), summaries.Measurements(tmp_path) as sink:
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
    sink = summaries.Measurements(tmp_path)
    sink.measure("train", 3, TRAIN)
    assert lines(tmp_path)[0]["step"] == 3
    assert read_events(tmp_path / "train")["loss/total"] == {3: 1.25}
    sink.__exit__()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_in_json(tmp_path, value):
    """NaN is no JSON: other programs' readers would stop at the line."""
    with summaries.Measurements(tmp_path) as sink:
        sink.measure("train", 1, {"loss/total": value, "accuracy/top1": 0.5})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert lines(tmp_path) == [
        {"split": "train", "step": 1, "loss/total": None, "accuracy/top1": 0.5}
    ]


def test_numbers_of_numpy_and_python(tmp_path):
    with summaries.Measurements(tmp_path) as sink:
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
    with summaries.Measurements(tmp_path, resumed_at=20) as sink:
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
    with summaries.Measurements(tmp_path, resumed_at=30) as sink:
        sink.measure("train", 40, {"loss/total": 2.0})
    assert lines(tmp_path) == [*old, {"split": "train", "step": 40, "loss/total": 2.0}]


def test_without_resuming_nothing_is_dropped(tmp_path):
    old = write_old(tmp_path)
    with summaries.Measurements(tmp_path) as sink:
        sink.measure("eval", 5, {"loss/total": 2.0})
    assert lines(tmp_path) == [*old, {"split": "eval", "step": 5, "loss/total": 2.0}]


def test_a_fresh_run_has_nothing_to_drop(tmp_path):
    with summaries.Measurements(tmp_path, resumed_at=0):
        pass
    assert lines(tmp_path) == []


# Red, green, blue and yellow quarters: a flip, a turn or BGR shows at once.
QUARTERS = {(0, 0): (255, 0, 0), (0, 1): (0, 255, 0), (1, 0): (0, 0, 255), (1, 1): (255, 255, 0)}


def quarters(side):
    image = np.zeros((side, side, 3), np.uint8)
    half = side // 2
    for (row, column), colour in QUARTERS.items():
        image[row * half : (row + 1) * half, column * half : (column + 1) * half] = colour
    return image


def assert_quarters(cell):
    side = cell.shape[0]
    for (row, column), colour in QUARTERS.items():
        for at in (0.1, 0.25, 0.4):
            found = cell[int(side * (row / 2 + at)), int(side * (column / 2 + at))]
            np.testing.assert_array_equal(found, colour)


@pytest.mark.parametrize("side", [32, 64, 128, 224, 256])
def test_images_are_right_side_up_and_in_their_colours(side):
    grid = summaries.draw_grid(np.stack([quarters(side)] * 3), ["a", "b", "c"], columns=2)
    assert grid.dtype == np.uint8
    assert grid.shape == (2 * (128 + 18), 2 * 128, 3)
    for row, column in ((0, 0), (0, 1), (1, 0)):
        top, left = row * 146, column * 128
        assert_quarters(grid[top : top + 128, left : left + 128])
    assert (grid[146:, 128:] == 255).all()  # no fourth image


def test_images_are_placed_row_by_row():
    shades = np.arange(10, 190, 20, dtype=np.uint8)  # nine of them
    images = np.broadcast_to(shades[:, None, None, None], (9, 64, 64, 3))
    grid = summaries.draw_grid(images, [str(n) for n in range(9)], columns=4, cell=32, caption=20)
    assert grid.shape == (3 * 52, 4 * 32, 3)
    found = [grid[n // 4 * 52 + 16, n % 4 * 32 + 16, 0] for n in range(9)]
    assert found == shades.tolist()


def test_titles_stand_below_their_images_and_stay_there():
    images = np.full((3, 64, 64, 3), 90, np.uint8)
    grid = summaries.draw_grid(images, ["arrow", "", "a" * 60], columns=3)
    captions = grid[128:146].reshape(18, 3, 128, 3)
    dark = (captions.min(-1) < 100).sum((0, 2))
    assert dark[0] > 20 and dark[1] == 0 and dark[2] > 60
    assert (grid[:128] == 90).all()
    # Readable: the same word gives the same picture, another word another one.
    again = summaries.draw_grid(images[:2], ["arrow", "arrov"], columns=3)[128:146]
    np.testing.assert_array_equal(again[:, :128], captions[:, 0])
    assert (again[:, :128] != again[:, 128:256]).any()


def test_as_many_titles_as_images():
    with pytest.raises(ValueError, match="zip"):
        summaries.draw_grid(np.zeros((2, 8, 8, 3), np.uint8), ["one"])


def test_the_grid_that_tensorboard_gets(tmp_path, read_events):
    images = np.stack([quarters(64)] * 2)
    with summaries.Measurements(tmp_path) as sink:
        sink.image_grid("train", 0, "images/augmented", images, ["one", "two"])
    (tag, by_step), *others = read_events(tmp_path / "train").items()
    assert (tag, others) == ("images/augmented", [])
    (png,) = by_step[0]
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decoded, summaries.draw_grid(images, ["one", "two"]))
    assert_quarters(decoded[:128, :128])


def test_a_run_is_described_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    with summaries.Measurements(tmp_path / ".") as sink:
        sink.describe("**a net**", {"learning_rate": 0.5, "model": "resnet_18", "xla": False})
    reader = event_accumulator.EventAccumulator(str(tmp_path / "train"), {"tensors": 0})
    reader.Reload()
    assert reader.Tensors("run")[0].tensor_proto.string_val == [b"**a net**"]
    content = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    row = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert row["learning_rate"].number_value == 0.5
    assert row["model"].string_value == "resnet_18"
    assert row["xla"].bool_value is False
