"""The table that training shows: one row for each evaluation, which is one for each epoch."""

from collections.abc import Mapping

from absl import logging

from loops.monitoring.progress_bar import format_duration

_TITLES = "{:15} {:>13}  {:>20}"
_ROW = "{:>8}{:>7} {:>6} {:>6}  {:>6} {:>6} {:>6}{:>9}{:>6}{:>9}{}"


class EpochTable:
    """Logs the rows. All of them fit a terminal of 80 columns.

    Args:
      steps_per_epoch: converts steps to epochs.
      epochs: length of the whole run.
      top_k: the k of the last accuracy.
    """

    def __init__(self, steps_per_epoch: float, epochs: float, top_k: int) -> None:
        self._steps_per_epoch, self._epochs, self._top_k = steps_per_epoch, epochs, top_k
        self._has_header = False

    def format_epoch(self, step: int) -> str:
        """Returns the epoch of a step and the number of epochs, as in `2.5/50`.

        Of a run of less than one epoch, only the epoch.
        """
        epoch = min(step / self._steps_per_epoch, self._epochs)  # the last step may be cut short
        if self._epochs < 1:
            return f"{epoch:.2g}"
        return f"{round(epoch, 1):g}/{round(self._epochs, 1):g}"

    def log_row(
        self,
        step: int,
        train: Mapping[str, float],
        evaluation: Mapping[str, float],
        learning_rate: float,
        seconds_left: float,
        is_best: bool,
    ) -> None:
        """Logs one row, after the names of the columns if it is the first.

        Args:
          step: number of completed steps.
          train: results of `TrainMetrics.values` since the last row.
          evaluation: results of `TrainingEvaluator.evaluate_center_crop`.
          learning_rate: that of the last step.
          seconds_left: expected time until the end.
          is_best: whether no earlier evaluation was as good.
        """
        self._log_header()
        row = _ROW.format(
            self.format_epoch(step),
            step,
            _format_loss(train.get("loss/cross_entropy")),
            _format_percent(train.get("accuracy/top1")),
            _format_loss(evaluation["nll"]),
            _format_percent(evaluation["top1"]),
            _format_percent(evaluation[f"top{self._top_k}"]),
            f"{learning_rate:.3g}",
            _format_rate(train.get("speed/images_per_second")),
            format_duration(seconds_left),
            " best" if is_best else "",
        )
        logging.info("%s", row)

    def _log_header(self) -> None:
        if self._has_header:
            return
        self._has_header = True
        logging.info("%s", _TITLES.format("", "train", "validation"))
        names = ("epoch", "step", "loss", "top-1", "loss", "top-1", f"top-{self._top_k}")
        logging.info("%s", _ROW.format(*names, "lr", "img/s", "left", ""))


def _format_loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 100 else f"{value:.0f}"


def _format_percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _format_rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 1000 else f"{value:.0f}"
