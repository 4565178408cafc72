"""The training loop: runs steps, logs, evaluates, saves and handles signals.

`TrainLoop._train` is the whole loop, from top to bottom.
"""

import contextlib
import dataclasses
import pathlib
import shlex
import time
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import logging

from input_pipeline import datasets
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import UsageError
from input_pipeline.text import summarize_error
from loops import train_failures
from loops.checkpointing import checkpoint, loss_trace
from loops.checkpointing.async_saver import Saver
from loops.config import flag_parsers
from loops.evaluation.during_training import TrainingEvaluator
from loops.evaluator import EvaluationInterrupted
from loops.monitoring import epoch_table, metric_writer, progress_bar
from loops.monitoring.phase_timer import PhaseTimer
from loops.monitoring.profiler import Profiler
from loops.monitoring.step_intervals import StepIntervals
from loops.monitoring.train_metrics import TrainMetrics
from loops.runtime import peak_memory
from loops.runtime.out_of_memory import convert_out_of_memory
from loops.runtime.stop_signals import StoppedBySignal, StopSignals
from loops.train_setup import TrainSetup
from loops.train_statistics import EARLY_STEPS, TrainStatistics

_GRID_IMAGES = 32


@dataclasses.dataclass(frozen=True)
class RunOutputs:
    """Where a training run writes.

    Attributes:
      run_dir: the run folder, locked by the chief.
      writer: writes metrics and images.
      trace: records the losses of the first steps.
    """

    run_dir: pathlib.Path
    writer: metric_writer.MetricWriter | metric_writer.NullMetricWriter
    trace: loss_trace.LossTrace | loss_trace.NullLossTrace


class TrainLoop:
    """Runs one training run from its current step to its end.

    Args:
      setup: the model, the data and the step. `build` was called; a resumed run is restored.
      outputs: where the run writes.
      signals: requests to stop or to save.
    """

    def __init__(self, setup: TrainSetup, outputs: RunOutputs, signals: StopSignals):
        config, schedule, is_chief = setup.config, setup.schedule, setup.workers.is_chief
        self._config = config
        self._setup = setup
        self._state = setup.state
        self._input = setup.train_input
        self._schedule = schedule
        self._workers = setup.workers
        self._outputs = outputs
        self._signals = signals
        self._resume = f"--mode=train --run_name={shlex.quote(outputs.run_dir.name)}"
        self._batch_size = config.data.batch_size
        profiled = flag_parsers.parse_profile_window(config.run.profile)
        if profiled and profiled[1] > schedule.total_steps:
            logging.warning(
                "--profile=%s: the run ends at step %d", config.run.profile, schedule.total_steps
            )
        self._profiler = Profiler(outputs.run_dir, config.run.profile if is_chief else "")
        self._intervals = StepIntervals(
            config.run,
            schedule.steps_per_epoch,
            schedule.total_steps,
            stops=(*self._input.get_size_change_steps(), *profiled, EARLY_STEPS),
        )
        self._statistics = TrainStatistics(setup)
        self._evaluator = TrainingEvaluator(
            config,
            outputs.run_dir,
            self._state,
            setup.val_split,
            outputs.writer,
            self._statistics.update,
            stop=lambda: self._agree_on_signals()[0] is not None,
            is_chief=is_chief,
        )
        self._saver = Saver(
            outputs.run_dir,
            config.run,
            self._state.variables(),
            schedule.steps_per_epoch,
            saved=int(self._state.step) or None,
            workers=self._workers,
        )
        # The workers agree on it, because all of them must join a save.
        (self._best_score,) = self._workers.all_reduce_max(
            checkpoint.read_best_score(outputs.run_dir)
        )
        has_own_loss = (
            config.optimization.loss != "softmax" or config.optimization.label_smoothing > 0
        )
        # Since the last log line, and since the last row of the table.
        self._metrics, self._row_metrics = (
            TrainMetrics(self._batch_size, has_own_loss) for _ in range(2)
        )
        self._table = epoch_table.EpochTable(
            schedule.steps_per_epoch,
            config.length.epochs or schedule.total_steps / schedule.steps_per_epoch,
            max(flag_parsers.parse_top_k(config.evaluation.top_k)),
        )
        self._timer = PhaseTimer()

    def run(self) -> dict:
        """Trains, then runs the final evaluation with `--crops` and returns its results."""
        step, total_steps = int(self._state.step), self._schedule.total_steps
        self._run_missed_evaluation(step)
        if step < total_steps:
            self._train(step)
            logging.info("done: %s", self._timer.summary())
        else:
            logging.info("nothing to train: %d of %d steps are done", step, total_steps)
        return self._evaluate(self._evaluator.evaluate_final, int(self._state.step))

    def _train(self, step: int) -> None:
        """Trains from a step to the end of the schedule."""
        total_steps, batch_size = self._schedule.total_steps, self._batch_size
        bar = progress_bar.Progress("train", total_steps * batch_size, step * batch_size)
        with contextlib.closing(bar), contextlib.closing(self._profiler), self._saver:
            self._handle_signals(step)
            self._timer = PhaseTimer()
            iterator, started_at = None, step
            while step < total_steps:
                if iterator is None or step in self._input.get_size_change_steps():
                    iterator = self._input.make_iterator(step)
                    self._intervals.reset_timing()

                # One call of the compiled function runs one step or many.
                if traces := self._intervals.next_call_traces:
                    bar.announce("compiling the training step")
                self._profiler.start_or_stop(step)
                sums = self._call_step(iterator, step)
                first_step, step = step, int(self._state.step)
                self._profiler.start_or_stop(step)
                self._outputs.trace.record(step, sums)
                self._require_finite_gradients(step)
                if sums["replaced"]:
                    self._input.report_replaced_images(
                        first_step, step, int(self._state.replaced), int(sums["replaced"])
                    )
                if first_step == started_at:
                    bar.announce("trying the evaluation on one batch")
                    with self._timer.phase("evaluation"):
                        self._run_sanity_checks(first_step)
                images = (step - first_step) * batch_size
                if traces:
                    bar.skip(images)
                else:
                    epoch = f"epoch {self._table.format_epoch(step)}"
                    bar.advance(images, self._metrics.note(), epoch)
                # A requested checkpoint is saved below, after this step's evaluation.
                self._handle_signals(step, may_save=False)

                started = time.monotonic()
                if step == EARLY_STEPS:
                    self._statistics.update(step)
                if self._intervals.is_due("log_every", step):
                    with self._timer.phase("logging"):
                        self._log(step)
                evaluation = None
                if self._intervals.is_due("eval_every", step):
                    with self._timer.phase("evaluation"):
                        evaluation = self._evaluate(self._evaluator.evaluate_center_crop, step)
                is_best = self._is_new_best(step)
                if self._intervals.is_due("save_every", step) or is_best:
                    self._save(step)
                bar.exclude_time(time.monotonic() - started)
                if evaluation is not None:
                    self._log_row(step, evaluation, bar.seconds_left(), is_best)
                self._handle_signals(step)

            with self._timer.phase("saving"):
                saved = self._saver.finish()
            if saved != step:
                raise UsageError(
                    f"{self._outputs.run_dir}: the last step could not be saved; see the log"
                )

    def _call_step(self, iterator: Iterator, step: int) -> dict[str, float]:
        """Calls the compiled step and adds its sums to the metrics."""
        num_steps = self._intervals.steps_until_due(step)
        if step < self._outputs.trace.num_steps:
            num_steps = 1  # the trace records the loss of every step
        started = time.monotonic()
        out_of_memory = convert_out_of_memory(
            f"--batch_size={self._batch_size}",
            lambda: train_failures.advise_on_memory(self._config, step),
        )
        try:
            with out_of_memory:
                sums = self._setup.step(iterator, tf.constant(num_steps, tf.int64))
                norms = sums.pop("gradient_norms", None)
                sums = {name: float(value) for name, value in sums.items()}
        except tf.errors.UnavailableError:
            raise
        except tf.errors.OpError as error:
            raise self._input.to_user_error(error, int(self._state.step)) from error
        seconds = time.monotonic() - started
        # All workers run the same number of steps per call: the slowest worker decides.
        is_timed = self._intervals.record_call(
            self._workers.all_reduce_max(seconds)[0], sums["steps"]
        )
        for metrics in (self._metrics, self._row_metrics):
            metrics.add(sums, seconds, timed=is_timed, norms=norms)
        if not is_timed:
            logging.info("compiled the training step and ran it in %.1f s", seconds)
        return sums

    def _log(self, step: int) -> None:
        """Writes the metrics gathered since the last log line."""
        loss_scale = self._state.loss_scale
        values = {
            **self._metrics.values(self._state.l2_penalty()),
            **self._timer.values(),
            "optim/learning_rate": float(self._schedule.learning_rate(step - 1)),
            "optim/loss_scale": float(loss_scale.scale),
            "optim/skipped_steps": int(loss_scale.skipped_steps),
            "system/skips_in_a_row": int(loss_scale.skips_in_a_row),
            "system/replaced_images": int(self._state.replaced),
            "progress/epoch": step / self._schedule.steps_per_epoch,
            "system/peak_gigabytes": peak_memory.peak_bytes() / 1e9,
        }
        if self._config.run.log_norms:
            values |= self._metrics.norms(self._state.model.trainable_variables)
        self._outputs.writer.write_scalars("train", step, values)
        self._metrics.clear()

    def _log_row(
        self, step: int, evaluation: dict[str, float], seconds_left: float, is_best: bool
    ) -> None:
        """Logs the row of an evaluation, with the metrics of training since the last one."""
        if self._workers.is_chief:
            learning_rate = float(self._schedule.learning_rate(step - 1))
            train = self._row_metrics.values(0.0)
            self._table.log_row(step, train, evaluation, learning_rate, seconds_left, is_best)
        self._row_metrics.clear()

    def _evaluate(self, evaluate: Callable[[int], dict], step: int) -> dict:
        """Evaluates. If a signal or an error interrupts it, saves the step, then raises."""
        try:
            return evaluate(step)
        except EvaluationInterrupted:
            self._handle_signals(step)
            raise
        except Exception:
            # With several workers, those without the error would never join the save.
            if step and self._workers.num_workers == 1:
                try:
                    self._save(step)
                except Exception as error:  # the original error is the one to report
                    logging.error("step %d could not be saved: %s", step, summarize_error(error))
            raise

    def _save(self, step: int) -> None:
        """Starts saving the step. A failed write ends training only if it is the third in a row."""
        with self._timer.phase("saving"):
            self._statistics.update(step)
            try:
                self._saver.save(step, self._evaluator.metrics_at(step))
            except checkpoint.NonFiniteError as error:
                raise train_failures.make_nonfinite_variable_error(
                    step, error, self._outputs.run_dir
                ) from None

    def _is_new_best(self, step: int) -> bool:
        """Returns whether the step was evaluated and is better than all earlier ones."""
        score = self._evaluator.score_at(step)
        is_better = score > self._best_score
        self._best_score = max(self._best_score, score)
        return is_better

    def _agree_on_signals(self) -> tuple[int | None, bool]:
        """Returns (stop signal or None, whether a save is requested), equal on all workers."""
        own = self._signals.received or 0, self._signals.save_requested
        number, save_requested = self._workers.all_reduce_max(*own)
        return int(number) or None, bool(save_requested)

    def _handle_signals(self, step: int, may_save: bool = True) -> None:
        """Saves the step if requested. On a stop signal, saves it and raises StoppedBySignal."""
        signal, save_requested = self._agree_on_signals()
        if signal is None:
            if save_requested and may_save:
                self._signals.save_requested = False
                if step:
                    self._save(step)
            return
        if not step:
            raise StoppedBySignal(signal, "no step was completed, so nothing was saved")
        if not self._metrics.is_empty:  # or else the curve would have a gap
            self._log(step)
        if self._saver.finish() != step:
            if self._statistics.will_measure(step):
                logging.info("measuring batch norm's statistics, then saving step %d", step)
            self._save(step)
        if self._saver.finish() != step:
            last = train_failures.describe_last_checkpoint(self._outputs.run_dir)
            raise StoppedBySignal(signal, f"step {step} could not be saved; {last}")
        raise StoppedBySignal(signal, f"step {step} was saved; resume with {self._resume}")

    def _run_missed_evaluation(self, step: int) -> None:
        """Repeats the evaluation of this step if a signal interrupted it."""
        is_missed = self._intervals.is_due("eval_every", step) and (
            self._evaluator.is_missing_metrics(step)
        )
        if self._workers.all_reduce_max(float(is_missed))[0]:
            evaluation = self._evaluate(self._evaluator.add_missing_metrics, step)
            self._log_row(step, evaluation, float("inf"), self._is_new_best(step))

    def _run_sanity_checks(self, step: int) -> None:
        """Evaluates one batch and, if training starts at step 0, logs a grid of training images.

        They come after the first training step, so that it does not wait for them.
        """
        self._evaluator.evaluate_first_batch()
        if step:
            return
        try:
            images, targets = self._input.load_first_images(_GRID_IMAGES)
        except tf.errors.OpError as error:
            raise self._input.to_user_error(error, 0) from error
        names = [datasets.display_name(name) for name in self._setup.val_split.class_names]
        captions = batch_augment.format_captions(targets, names)
        self._outputs.writer.write_image_grid("train", 0, "images/augmented", images, captions)

    def _require_finite_gradients(self, step: int) -> None:
        loss_scale = self._state.loss_scale
        if bool(loss_scale.should_stop()):
            self._saver.wait()
            raise train_failures.make_nonfinite_gradients_error(
                step,
                loss_scale,
                self._batch_size,
                self._input.describe_sample,
                self._outputs.run_dir,
            )
