"""Writes metrics to the log, metrics.jsonl and TensorBoard under the same names."""

import contextlib
import io
import json
import math
import os
import pathlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import Metric, hparams_config_pb, hparams_pb

from input_pipeline.system import atomic_files, regular_files
from input_pipeline.text import escape_non_utf8, pluralize, summarize_error
from loops.monitoring import plots

# Metrics that a log line shows, in this order.
_LOG_FORMATS = {
    "loss/cross_entropy": "loss {:.4f}",
    "loss/total": "with decay {:.4f}",
    "loss/objective": "objective {:.4f}",
    "accuracy/top1": "top-1 {:.2%}",
    "accuracy/top5": "top-5 {:.2%}",
    "accuracy/top1_10_crops": "ten-crop top-1 {:.2%}",
    "accuracy/top5_10_crops": "ten-crop top-5 {:.2%}",
    "optim/learning_rate": "lr {:.4g}",
    "optim/loss_scale": "scale {:g}",
    "optim/skipped_steps": "skipped {:d}",
    "speed/images_per_second": "{:.1f} images/s",
    "speed/data_wait": "waiting for data {:.1%}",
    "system/peak_gigabytes": "peak memory {:.2f} GB",
}


# The columns of TensorBoard's HPARAMS table that come first.
_COMPARED_FLAGS = ("model", "learning_rate", "batch_size", "epochs", "augment", "optimizer")
# Bounds for metrics.jsonl. With --log_norms, a line has some hundred kilobytes.
_MAX_LINE_BYTES = 2**24
_MAX_FILE_BYTES = 2**34


@contextlib.contextmanager
def _log_disk_errors(description: str) -> Iterator[None]:
    """Logs disk errors, because a full disk may cost data points but not the training."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        logging.error("could not write %s: %s", description, summarize_error(error))


class MetricWriter:
    """Writes the metrics of a run; a context manager that closes its files.

    Args:
      run_dir: the run folder.
      resumed_at: the step that training resumes from. Lines of later steps, written by a killed
        process, are removed from metrics.jsonl. None removes nothing.
    """

    def __init__(self, run_dir: pathlib.Path | str, resumed_at: int | None = None) -> None:
        self._run_dir = pathlib.Path(run_dir)
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._path = self._run_dir / "metrics.jsonl"
        if resumed_at is not None:
            self._remove_lines_after(resumed_at)
        file = atomic_files.open_to_append(self._path)
        if _is_last_line_partial(self._path):
            file.write(b"\n")
        self._file = io.TextIOWrapper(file, line_buffering=True)

    def write_scalars(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Writes scalars.

        Args:
          split: "train", "eval" or "watch".
          step: number of completed steps.
          values: values by tag.
        """
        shown = [form.format(values[tag]) for tag, form in _LOG_FORMATS.items() if tag in values]
        if shown:  # metrics of other image sizes and splits are printed as a table instead
            logging.debug("%s step %d: %s", split, step, ", ".join(shown))
        # NaN and infinity are not valid JSON.
        numbers = {t: v if math.isfinite(v) else None for t, v in values.items()}
        with _log_disk_errors(f"metrics of step {step}"):
            self._file.write(json.dumps({"split": split, "step": int(step), **numbers}) + "\n")
            with self._writer(split).as_default(step=step):
                for tag, value in values.items():
                    tf.summary.scalar(tag, value)
            self._writer(split).flush()

    def write_image_grid(
        self,
        split: str,
        step: int,
        tag: str,
        images: Sequence[np.ndarray] | np.ndarray,
        titles: Sequence[str],
    ) -> None:
        """Writes a grid of images with a title below each.

        Args:
          split: see `write_scalars`.
          step: see `write_scalars`.
          tag: TensorBoard tag.
          images: uint8 [N, S, S, 3], RGB.
          titles: N strings of one or more lines.
        """
        self.write_image(split, step, tag, plots.draw_image_grid(images, titles))

    def write_image(self, split: str, step: int, tag: str, image: np.ndarray) -> None:
        """Writes one image, uint8 [H, W, 3], RGB."""
        with _log_disk_errors(tag):
            with self._writer(split).as_default(step=step):
                tf.summary.image(tag, image[None])
            self._writer(split).flush()

    def write_description(
        self,
        markdown: str,
        hyperparameters: Mapping[str, bool | int | float | str],
        columns: Mapping[str, type],
    ) -> None:
        """Writes a description of the run and its row in TensorBoard's HPARAMS table.

        The row is among the evaluations, because its metric is their top-1 accuracy.

        Args:
          markdown: the description.
          hyperparameters: the values of the row.
          columns: types of the values of all runs. TensorBoard reads them from one run.
        """
        shown = {
            n: escape_non_utf8(v) if isinstance(v, str) else v for n, v in hyperparameters.items()
        }
        row = hparams_pb(shown, trial_id=escape_non_utf8(self._run_dir.name))
        with _log_disk_errors("the description of the run"):
            with self._writer("train").as_default(step=0):
                tf.summary.text("run", escape_non_utf8(markdown))
            self._writer("train").flush()
            with self._writer("eval").as_default(step=0):
                for summary in (_make_hparams_config(columns), row):
                    tf.summary.experimental.write_raw_pb(summary.SerializeToString())
            self._writer("eval").flush()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_) -> None:
        for file in (self._file, *self._writers.values()):
            with _log_disk_errors("the last metrics"):
                file.close()

    def _writer(self, split: str) -> tf.summary.SummaryWriter:
        if split not in self._writers:
            folder = self._run_dir / split
            atomic_files.make_folder(folder)
            # TensorFlow follows links, so the name of its file must not be predictable.
            suffix = f".{secrets.token_hex(4)}.v2"
            self._writers[split] = tf.summary.create_file_writer(
                str(folder), filename_suffix=suffix
            )
        return self._writers[split]

    def _remove_lines_after(self, step: int) -> None:
        if not self._path.exists():
            return
        removed = 0
        with (
            regular_files.open_regular(self._path, _MAX_FILE_BYTES) as old,
            atomic_files.replacing(self._path) as new,
        ):
            while line := old.readline(_MAX_LINE_BYTES):
                try:
                    if regular_files.parse_json(line)["step"] <= step:
                        new.write(line)
                except (ValueError, KeyError, TypeError):
                    removed += 1
        if removed:
            logging.warning("%s: removed %s", self._path, pluralize(removed, "invalid line"))


def read_lines(run_dir: pathlib.Path | str) -> list[dict]:
    """Returns the valid lines of a run's metrics.jsonl; one may still be being written."""
    path = pathlib.Path(run_dir) / "metrics.jsonl"
    lines = []
    with regular_files.open_regular(path, _MAX_FILE_BYTES) as file:
        while line := file.readline(_MAX_LINE_BYTES):
            try:
                parsed = regular_files.parse_json(line)
            except ValueError:
                continue
            if isinstance(parsed, dict) and {"split", "step"} <= parsed.keys():
                lines.append(parsed)
    return lines


def _make_hparams_config(columns: Mapping[str, type]) -> Any:
    """Returns a Summary that says which columns the HPARAMS table has.

    TensorBoard sorts them by name, those that are marked as differing between runs first.
    """
    types = {bool: api_pb2.DATA_TYPE_BOOL, str: api_pb2.DATA_TYPE_STRING}
    infos = [
        api_pb2.HParamInfo(
            name=name,
            type=types.get(kind, api_pb2.DATA_TYPE_FLOAT64),
            differs=name in _COMPARED_FLAGS,
        )
        for name, kind in columns.items()
    ]
    metric = Metric("accuracy/top1", display_name="val top-1").as_proto()
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=[metric])
    summary = hparams_config_pb([], [])  # cannot mark columns
    data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    summary.value[0].metadata.plugin_data.content = data.SerializeToString()
    return summary


def _is_last_line_partial(path: pathlib.Path) -> bool:
    """Returns whether a killed process has left a line without its end."""
    with regular_files.open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 1))
        return file.read(1) not in (b"", b"\n")


class NullMetricWriter:
    """Writes nothing; used by workers other than the chief."""

    def write_scalars(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Does nothing."""

    def write_image(self, split: str, step: int, tag: str, image: np.ndarray) -> None:
        """Does nothing."""

    def write_image_grid(
        self,
        split: str,
        step: int,
        tag: str,
        images: Sequence[np.ndarray] | np.ndarray,
        titles: Sequence[str],
    ) -> None:
        """Does nothing."""

    def write_description(
        self,
        markdown: str,
        hyperparameters: Mapping[str, bool | int | float | str],
        columns: Mapping[str, type],
    ) -> None:
        """Does nothing."""
