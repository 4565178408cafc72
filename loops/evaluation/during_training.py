"""Evaluations of a run by the process that trains it."""

import contextlib

from absl import logging

from loops.checkpointing import checkpoint
from loops.config import flag_parsers
from loops.evaluation import eval_results
from loops.evaluator import Evaluator
from loops.metrics import classification, comparison
from loops.monitoring import console


class TrainingEvaluator:
    """Evaluates the net of a run: its averaged weights where it keeps some, and its own beside.

    Args:
      config: resolved Config.
      run_dir: pathlib.Path of the run folder.
      state: TrainState.
      val_split: Source to evaluate on.
      sink: Measurements.
      stop: asked between batches; true ends the evaluation with `evaluator.Interrupted`.
      is_chief: whether this process writes the results.
    """

    def __init__(self, config, run_dir, state, val_split, sink, stop, is_chief=True):
        self._config = config
        self._run_dir = run_dir
        self._state = state
        self._val_split = val_split
        self._metric_writer = sink
        self._stop = stop
        self._is_chief = is_chief
        self._top_k = flag_parsers.parse_top_ks(config.evaluation.top_k)
        self._center_crop = self._evaluator(crops=1)
        self._last = None  # steps done at the last evaluation, what it found, and its figures

    def evaluate_first_batch(self):
        """Evaluates one batch: a broken evaluation is found now and not after an epoch."""
        self._center_crop(max_batches=1)

    def evaluate_center_crop(self, done):
        """Evaluates after `done` steps; returns the figures by name."""
        predicted, raw = self._predict(self._center_crop)
        results = {**classification.score(*predicted, sorted({1, *self._top_k})), **raw}
        self._last = done, (predicted, raw), results
        values = {
            "loss/cross_entropy": results["nll"],
            "loss/total": results["nll"] + self._state.l2_penalty(),
        }
        for k in self._top_k:
            values[f"accuracy/top{k}"] = results[f"top{k}"]
        if "top1_raw" in results:
            values["accuracy_raw/top1"] = results["top1_raw"]
        self._metric_writer.write_scalars("eval", done, values)
        return results

    def metrics_at(self, done):
        """The figures that the checkpoint of a step keeps: those of its evaluation, if any."""
        if self._last is None or self._last[0] != done:
            return {}
        return {name: self._last[2][name] for name in ("top1", "nll")}

    def is_missing_metrics(self, done):
        """Whether the step has a checkpoint, and none of its figures."""
        folder = self._step_folder(done)
        return folder.exists() and checkpoint.read_top1(folder) is None

    def catch_up(self, done):
        """Evaluates as `center_crop` does, a step that has been saved before."""
        results = self.evaluate_center_crop(done)
        if self._is_chief:
            folder = self._step_folder(done)
            try:
                checkpoint.add_metrics(folder, self.metrics_at(done))
            except OSError as error:
                logging.error("%s: its figures could not be added: %s", folder, error)
        return results

    def evaluate_final(self, done):
        """The last evaluation, with the crops that `--crops` names; returns its results."""
        crops = self._config.evaluation.crops
        if crops == 1 and self._last is not None and self._last[0] == done:
            predicted, raw = self._last[1]
        else:
            predicted, raw = self._predict(self._evaluator(crops))
        results = {**comparison.evaluate_predictions(*predicted, self._top_k), **raw}
        folder = self._step_folder(done)
        results = eval_results.add_metadata(results, self._config, self._val_split, done, folder)
        if self._is_chief:
            eval_results.write_json(self._run_dir, results, self._config.evaluation.json)
            self._metric_writer.write_scalars("eval", done, eval_results.to_scalars(results))
            console.print_summary(
                f"{self._run_dir}, step {done}", console.format_evaluation(results)
            )
        return results

    def _step_folder(self, done):
        return self._run_dir / f"step-{done:08d}"

    def _evaluator(self, crops):
        return Evaluator(
            self._state.strategy,
            self._state.model,
            self._val_split,
            self._config.data,
            crops,
            self._config.evaluation.eval_batch_size,
        )

    def _predict(self, evaluator):
        """((probabilities, labels), top1_raw by name: that of the weights beside an average)."""
        self._state.average_batch_norm()
        ema = self._state.ema
        with ema.swap_weights() if ema else contextlib.nullcontext():
            predicted = evaluator(stop=self._stop)
        if not ema:
            return predicted, {}
        raw = classification.score(*evaluator(stop=self._stop), [1])
        return predicted, {"top1_raw": raw["top1"]}
