"""Saves a run's state step by step, and survives a disk that is full for a while."""

import time

import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from loops.run import checkpoint

_MOST_FAILURES = 3


class Saver:
    """Writes checkpoints of one run.

    Args:
      run_dir: the run folder.
      keep: checkpoints to keep besides the best one.
      variables: nested dicts of tf.Variable, see `checkpoint.save`.
      saved: the step that the variables were restored from, or None.
    """

    def __init__(self, run_dir, keep, variables, saved=None):
        self._run_dir = run_dir
        self._keep = keep
        self._variables = variables
        self._failures = 0
        self._last = saved

    def save(self, step, metrics=None):
        """Saves a step, once.

        Returns:
          whether the step is on the disk.

        Raises:
          checkpoint.NonFiniteError: nothing is written.
          UsageError: the third failure of the disk in a row.
        """
        if step == self._last:
            return True
        started = time.monotonic()
        try:
            folder = checkpoint.save(self._run_dir, step, self._variables, metrics)
        except (OSError, tf.errors.OpError) as error:
            self._failures += 1
            logging.error("step %d could not be saved (%d): %s", step, self._failures, error)
            if self._failures == _MOST_FAILURES:
                raise UsageError(
                    f"--checkpoint_dir={self._run_dir.parent}: {_MOST_FAILURES} checkpoints in a"
                    f" row could not be written ({error})"
                ) from None
            return False
        self._failures, self._last = 0, step
        logging.info("saved %s in %.1f s", folder, time.monotonic() - started)
        try:
            checkpoint.prune(self._run_dir, self._keep)
        except OSError as error:
            logging.error("old checkpoints could not be removed: %s", error)
        return True
