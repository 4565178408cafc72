"""The loop around the training step: it calls, looks, saves, and serves signals."""

import time

import tensorflow as tf
from absl import logging

from input_pipeline import datasets
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import UsageError
from input_pipeline.text import first_line, said_by
from loops import train_failures
from loops.checkpointing import checkpoint
from loops.checkpointing.async_saver import Saver
from loops.config import flag_parsers
from loops.evaluation.during_training import RunEvaluation
from loops.evaluator import Interrupted
from loops.monitoring import progress_bar
from loops.monitoring.phase_timer import Spending
from loops.monitoring.profiler import Profiler
from loops.monitoring.step_intervals import Pace
from loops.monitoring.train_metrics import Window
from loops.runtime import peak_memory
from loops.runtime.stop_signals import Stopped

_GRID_IMAGES = 32


class TrainingLoop:
    """Drives one training to its end.

    Args:
      config: resolved Config.
      run_dir: pathlib.Path of the run folder, locked by the chief.
      state: TrainState, fresh or restored.
      feed: TrainFeed.
      train_step: see `make_train_step`.
      val_split: Source to evaluate on.
      sink: Measurements.
      length: total_steps, steps_per_epoch and learning_rate(step) of the run.
      signals: StopSignals, or NoSignals.
      workers: Workers.
    """

    def __init__(
        self, config, run_dir, state, feed, train_step, val_split, sink, length, signals, workers
    ):
        self._config = config
        self._run_dir = run_dir
        self._state = state
        self._feed = feed
        self._train_step = train_step
        self._class_names = val_split.class_names
        self._sink = sink
        self._length = length
        self._signals = signals
        self._workers = workers
        window = flag_parsers.profile_window(config.run.profile)
        if window and window[1] > length.total_steps:
            given = config.run.profile
            logging.warning("--profile=%s: the run ends at step %d", given, length.total_steps)
        self._profiler = Profiler(run_dir, config.run.profile if workers.is_chief else "")
        stops = (*feed.size_changes(), *window)
        self._pace = Pace(config.run, length.steps_per_epoch, length.total_steps, stops)
        self._batch_size = config.data.batch_size
        self._evaluation = RunEvaluation(
            config,
            run_dir,
            state,
            val_split,
            sink,
            stop=lambda: self._signal()[0] is not None,
            is_chief=workers.is_chief,
        )
        self._saver = Saver(
            run_dir,
            config.run,
            state.variables(),
            length.steps_per_epoch,
            saved=int(state.step) or None,
            workers=workers,
        )
        self._window = Window(self._batch_size)
        self._spending = Spending()

    def run(self):
        """Trains, evaluates once more as `--crops` says, and returns those results."""
        total = self._length.total_steps
        done = int(self._state.step)
        self._catch_up(done)
        if done < total:
            self._look_around()
            bar = progress_bar.Progress("train", total * self._batch_size, done * self._batch_size)
            try:
                with self._saver:
                    self._train(bar)
            finally:
                self._profiler.close()
                bar.close()
            logging.info("%s", self._spending.summary())
        else:
            logging.info("nothing to train: %d of %d steps are done", done, total)
        return self._evaluated(self._evaluation.final, int(self._state.step))

    def _look_around(self):
        """A page of training images, and one batch through the evaluator."""
        self._evaluation.first_batch()
        if int(self._state.step) == 0:
            try:
                images, targets = self._feed.first_images(_GRID_IMAGES)
            except tf.errors.OpError as error:
                raise self._feed.explained(error, 0) from error
            names = [datasets.readable(name) for name in self._class_names]
            titles = batch_augment.titles(targets, names)
            self._sink.image_grid("train", 0, "images/augmented", images, titles)

    def _train(self, bar):
        done = int(self._state.step)
        self._serve_signal(done)
        self._spending = Spending()
        iterator = None
        while done < self._length.total_steps:
            if iterator is None or done in self._feed.size_changes():
                iterator = self._feed.iterator(done)
                self._pace.begin_anew()
            self._profiler.serve(done)
            before = done
            sums = self._call(iterator, self._pace.steps_of_call(done), done)
            done = int(self._state.step)
            self._profiler.serve(done)
            self._require_finite(done)
            if sums["replaced"]:
                replaced = int(self._state.replaced), int(sums["replaced"])
                self._feed.account(before, done, *replaced)
            bar.advance((done - before) * self._batch_size, self._window.note())
            self._serve_signal(done, wishes=False)  # a wish can wait for the figures of a save
            started = time.monotonic()
            self._do_what_is_due(done)
            bar.pause(time.monotonic() - started)
            self._serve_signal(done)
        with self._spending.on("saving"):
            saved = self._saver.finish()
        if saved != done:
            raise UsageError(f"{self._run_dir}: the last step could not be written, see above")

    def _catch_up(self, done):
        """Makes the evaluation that a signal has kept from being made before the resumed step was
        saved."""
        missing = self._pace.is_due("eval_every", done) and self._evaluation.is_missing(done)
        if self._workers.largest(float(missing))[0]:
            self._evaluated(self._evaluation.catch_up, done)

    def _do_what_is_due(self, done):
        if self._pace.is_due("log_every", done):
            with self._spending.on("logging"):
                self._log(done)
        if self._pace.is_due("eval_every", done):
            with self._spending.on("evaluation"):
                self._evaluated(self._evaluation.center_crop, done)
        if self._pace.is_due("save_every", done):
            self._save(done)

    def _call(self, iterator, num_steps, done):
        """Calls the step and adds its sums to the window."""
        started = time.monotonic()
        try:
            sums = self._train_step(iterator, tf.constant(num_steps, tf.int64))
            norms = sums.pop("gradient_norms", None)
            sums = {name: float(value) for name, value in sums.items()}
        except tf.errors.UnavailableError:
            raise
        except tf.errors.ResourceExhaustedError as error:
            raise train_failures.out_of_memory(self._config, done, said_by(error)[:100]) from None
        except tf.errors.OpError as error:
            raise self._feed.explained(error, int(self._state.step)) from error
        seconds = time.monotonic() - started
        # All workers do the same number of steps in a call: the slowest one's.
        counts = self._pace.timed(self._workers.largest(seconds)[0], sums["steps"])
        self._window.add(sums, seconds, timed=counts, norms=norms)
        if not counts:
            logging.info("the first step took %.1f s, tracing included", seconds)
        return sums

    def _log(self, done):
        loss_scale = self._state.loss_scale
        values = {
            **self._window.values(self._state.l2()),
            **self._spending.values(),
            "optim/learning_rate": float(self._length.learning_rate(done - 1)),
            "optim/loss_scale": float(loss_scale.scale),
            "optim/skipped_steps": int(loss_scale.skipped_steps),
            "optim/skips_in_a_row": int(loss_scale.skips_in_a_row),
            "data/replaced_images": int(self._state.replaced),
            "progress/epoch": done / self._length.steps_per_epoch,
            "memory/peak_gigabytes": peak_memory.peak_bytes() / 1e9,
        }
        if self._config.run.log_norms:
            values |= self._window.norms(self._state.model.trainable_variables)
        self._sink.measure("train", done, values)
        self._window.clear()

    def _evaluated(self, evaluation, done):
        """Evaluates; a signal meanwhile, and whatever hinders the evaluation, saves and ends."""
        try:
            return evaluation(done)
        except Interrupted:
            self._serve_signal(done)
            raise
        except Exception:
            if done and self._workers.number == 1:  # several would wait for each other
                try:
                    self._save(done)
                except Exception as error:  # the first one is the one to end with
                    logging.error("step %d is not saved: %s", done, first_line(error))
            raise

    def _save(self, done):
        """Begins to save; a failing disk is survived."""
        with self._spending.on("saving"):
            self._state.average_batch_norm()
            try:
                self._saver.save(done, self._evaluation.metrics_at(done))
            except checkpoint.NonFiniteError as error:
                raise train_failures.variable_not_finite(done, error, self._run_dir) from None

    def _signal(self):
        """(the number of the signal that asks for an end or None, whether a save is wished for),
        the same on all workers."""
        own = self._signals.received or 0, self._signals.save_wanted
        number, wished = self._workers.largest(*own)
        return int(number) or None, bool(wished)

    def _serve_signal(self, done, wishes=True):
        signum, wished = self._signal()
        if signum is None:
            if wished and wishes:
                self._signals.save_wanted = False
                if done:
                    self._save(done)
            return
        if not done:
            raise Stopped(signum, "no step was done yet")
        self._save(done)
        if self._saver.finish() != done:
            good = train_failures.last_good(self._run_dir)
            raise Stopped(signum, f"step {done} could not be saved; {good}")
        raise Stopped(signum, f"step {done} is saved, the same --run_name resumes it")

    def _require_finite(self, done):
        loss_scale = self._state.loss_scale
        if bool(loss_scale.hopeless()):
            self._saver.wait()
            raise train_failures.gradients_not_finite(
                done, loss_scale, self._batch_size, self._feed.image_of, self._run_dir
            )
