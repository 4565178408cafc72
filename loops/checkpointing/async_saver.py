"""Saves a run's state step by step, beside training, and survives a disk that is full for a while.

The loop waits while variables are copied; a thread hashes, writes, syncs and renames. At most one
save is under way: the next one, and every end of training, waits for it.
"""

import concurrent.futures
import time

import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.text import summarize_error
from loops.checkpointing import checkpoint, retention
from loops.config import flag_parsers

_MAX_FAILURES = 3


class Saver:
    """Writes checkpoints of one run; a context manager that ends with the last one on the disk.

    Args:
      run_dir: the run folder.
      run_config: RunConfig, which says how many to keep.
      variables: nested dicts of tf.Variable, see `checkpoint.save`.
      steps_per_epoch: float, for intervals in epochs.
      saved: the step that the variables were restored from, or None.
      workers: Workers where there are several: all of them call `save` and `finish` together, and
        the chief writes.
    """

    def __init__(self, run_dir, run_config, variables, steps_per_epoch, saved=None, workers=None):
        self._run_dir = run_dir
        self._keep = run_config.keep
        self._keep_every = None
        if run_config.keep_every != "0":
            self._keep_every = flag_parsers.parse_interval(
                run_config.keep_every, steps_per_epoch, "--keep_every"
            )
        self._variables = variables
        self._workers = workers
        self._verified = retention.VerificationCache()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "save")
        self._pending = None  # what the thread is at, where this process writes
        self._under_way = None  # its step
        self._saved = saved  # the newest step that is known to be on the disk
        self._failures = 0

    def save(self, step, metrics=None):
        """Begins to save a step, once; training may go on at the return.

        Raises:
          checkpoint.NonFiniteError: nothing is written.
          UsageError: the save before was the third failure of the disk in a row.
        """
        if self.finish() == step:
            return
        copies = checkpoint.copy_to_host(self._variables)
        self._under_way = step
        if self._workers is None or self._workers.is_chief:
            self._pending = self._thread.submit(self._write, step, copies, metrics)

    def finish(self):
        """Waits for the save that is under way.

        Returns:
          the newest step that is known to be on the disk, or None.

        Raises:
          UsageError: it was the third failure of the disk in a row.
        """
        if self._under_way is not None:
            saved = self._pending is not None and self._wait_for_outcome()
            if self._workers is not None:  # all agree, or one would save what others have
                saved = bool(self._workers.all_reduce_max(saved)[0])
            if saved:
                self._saved = self._under_way
            self._under_way = None
        return self._saved

    def wait(self):
        """Waits for the disk as `finish` does, but for no other worker; raises nothing."""
        if self._pending is not None:
            concurrent.futures.wait([self._pending])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._thread.shutdown()
        error = self._pending.result() if self._pending is not None else None
        if error is not None:
            logging.error("step %d could not be saved: %s", self._under_way, error)

    def _wait_for_outcome(self):
        """Whether the thread has saved, which it is waited for."""
        error = self._pending.result()
        self._pending = None
        if error is None:
            self._failures = 0
            return True
        self._failures += 1
        logging.error("step %d could not be saved (%d): %s", self._under_way, self._failures, error)
        if self._failures == _MAX_FAILURES:
            raise UsageError(
                f"--checkpoint_dir={self._run_dir.parent}: {_MAX_FAILURES} checkpoints in a"
                f" row could not be written ({error})"
            )
        return False

    def _write(self, step, copies, metrics):
        """In the thread; returns what hindered the disk to take the checkpoint, or None."""
        started = time.monotonic()
        try:
            folder = checkpoint.save(self._run_dir, step, copies, metrics)
        except (OSError, tf.errors.OpError, IndexError) as error:
            return summarize_error(error)
        self._verified.note(folder)
        logging.info("saved %s in %.1f s", folder, time.monotonic() - started)
        try:
            retention.prune(self._run_dir, self._keep, self._keep_every, verified=self._verified)
        except OSError as error:
            logging.error("old checkpoints could not be removed: %s", error)
        return None
