"""The loop around the training step: how many steps a call does, when to look, when to save."""

import time

import tensorflow as tf
from absl import logging

from input_pipeline import datasets
from input_pipeline.errors import UsageError, UserError
from loops import evaluate, validation
from loops.run import checkpoint, progress, report
from loops.run.saver import Saver
from loops.run.signals import Stopped
from loops.run.window import Window
from loops.scoring import judgement, metrics

# Between two calls of the step, signals and the progress bar are served.
_SECONDS_PER_CALL = 2.0
_GRID_IMAGES = 32


class TrainingDiverged(UserError):
    """Gradients or weights are not finite."""

    exit_code = 4


class TrainingLoop:
    """Drives one training to its end.

    Args:
      config: resolved Config.
      run_dir: pathlib.Path of the run folder, locked.
      state: TrainState, fresh or restored.
      feed: TrainFeed.
      train_step: see `make_train_step`.
      val_split: Source to evaluate on.
      sink: Measurements.
      length: total_steps, steps_per_epoch and learning_rate(step) of the run.
      stop_signal: returns the number of the signal that asks for an end, or None.
    """

    def __init__(
        self, config, run_dir, state, feed, train_step, val_split, sink, length, stop_signal
    ):
        self._config = config
        self._run_dir = run_dir
        self._state = state
        self._feed = feed
        self._train_step = train_step
        self._val_split = val_split
        self._sink = sink
        self._length = length
        self._stop_signal = stop_signal
        self._every = {
            name: validation.interval(
                getattr(config.run, name), length.steps_per_epoch, f"--{name}"
            )
            for name in ("log_every", "eval_every", "save_every")
        }
        self._batch_size = config.data.batch_size
        self._top_k = validation.top_ks(config.evaluation.top_k)
        self._center_crop = self._evaluator(crops=1)
        self._saver = Saver(
            run_dir, config.run.keep, state.variables(), saved=int(state.step) or None
        )
        self._window = Window(self._batch_size)
        self._seconds_per_step = None  # unknown until a call has run that did not trace

    def run(self):
        """Trains, evaluates once more as `--crops` says, and returns those results."""
        total = self._length.total_steps
        if int(self._state.step) < total:
            self._look_around()
            done = int(self._state.step) * self._batch_size
            bar = progress.Progress("train", total * self._batch_size, done)
            try:
                self._train(bar)
            finally:
                bar.close()
        return self._finish()

    def _look_around(self):
        """A page of training images, and one batch through the evaluator: a broken evaluation
        is found now and not after the first epoch."""
        self._center_crop(max_batches=1)
        if int(self._state.step) == 0:
            images, labels = self._feed.first_images(_GRID_IMAGES)
            names = self._val_split.class_names
            titles = [datasets.readable(names[label]) for label in labels]
            self._sink.image_grid("train", 0, "images/augmented", images, titles)

    def _train(self, bar):
        done = int(self._state.step)
        self._serve_signal(done)
        iterator = self._feed.iterator(done)
        while done < self._length.total_steps:
            before = done
            sums = self._call(iterator, self._steps_of_call(done), done)
            done = int(self._state.step)
            self._require_finite(done)
            if sums["replaced"]:
                self._feed.account(before, done, int(self._state.replaced))
            bar.advance((done - before) * self._batch_size, self._window.note())
            self._serve_signal(done)
            started = time.monotonic()
            results = {}
            if self._is_due("log_every", done):
                self._log(done)
            if self._is_due("eval_every", done):
                results = self._evaluate(done)
            if self._is_due("save_every", done):
                self._save(done, results)
            bar.pause(time.monotonic() - started)
            self._serve_signal(done)

    def _call(self, iterator, num_steps, done):
        """Calls the step and adds its sums to the window."""
        started = time.monotonic()
        try:
            sums = self._train_step(iterator, tf.constant(num_steps, tf.int64))
            sums = {name: float(value) for name, value in sums.items()}
        except tf.errors.ResourceExhaustedError as error:
            raise UsageError(
                f"--batch_size={self._batch_size}: out of memory; halve it, or add"
                f" --mixed_precision ({error.message.splitlines()[0][:100]})"
            ) from None
        except tf.errors.OpError as error:
            raise self._feed.explained(error, done) from error
        seconds = time.monotonic() - started
        self._window.add(sums, seconds, timed=self._seconds_per_step is not None)
        if self._seconds_per_step is None:
            logging.info("the first step took %.1f s, tracing included", seconds)
            self._seconds_per_step = _SECONDS_PER_CALL
        else:
            self._seconds_per_step = seconds / sums["steps"]
        return sums

    def _steps_of_call(self, done):
        """Steps until something else is due, but not beyond about two seconds of work."""
        if self._seconds_per_step is None:
            return 1
        by_time = max(1, int(_SECONDS_PER_CALL / self._seconds_per_step))
        until_due = min(every - done % every for every in self._every.values())
        return min(by_time, until_due, self._length.total_steps - done)

    def _is_due(self, name, done):
        return done % self._every[name] == 0 or done == self._length.total_steps

    def _log(self, done):
        loss_scale = self._state.loss_scale
        run_values = {
            "optim/learning_rate": float(self._length.learning_rate(done - 1)),
            "optim/loss_scale": float(loss_scale.scale),
            "optim/skipped_steps": int(loss_scale.skipped_steps),
            "optim/skips_in_a_row": int(loss_scale.skips_in_a_row),
            "data/replaced_images": int(self._state.replaced),
            "progress/epoch": done / self._length.steps_per_epoch,
        }
        self._sink.measure("train", done, {**self._window.values(self._state.l2()), **run_values})
        self._window.clear()

    def _evaluator(self, crops):
        return evaluate.Evaluator(
            self._state.strategy,
            self._state.model,
            self._val_split,
            self._config.data,
            crops,
            self._config.evaluation.eval_batch_size,
        )

    def _predictions(self, evaluator, done):
        """Probabilities and labels of the val split; a signal meanwhile saves and ends."""
        self._state.average_batch_norm()
        try:
            return evaluator(stop=lambda: self._stop_signal() is not None)
        except evaluate.Interrupted:
            self._serve_signal(done)
            raise

    def _evaluate(self, done):
        """Centre-crop evaluation; returns its figures."""
        predictions = self._predictions(self._center_crop, done)
        results = metrics.score(*predictions, sorted({1, *self._top_k}))
        values = {
            "loss/cross_entropy": results["nll"],
            "loss/total": results["nll"] + self._state.l2(),
        }
        for k in self._top_k:
            values[f"accuracy/top{k}"] = results[f"top{k}"]
        self._sink.measure("eval", done, values)
        return results

    def _save(self, done, results):
        """Saves; a failing disk is survived, but not at the end of training."""
        self._state.average_batch_norm()
        try:
            saved = self._saver.save(done, {k: results[k] for k in ("top1", "nll") if k in results})
        except checkpoint.NonFiniteError as error:
            raise TrainingDiverged(
                f"step {done}: variable {error} is not finite; {self._last_good()}"
            ) from None
        if not saved and done == self._length.total_steps:
            raise UsageError(f"{self._run_dir}: the last step could not be written, see above")
        return saved

    def _serve_signal(self, done):
        if (signum := self._stop_signal()) is None:
            return
        if done and not self._save(done, {}):
            raise Stopped(signum, f"step {done} could not be saved; {self._last_good()}")
        raise Stopped(signum, f"step {done} is saved, the same --run_name resumes it")

    def _require_finite(self, done):
        loss_scale = self._state.loss_scale
        if not bool(loss_scale.hopeless()):
            return
        first = (done - 1) * self._batch_size
        last = first + self._batch_size - 1
        raise TrainingDiverged(
            f"step {done}: gradients are not finite, {int(loss_scale.skips_in_a_row)} step(s) in a"
            f" row, loss scale {float(loss_scale.scale):g}; samples {first} to {last}, the first is"
            f" {self._feed.image_of(first)}; {self._last_good()}; try a lower --learning_rate"
        )

    def _last_good(self):
        newest = checkpoint.newest_intact(self._run_dir)
        return f"last good checkpoint: {newest}" if newest else "no checkpoint was saved yet"

    def _finish(self):
        """The final evaluation, with the crops that `--crops` names."""
        done = int(self._state.step)
        predictions = self._predictions(self._evaluator(self._config.evaluation.crops), done)
        results = evaluate.described(
            judgement.judge(*predictions, self._top_k),
            self._config,
            done,
            self._run_dir / f"step-{done:08d}",
        )
        evaluate.write(self._run_dir, results, self._config.evaluation.json)
        self._sink.measure("eval", done, evaluate.scalars(results))
        report.summary(f"{self._run_dir}, step {done}", report.evaluation_rows(results))
        return results
