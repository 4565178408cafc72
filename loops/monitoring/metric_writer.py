"""The one sink of measurements: a log line, a JSON line and TensorBoard, under the same names."""

import contextlib
import json
import math
import pathlib

import tensorflow as tf
from absl import logging
from tensorboard.plugins.hparams.summary_v2 import hparams_pb

from input_pipeline.system import atomic_files
from input_pipeline.text import escape_non_utf8, summarize_error
from loops.monitoring import plots

# Shown first in a log line, in this order and with these formats.
_LOG_FORMATS = {
    "loss/cross_entropy": "loss {:.4f}",
    "loss/total": "with decay {:.4f}",
    "accuracy/top1": "top-1 {:.2%}",
    "accuracy/top5": "top-5 {:.2%}",
    "accuracy_10_crops/top1": "ten-crop top-1 {:.2%}",
    "accuracy_10_crops/top5": "ten-crop top-5 {:.2%}",
    "optim/learning_rate": "lr {:.4g}",
    "optim/loss_scale": "scale {:g}",
    "optim/skipped_steps": "skipped {:d}",
    "speed/images_per_second": "{:.1f} images/s",
    "speed/data_wait": "waiting for data {:.1%}",
    "memory/peak_gigabytes": "peak memory {:.2f} GB",
}


@contextlib.contextmanager
def _log_disk_errors(what):
    """A full disk costs a point of a curve, and not the training."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        logging.error("not on the disk: %s: %s", what, summarize_error(error))


class MetricWriter:
    """Writes measurements of a run folder; a context manager that closes its files.

    Args:
      run_dir: the run folder.
      resumed_at: the step that training goes on from; lines of later steps, which a killed
        process may have left, are removed from metrics.jsonl. None removes nothing.
    """

    def __init__(self, run_dir, resumed_at=None):
        self._run_dir = pathlib.Path(run_dir)
        self._writers = {}
        self._path = self._run_dir / "metrics.jsonl"
        if resumed_at is not None:
            self._drop_after(resumed_at)
        self._file = open(self._path, "a", buffering=1)  # noqa: SIM115
        if self._path.stat().st_size and not self._path.read_bytes().endswith(b"\n"):
            self._file.write("\n")  # after the half line of a killed process

    def measure(self, split, step, values):
        """Records scalars.

        Args:
          split: "train", "eval" or "watch".
          step: number of steps done.
          values: dict from tag to number.
        """
        shown = [form.format(values[tag]) for tag, form in _LOG_FORMATS.items() if tag in values]
        if shown:  # figures of other sizes and splits are in the table that they are for
            logging.info("%s step %d: %s", split, step, ", ".join(shown))
        numbers = {t: v if math.isfinite(v) else None for t, v in values.items()}
        with _log_disk_errors(f"measurements of step {step}"):
            self._file.write(json.dumps({"split": split, "step": int(step), **numbers}) + "\n")
            with self._writer(split).as_default(step=step):
                for tag, value in values.items():
                    tf.summary.scalar(tag, value)
            self._writer(split).flush()

    def image_grid(self, split, step, tag, images, titles):
        """Records a grid of images with a title below each.

        Args:
          images: uint8 numpy array [N, S, S, 3], RGB.
          titles: N strings, of one or several lines.
        """
        self.image(split, step, tag, plots.draw_image_grid(images, titles))

    def image(self, split, step, tag, image):
        """Records one image: uint8 [H, W, 3], RGB."""
        with _log_disk_errors(tag):
            with self._writer(split).as_default(step=step):
                tf.summary.image(tag, image[None])
            self._writer(split).flush()

    def describe(self, markdown, hyperparameters):
        """Records what the run is: a text, and a row of TensorBoard's table of runs.

        Args:
          markdown: str.
          hyperparameters: dict from name to a number, a bool or a string.
        """
        shown = {
            n: escape_non_utf8(v) if isinstance(v, str) else v for n, v in hyperparameters.items()
        }
        row = hparams_pb(shown, trial_id=escape_non_utf8(self._run_dir.name))
        with _log_disk_errors("the description of the run"):
            with self._writer("train").as_default(step=0):
                tf.summary.text("run", escape_non_utf8(markdown))
                tf.summary.experimental.write_raw_pb(row.SerializeToString())
            self._writer("train").flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for file in (self._file, *self._writers.values()):
            with _log_disk_errors("the last measurements"):
                file.close()

    def _writer(self, split):
        if split not in self._writers:
            self._writers[split] = tf.summary.create_file_writer(str(self._run_dir / split))
        return self._writers[split]

    def _drop_after(self, step):
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text().splitlines(keepends=True):
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                logging.warning("%s: dropped a broken line", self._path)
        atomic_files.write_bytes(self._path, "".join(kept).encode())


class NullMetricWriter:
    """The sink of a worker that is not the chief."""

    def measure(self, split, step, values):
        """Does nothing."""

    def image_grid(self, split, step, tag, images, titles):
        """Does nothing."""

    def describe(self, markdown, hyperparameters):
        """Does nothing."""
