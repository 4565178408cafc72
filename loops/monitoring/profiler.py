"""Records a TensorBoard profile of some training steps."""

import os
import pathlib

import tensorflow as tf
from absl import logging

from input_pipeline.system import atomic_files
from loops.config import flag_parsers


class Profiler:
    """Profiles the host and the devices between two steps.

    Args:
      run_dir: the run folder; the profile is written to its `train` folder.
      window: `--profile`.
    """

    def __init__(self, run_dir: pathlib.Path, window: str) -> None:
        self._folder = str(run_dir / "train")
        self.step_range = flag_parsers.parse_profile_window(window)
        self._is_recording = False

    def start_or_stop(self, step: int) -> None:
        """Starts or stops recording; call it before the first and after each call of the step."""
        if not self.step_range:
            return
        first, last = self.step_range
        if not self._is_recording and first <= step < last:
            for folder in ("", "plugins", "plugins/profile"):  # the profiler would follow links
                atomic_files.make_folder(os.path.join(self._folder, folder))
            tf.profiler.experimental.start(self._folder)
            self._is_recording = True
        elif self._is_recording and step >= last:
            self.close()

    def close(self) -> None:
        """Stops recording and writes the profile."""
        if self._is_recording:
            self._is_recording = False
            tf.profiler.experimental.stop()
            logging.info(
                "profile written to %s; TensorBoard shows it with the package xprof", self._folder
            )
