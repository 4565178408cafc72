"""What the step reported between two log lines, as means and rates."""

import numpy as np


class TrainMetrics:
    """Sums of the step's results since the last log line.

    Args:
      batch_size: images of one step, over all replicas.
    """

    def __init__(self, batch_size):
        self._batch_size = batch_size
        self.clear()

    def clear(self):
        """Starts anew."""
        self._sums = {}
        self._norms = None
        self._timed = {"steps": 0.0, "seconds": 0.0, "data_wait": 0.0}

    def add(self, sums, seconds, timed, norms=None):
        """Adds one call's sums.

        Args:
          sums: what `train_step` returned, as floats.
          seconds: duration of the call.
          timed: false for the first call of a process, which traces.
          norms: norm of each variable's gradient in the last step, or None.
        """
        self._norms = norms
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if timed:
            self._timed["steps"] += sums["steps"]
            self._timed["seconds"] += seconds
            self._timed["data_wait"] += sums["data_wait"]

    def values(self, l2):
        """The measurements by tag; those that nothing is known about yet are left out."""
        values = {}
        images = self._sums["applied"] * self._batch_size
        if images:
            values["loss/cross_entropy"] = self._sums["loss"] / images
            values["loss/total"] = values["loss/cross_entropy"] + l2
            values["accuracy/top1"] = self._sums["top1"] / images
            values["accuracy/top5"] = self._sums["top5"] / images
        seconds = self._timed["seconds"]
        if seconds:
            values["speed/images_per_second"] = self._timed["steps"] * self._batch_size / seconds
            # By the system's clock, which may be set in between.
            waited = self._timed["data_wait"] / seconds
            values["speed/data_wait"] = min(1.0, max(0.0, waited))
        return values

    def norms(self, variables):
        """The norms of keras.Variables and of their last gradients, by tag."""
        values = {}
        for variable, norm in zip(variables, np.asarray(self._norms), strict=True):
            weight = np.linalg.norm(variable.numpy().ravel())
            values[f"norm_weight/{variable.path}"] = float(weight)
            values[f"norm_gradient/{variable.path}"] = float(norm)
        return values

    def note(self):
        """The mean loss so far, for the progress bar."""
        images = self._sums["applied"] * self._batch_size
        return f"loss {self._sums['loss'] / images:.3f}" if images else ""
