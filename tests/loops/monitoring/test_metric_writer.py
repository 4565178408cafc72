"""MetricWriter: its event files as TensorBoard reads them, its JSON lines and its log lines."""

import json
import logging
import math
import pathlib

import cv2
import numpy as np
import pytest

from input_pipeline.system import atomic_files
from loops.monitoring import metric_writer, plots
from tests.loops.quartered_images import assert_quarters, quarters

TRAIN = {"loss/total": 1.25, "accuracy/top1": 0.5, "speed/images_per_second": 100.0}


def read_lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_scalars_in_log_json_and_tensorboard(tmp_path, read_events, caplog):
    with (
        caplog.at_level(logging.DEBUG, logger="absl"),
        metric_writer.MetricWriter(tmp_path) as writer,
    ):
        writer.write_scalars("train", 20, TRAIN)
        writer.write_scalars("eval", 20, {"loss/total": 1.5, "accuracy/top1": 0.25})
        writer.write_scalars("train", 40, {**TRAIN, "loss/total": 0.75})
    assert read_lines(tmp_path) == [
        {"split": "train", "step": 20, **TRAIN},
        {"split": "eval", "step": 20, "loss/total": 1.5, "accuracy/top1": 0.25},
        {"split": "train", "step": 40, **TRAIN, "loss/total": 0.75},
    ]
    train, evaluated = read_events(tmp_path / "train"), read_events(tmp_path / "eval")
    assert set(train) == set(TRAIN)
    assert train["loss/total"] == {20: 1.25, 40: 0.75}
    # The tags are equal, so that TensorBoard draws both curves in one chart.
    assert evaluated == {"loss/total": {20: 1.5}, "accuracy/top1": {20: 0.25}}
    assert caplog.messages[0].startswith("train step 20: ")
    for word in ("1.2500", "50.00%", "100.0 images/s"):
        assert word in caplog.messages[0]


def test_scalars_are_written_immediately(tmp_path, read_events):
    """A killed run must not lose metrics."""
    writer = metric_writer.MetricWriter(tmp_path)
    writer.write_scalars("train", 3, TRAIN)
    assert read_lines(tmp_path)[0]["step"] == 3
    assert read_events(tmp_path / "train")["loss/total"] == {3: 1.25}
    writer.__exit__()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nonfinite_values_are_null_in_json(tmp_path, value):
    """NaN is not valid JSON, so other programs could not read the line."""
    with metric_writer.MetricWriter(tmp_path) as writer:
        writer.write_scalars("train", 1, {"loss/total": value, "accuracy/top1": 0.5})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert read_lines(tmp_path) == [
        {"split": "train", "step": 1, "loss/total": None, "accuracy/top1": 0.5}
    ]


def test_numpy_and_python_numbers(tmp_path):
    with metric_writer.MetricWriter(tmp_path) as writer:
        writer.write_scalars(
            "train", np.int64(4), {"loss/total": np.float64(0.5), "optim/skipped": 3}
        )
    assert read_lines(tmp_path) == [
        {"split": "train", "step": 4, "loss/total": 0.5, "optim/skipped": 3}
    ]


def write_old_lines(run):
    old = [
        {"split": split, "step": step, "loss/total": 1.0}
        for step in (10, 20, 30)
        for split in ("train", "eval")
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    return old


def test_resume_removes_lines_of_later_steps(tmp_path):
    old = write_old_lines(tmp_path)
    with metric_writer.MetricWriter(tmp_path, resumed_at=20) as writer:
        writer.write_scalars("train", 30, {"loss/total": 2.0})
    assert read_lines(tmp_path) == [*old[:4], {"split": "train", "step": 30, "loss/total": 2.0}]
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    "broken", ['{"split": "train", "st', "\0\0\0", "[]", "7", "{}", '{"step": null}', "\n"]
)
def test_resume_removes_invalid_lines(tmp_path, broken):
    old = write_old_lines(tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(broken)
    with metric_writer.MetricWriter(tmp_path, resumed_at=30) as writer:
        writer.write_scalars("train", 40, {"loss/total": 2.0})
    assert read_lines(tmp_path) == [*old, {"split": "train", "step": 40, "loss/total": 2.0}]


def test_without_resume_nothing_is_removed(tmp_path):
    old = write_old_lines(tmp_path)
    with metric_writer.MetricWriter(tmp_path) as writer:
        writer.write_scalars("eval", 5, {"loss/total": 2.0})
    assert read_lines(tmp_path) == [*old, {"split": "eval", "step": 5, "loss/total": 2.0}]


def test_resume_without_file(tmp_path):
    with metric_writer.MetricWriter(tmp_path, resumed_at=0):
        pass
    assert read_lines(tmp_path) == []


def test_image_grid_in_tensorboard(tmp_path, read_events):
    images = np.stack([quarters(64)] * 2)
    with metric_writer.MetricWriter(tmp_path) as writer:
        writer.write_image_grid("train", 0, "images/augmented", images, ["one", "two"])
    (tag, by_step), *others = read_events(tmp_path / "train").items()
    assert (tag, others) == ("images/augmented", [])
    (png,) = by_step[0]
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decoded, plots.draw_image_grid(images, ["one", "two"]))
    assert_quarters(decoded[:128, :128])


def test_description_in_tensorboard(tmp_path):
    """TensorBoard itself makes the table of two runs, with their last accuracy on val."""
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import (
        api_pb2,
        backend_context,
        get_experiment,
        list_session_groups,
    )

    for name, rate in (("a", 0.5), ("b", 0.25)):
        (tmp_path / name).mkdir()
        with metric_writer.MetricWriter(tmp_path / name / ".") as writer:
            flags = {"accumulate": 1, "xla": False, "model": "resnet_18", "learning_rate": rate}
            columns = {name: type(value) for name, value in flags.items()}
            writer.write_description(f"**{name}**", flags, {**columns, "steps": int})
            for step, top1 in ((1, 0.1), (2, rate / 2)):
                writer.write_scalars("eval", step, {"accuracy/top1": top1})
                writer.write_scalars("train", step, {"accuracy/top1": 0.9})
    runs = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"run": 1})
    runs.AddRunsFromDirectory(str(tmp_path)).Reload()
    assert runs.Tensors("a/train", "run")[0].tensor_proto.string_val == [b"**a**"]
    provider = data_provider.MultiplexerDataProvider(runs, str(tmp_path))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    asked = context.RequestContext()
    table = get_experiment.Handler(asked, backend, "", api_pb2.GetExperimentRequest()).run()
    # The flags that one compares come first, then the others.
    assert [c.name for c in table.hparam_infos] == [
        *("learning_rate", "model", "accumulate", "steps", "xla")
    ]
    (metric,) = table.metric_infos
    assert metric.display_name == "val top-1"
    status = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING, api_pb2.STATUS_SUCCESS]
    request = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=status,
        col_params=[api_pb2.ColParams(metric=metric.name)],
        slice_size=10,
    )
    rows = list_session_groups.Handler(asked, backend, "", request).run().session_groups
    values = [(r.hparams["learning_rate"].number_value, r.metric_values[0].value) for r in rows]
    assert sorted(values) == [(0.25, 0.125), (0.5, 0.25)]
    assert all(row.hparams["model"].string_value == "resnet_18" for row in rows)
    assert not any(row.hparams["xla"].bool_value for row in rows)


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_full_disk_costs_only_metrics(tmp_path, caplog, monkeypatch):
    with metric_writer.MetricWriter(tmp_path) as writer:
        writer.write_scalars("train", 1, TRAIN)
    monkeypatch.setattr(atomic_files, "open_to_append", lambda _: open("/dev/full", "ab"))  # noqa: SIM115
    with metric_writer.MetricWriter(tmp_path) as writer:
        writer.write_scalars("train", 2, TRAIN)
    assert [line["step"] for line in read_lines(tmp_path)] == [1]
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert errors[0] == "could not write metrics of step 2: [Errno 28] No space left on device"


def test_resume_keeps_earlier_lines_and_drops_lines_of_strangers(tmp_path, caplog):
    lines = ['{"step": 1}', "[" * 100_000, "5", '{"step": "a"}', '{"step": 2}', '{"step": 3}', "{"]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    with metric_writer.MetricWriter(tmp_path, resumed_at=2):
        pass
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 2]
    assert "removed 4 invalid lines" in caplog.text


@pytest.mark.parametrize("split", ["train", "eval"])
def test_event_files_are_not_written_through_a_link(tmp_path, split, caplog):
    (tmp_path / "run").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "run" / split).symlink_to(tmp_path / "outside")
    with metric_writer.MetricWriter(tmp_path / "run") as writer:
        writer.write_scalars(split, 1, TRAIN)
    assert "is a link, which is not followed" in caplog.text
    assert not list((tmp_path / "outside").iterdir())
