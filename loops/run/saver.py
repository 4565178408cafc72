"""Saves a run's state step by step, and survives a disk that is full for a while."""

import time

import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from loops import flag_values
from loops.run import checkpoint

_MOST_FAILURES = 3


class Saver:
    """Writes checkpoints of one run.

    Args:
      run_dir: the run folder.
      run_config: RunConfig, which says how many to keep.
      variables: nested dicts of tf.Variable, see `checkpoint.save`.
      steps_per_epoch: float, for intervals in epochs.
      saved: the step that the variables were restored from, or None.
      workers: Workers where there are several: all of them call `save`, and the chief writes.
    """

    def __init__(self, run_dir, run_config, variables, steps_per_epoch, saved=None, workers=None):
        self._run_dir = run_dir
        self._keep = run_config.keep
        self._keep_every = None
        if run_config.keep_every != "0":
            self._keep_every = flag_values.interval(
                run_config.keep_every, steps_per_epoch, "--keep_every"
            )
        self._variables = variables
        self._workers = workers
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
        checkpoint.require_finite(self._variables)
        if self._workers is None or self._workers.is_chief:
            saved = self._write(step, metrics)
        else:
            saved = False
        if self._workers is not None:  # nobody goes on before the chief has written
            saved = bool(self._workers.largest(saved)[0])
        if saved:
            self._last = step
        return saved

    def _write(self, step, metrics):
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
        self._failures = 0
        logging.info("saved %s in %.1f s", folder, time.monotonic() - started)
        try:
            checkpoint.prune(self._run_dir, self._keep, self._keep_every)
        except OSError as error:
            logging.error("old checkpoints could not be removed: %s", error)
        return True
