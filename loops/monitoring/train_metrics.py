"""Accumulates the metrics of the training steps between two log lines."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf


class TrainMetrics:
    """Sums of the step's results since the last log line.

    Args:
      batch_size: images per step over all replicas.
      has_own_loss: whether the optimized loss differs from the cross-entropy of evaluation.
    """

    def __init__(self, batch_size: int, has_own_loss: bool = False) -> None:
        self._batch_size = batch_size
        self._has_own_loss = has_own_loss
        self.clear()

    def clear(self) -> None:
        """Resets all sums."""
        self._sums: dict[str, float] = {}
        self._norms: np.ndarray | tf.Tensor | None = None
        self._timed = {"steps": 0.0, "seconds": 0.0, "data_wait": 0.0}

    def add(
        self,
        sums: Mapping[str, float],
        seconds: float,
        timed: bool,
        norms: tf.Tensor | np.ndarray | None = None,
    ) -> None:
        """Adds the sums of one call of the training step.

        Args:
          sums: the results of `train_step`, as floats.
          seconds: duration of the call.
          timed: False for a call that traced, which is excluded from rates.
          norms: the norm of each variable's gradient in the last step, or None.
        """
        self._norms = norms
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if timed:
            self._timed["steps"] += sums["steps"]
            self._timed["seconds"] += seconds
            self._timed["data_wait"] += sums["data_wait"]

    def values(self, l2: float) -> dict[str, float]:
        """Returns means and rates by tag, without those that have no data yet.

        Args:
          l2: the L2 penalty. `loss/total` is the cross-entropy plus this, `loss/objective` the
            optimized loss plus this.
        """
        values = {}
        images = self._sums.get("applied", 0.0) * self._batch_size
        if images:
            values["loss/cross_entropy"] = self._sums["cross_entropy"] / images
            values["loss/total"] = values["loss/cross_entropy"] + l2
            if self._has_own_loss:
                values["loss/objective"] = self._sums["loss"] / images + l2
            values["accuracy/top1"] = self._sums["top1"] / images
            values["accuracy/top5"] = self._sums["top5"] / images
            measured = [name for name in self._sums if name.startswith("measured/")]
            values |= {name: self._sums[name] / images for name in measured}
        seconds = self._timed["seconds"]
        if seconds:
            values["speed/images_per_second"] = self._timed["steps"] * self._batch_size / seconds
            # Clipped because the wait is measured by the system clock, which may be set meanwhile.
            waited = self._timed["data_wait"] / seconds
            values["speed/data_wait"] = min(1.0, max(0.0, waited))
        return values

    def norms(self, variables: Sequence[keras.Variable]) -> dict[str, float]:
        """Returns the norms of variables and of their last gradients by tag."""
        values = {}
        for variable, norm in zip(variables, np.asarray(self._norms), strict=True):
            weight = np.linalg.norm(variable.numpy().ravel())
            values[f"norm_weight/{variable.path}"] = float(weight)
            values[f"norm_gradient/{variable.path}"] = float(norm)
        return values

    @property
    def is_empty(self) -> bool:
        """Whether no step was added since the last log line."""
        return not self._sums

    def note(self) -> str:
        """Returns the mean cross-entropy so far as text for the progress bar."""
        images = self._sums.get("applied", 0.0) * self._batch_size
        return f"loss {self._sums['cross_entropy'] / images:.3f}" if images else ""
