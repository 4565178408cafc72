"""Saves checkpoints in the background while training continues, and survives a full disk.

The loop waits only while the variables are copied. A thread hashes, writes, syncs and renames. At
most one save is in progress: the next save and the end of training wait for it.
"""

import concurrent.futures
import pathlib
import time
from collections.abc import Mapping

import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.text import summarize_error
from loops.checkpointing import checkpoint, retention
from loops.config import flag_parsers
from loops.config.training import RunConfig
from loops.distribution.workers import Workers

_MAX_FAILURES = 3  # in a row


class Saver:
    """Writes the checkpoints of a run; as a context manager, waits for the last one at exit.

    Args:
      run_dir: the run folder.
      run_config: its `keep` and `keep_every` determine which checkpoints stay.
      variables: see `checkpoint.save`.
      steps_per_epoch: converts an interval in epochs to steps.
      saved: the step that the variables were restored from, or None.
      workers: given when there are several workers. All of them call `save` and `finish`
        together, and the chief writes.
    """

    def __init__(
        self,
        run_dir: pathlib.Path,
        run_config: RunConfig,
        variables: checkpoint.VariableTree,
        steps_per_epoch: float,
        saved: int | None = None,
        workers: Workers | None = None,
    ) -> None:
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
        # The write in progress; None on workers that do not write.
        self._pending_write: concurrent.futures.Future[str | None] | None = None
        self._pending_step: int | None = None
        self._saved_step = saved  # the newest step known to be on the disk
        self._failures = 0

    def save(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Begins to save a step unless it is already saved; training may continue on return.

        Raises:
          checkpoint.NonFiniteError: a variable is not finite; nothing is written.
          UsageError: the previous save was the third failure in a row.
        """
        if self.finish() == step:
            return
        copies = checkpoint.copy_to_host(self._variables)
        self._pending_step = step
        if self._workers is None or self._workers.is_chief:
            self._pending_write = self._thread.submit(self._write, step, copies, metrics)

    def finish(self) -> int | None:
        """Waits for the save in progress.

        Returns:
          the newest step known to be on the disk, or None.

        Raises:
          UsageError: the save was the third failure in a row.
        """
        if self._pending_step is not None:
            saved = self._pending_write is not None and self._wait_for_write()
            if self._workers is not None:
                # All workers must agree, or one would save a step that the others skip.
                saved = bool(self._workers.all_reduce_max(saved)[0])
            if saved:
                self._saved_step = self._pending_step
            self._pending_step = None
        return self._saved_step

    def wait(self) -> None:
        """Waits for the write in progress but not for other workers; raises nothing."""
        if self._pending_write is not None:
            concurrent.futures.wait([self._pending_write])

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_) -> None:
        self._thread.shutdown()
        error = self._pending_write.result() if self._pending_write is not None else None
        if error is not None:
            logging.error("step %d could not be saved: %s", self._pending_step, error)

    def _wait_for_write(self) -> bool:
        """Waits for the thread; returns whether it saved the step."""
        error = self._pending_write.result()
        self._pending_write = None
        if error is None:
            self._failures = 0
            return True
        self._failures += 1
        logging.error(
            "step %d could not be saved (%d): %s", self._pending_step, self._failures, error
        )
        if self._failures == _MAX_FAILURES:
            raise UsageError(
                f"--checkpoint_dir={self._run_dir.parent}: {_MAX_FAILURES} checkpoints in a"
                f" row could not be written ({error})"
            )
        return False

    def _write(
        self, step: int, copies: checkpoint.VariableTree, metrics: Mapping[str, float] | None
    ) -> str | None:
        """Runs in the thread; returns the error that prevented the save, or None."""
        started = time.monotonic()
        try:
            folder = checkpoint.save(self._run_dir, step, copies, metrics)
        except (OSError, tf.errors.OpError, IndexError) as error:
            return summarize_error(error)
        self._verified.mark_intact(folder)
        logging.debug("saved %s in %.1f s", folder, time.monotonic() - started)
        try:
            retention.prune(self._run_dir, self._keep, self._keep_every, verified=self._verified)
        except OSError as error:
            logging.error("old checkpoints could not be removed: %s", error)
        return None
