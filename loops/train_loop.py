"""The loop around the training step: it calls, looks, saves, and serves signals."""

import time

import tensorflow as tf
from absl import logging

from input_pipeline import datasets
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import UsageError
from input_pipeline.text import summarize_error, tf_error_message
from loops import train_failures
from loops.checkpointing import checkpoint
from loops.checkpointing.async_saver import Saver
from loops.config import flag_parsers
from loops.evaluation.during_training import TrainingEvaluator
from loops.evaluator import Interrupted
from loops.monitoring import progress_bar
from loops.monitoring.phase_timer import PhaseTimer
from loops.monitoring.profiler import Profiler
from loops.monitoring.step_intervals import StepIntervals
from loops.monitoring.train_metrics import TrainMetrics
from loops.runtime import peak_memory
from loops.runtime.stop_signals import StoppedBySignal

_GRID_IMAGES = 32


class TrainLoop:
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
        self._train_input = feed
        self._train_step = train_step
        self._class_names = val_split.class_names
        self._metric_writer = sink
        self._schedule = length
        self._signals = signals
        self._workers = workers
        window = flag_parsers.parse_profile_window(config.run.profile)
        if window and window[1] > length.total_steps:
            given = config.run.profile
            logging.warning("--profile=%s: the run ends at step %d", given, length.total_steps)
        self._profiler = Profiler(run_dir, config.run.profile if workers.is_chief else "")
        stops = (*feed.get_size_change_steps(), *window)
        self._step_intervals = StepIntervals(
            config.run, length.steps_per_epoch, length.total_steps, stops
        )
        self._batch_size = config.data.batch_size
        self._training_evaluator = TrainingEvaluator(
            config,
            run_dir,
            state,
            val_split,
            sink,
            stop=lambda: self._poll_signals()[0] is not None,
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
        self._train_metrics = TrainMetrics(self._batch_size)
        self._phase_timer = PhaseTimer()

    def run(self):
        """Trains, evaluates once more as `--crops` says, and returns those results."""
        total = self._schedule.total_steps
        done = int(self._state.step)
        self._run_missed_evaluation(done)
        if done < total:
            self._run_sanity_checks()
            bar = progress_bar.Progress("train", total * self._batch_size, done * self._batch_size)
            try:
                with self._saver:
                    self._train(bar)
            finally:
                self._profiler.close()
                bar.close()
            logging.info("%s", self._phase_timer.summary())
        else:
            logging.info("nothing to train: %d of %d steps are done", done, total)
        return self._evaluate_safely(self._training_evaluator.evaluate_final, int(self._state.step))

    def _run_sanity_checks(self):
        """A page of training images, and one batch through the evaluator."""
        self._training_evaluator.evaluate_first_batch()
        if int(self._state.step) == 0:
            try:
                images, targets = self._train_input.load_first_images(_GRID_IMAGES)
            except tf.errors.OpError as error:
                raise self._train_input.explained(error, 0) from error
            names = [datasets.display_name(name) for name in self._class_names]
            titles = batch_augment.format_captions(targets, names)
            self._metric_writer.write_image_grid("train", 0, "images/augmented", images, titles)

    def _train(self, bar):
        done = int(self._state.step)
        self._handle_signals(done)
        self._phase_timer = PhaseTimer()
        iterator = None
        while done < self._schedule.total_steps:
            if iterator is None or done in self._train_input.get_size_change_steps():
                iterator = self._train_input.make_iterator(done)
                self._step_intervals.reset_timing()
            self._profiler.start_or_stop(done)
            before = done
            sums = self._run_steps(iterator, self._step_intervals.steps_until_due(done), done)
            done = int(self._state.step)
            self._profiler.start_or_stop(done)
            self._require_finite(done)
            if sums["replaced"]:
                replaced = int(self._state.replaced), int(sums["replaced"])
                self._train_input.report_replaced_images(before, done, *replaced)
            bar.advance((done - before) * self._batch_size, self._train_metrics.note())
            self._handle_signals(done, wishes=False)  # a wish can wait for the figures of a save
            started = time.monotonic()
            self._run_due_actions(done)
            bar.exclude_time(time.monotonic() - started)
            self._handle_signals(done)
        with self._phase_timer.phase("saving"):
            saved = self._saver.finish()
        if saved != done:
            raise UsageError(f"{self._run_dir}: the last step could not be written, see above")

    def _run_missed_evaluation(self, done):
        """Makes the evaluation that a signal has kept from being made before the resumed step was
        saved."""
        missing = self._step_intervals.is_due(
            "eval_every", done
        ) and self._training_evaluator.is_missing_metrics(done)
        if self._workers.all_reduce_max(float(missing))[0]:
            self._evaluate_safely(self._training_evaluator.catch_up, done)

    def _run_due_actions(self, done):
        if self._step_intervals.is_due("log_every", done):
            with self._phase_timer.phase("logging"):
                self._log(done)
        if self._step_intervals.is_due("eval_every", done):
            with self._phase_timer.phase("evaluation"):
                self._evaluate_safely(self._training_evaluator.evaluate_center_crop, done)
        if self._step_intervals.is_due("save_every", done):
            self._save(done)

    def _run_steps(self, iterator, num_steps, done):
        """Calls the step and adds its sums to the window."""
        started = time.monotonic()
        try:
            sums = self._train_step(iterator, tf.constant(num_steps, tf.int64))
            norms = sums.pop("gradient_norms", None)
            sums = {name: float(value) for name, value in sums.items()}
        except tf.errors.UnavailableError:
            raise
        except tf.errors.ResourceExhaustedError as error:
            raise train_failures.make_out_of_memory_error(
                self._config, done, tf_error_message(error)[:100]
            ) from None
        except tf.errors.OpError as error:
            raise self._train_input.explained(error, int(self._state.step)) from error
        seconds = time.monotonic() - started
        # All workers do the same number of steps in a call: the slowest one's.
        counts = self._step_intervals.record_call(
            self._workers.all_reduce_max(seconds)[0], sums["steps"]
        )
        self._train_metrics.add(sums, seconds, timed=counts, norms=norms)
        if not counts:
            logging.info("the first step took %.1f s, tracing included", seconds)
        return sums

    def _log(self, done):
        loss_scale = self._state.loss_scale
        values = {
            **self._train_metrics.values(self._state.l2_penalty()),
            **self._phase_timer.values(),
            "optim/learning_rate": float(self._schedule.learning_rate(done - 1)),
            "optim/loss_scale": float(loss_scale.scale),
            "optim/skipped_steps": int(loss_scale.skipped_steps),
            "optim/skips_in_a_row": int(loss_scale.skips_in_a_row),
            "data/replaced_images": int(self._state.replaced),
            "progress/epoch": done / self._schedule.steps_per_epoch,
            "memory/peak_gigabytes": peak_memory.peak_bytes() / 1e9,
        }
        if self._config.run.log_norms:
            values |= self._train_metrics.norms(self._state.model.trainable_variables)
        self._metric_writer.write_scalars("train", done, values)
        self._train_metrics.clear()

    def _evaluate_safely(self, evaluation, done):
        """Evaluates; a signal meanwhile, and whatever hinders the evaluation, saves and ends."""
        try:
            return evaluation(done)
        except Interrupted:
            self._handle_signals(done)
            raise
        except Exception:
            if done and self._workers.num_workers == 1:  # several would wait for each other
                try:
                    self._save(done)
                except Exception as error:  # the first one is the one to end with
                    logging.error("step %d is not saved: %s", done, summarize_error(error))
            raise

    def _save(self, done):
        """Begins to save; a failing disk is survived."""
        with self._phase_timer.phase("saving"):
            self._state.average_batch_norm()
            try:
                self._saver.save(done, self._training_evaluator.metrics_at(done))
            except checkpoint.NonFiniteError as error:
                raise train_failures.make_nonfinite_variable_error(
                    done, error, self._run_dir
                ) from None

    def _poll_signals(self):
        """(the number of the signal that asks for an end or None, whether a save is wished for),
        the same on all workers."""
        own = self._signals.received or 0, self._signals.save_requested
        number, wished = self._workers.all_reduce_max(*own)
        return int(number) or None, bool(wished)

    def _handle_signals(self, done, wishes=True):
        signum, wished = self._poll_signals()
        if signum is None:
            if wished and wishes:
                self._signals.save_requested = False
                if done:
                    self._save(done)
            return
        if not done:
            raise StoppedBySignal(signum, "no step was done yet")
        self._save(done)
        if self._saver.finish() != done:
            good = train_failures.describe_last_checkpoint(self._run_dir)
            raise StoppedBySignal(signum, f"step {done} could not be saved; {good}")
        raise StoppedBySignal(signum, f"step {done} is saved, the same --run_name resumes it")

    def _require_finite(self, done):
        loss_scale = self._state.loss_scale
        if bool(loss_scale.should_stop()):
            self._saver.wait()
            raise train_failures.make_nonfinite_gradients_error(
                done, loss_scale, self._batch_size, self._train_input.describe_sample, self._run_dir
            )
