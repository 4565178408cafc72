"""TensorBoard's profiler over some steps of a training."""

import tensorflow as tf
from absl import logging

from loops.config import flag_parsers


class Profiler:
    """Records what the host and the devices do between two steps.

    Args:
      run_dir: the run folder; TensorBoard finds the profile in its `train` folder.
      window: `--profile`.
    """

    def __init__(self, run_dir, window):
        self._folder = str(run_dir / "train")
        self.step_range = flag_parsers.parse_profile_window(window)
        self._runs = False

    def start_or_stop(self, done):
        """Starts or ends the record; called after every call of the step, and before the first."""
        if not self.step_range:
            return
        first, last = self.step_range
        if not self._runs and first <= done < last:
            tf.profiler.experimental.start(self._folder)
            self._runs = True
        elif self._runs and done >= last:
            self.close()

    def close(self):
        """Ends the record and writes it."""
        if self._runs:
            self._runs = False
            tf.profiler.experimental.stop()
            logging.info(
                "profile written to %s; TensorBoard shows it with the package xprof", self._folder
            )
