"""Evaluations of a run by the process that trains it."""

import contextlib
import math
import pathlib
import sys
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from absl import logging

from input_pipeline.sources.source import Source
from input_pipeline.user_code import function_names
from loops.checkpointing import checkpoint
from loops.config import flag_parsers
from loops.config.choices import METRICS
from loops.config.config import Config
from loops.evaluation import eval_results, first_filters
from loops.evaluator import Evaluator
from loops.metrics import classification, comparison, metrics
from loops.monitoring import console, metric_writer
from loops.train_state import TrainState

# See `TrainingEvaluator._predict`.
_Predictions: TypeAlias = tuple[tuple[np.ndarray, np.ndarray], dict[str, float]]


class TrainingEvaluator:
    """Evaluates the model of a run. With EMA, evaluates the averaged and the raw weights.

    Args:
      config: resolved Config.
      run_dir: the run folder.
      state: variables of the run.
      val_split: images to evaluate on.
      writer: writes the metrics.
      update_statistics: prepares batch norm's statistics for the evaluation of a step.
      stop: called after each batch; true ends the evaluation with `EvaluationInterrupted`.
      is_chief: whether this process writes the results.
    """

    def __init__(
        self,
        config: Config,
        run_dir: pathlib.Path,
        state: TrainState,
        val_split: Source,
        writer: metric_writer.MetricWriter | metric_writer.NullMetricWriter,
        update_statistics: Callable[[int], None],
        stop: Callable[[], bool],
        is_chief: bool = True,
    ):
        self._config = config
        self._run_dir = run_dir
        self._state = state
        self._val_split = val_split
        self._writer = writer
        self._update_statistics = update_statistics
        self._stop = stop
        self._is_chief = is_chief
        self._top_k = flag_parsers.parse_top_k(config.evaluation.top_k)
        self._metrics = metrics.parse(config.evaluation.metrics)
        # The metric of `--best`, unless it is top-1.
        self._best_metric = [name for name in (config.evaluation.best,) if name != "top1"]
        self._center_crop = self._make_evaluator(crops=1)
        eval_results.warn_of_small_set(
            self._top_k, len(val_split.class_names), val_split.num_examples
        )
        # Step of the last evaluation, its predictions, its results.
        self._last: tuple[int, _Predictions, dict[str, float]] | None = None

    def evaluate_first_batch(self) -> None:
        """Evaluates one batch, so that a broken evaluation fails now and not after an epoch."""
        self._center_crop(max_batches=1)

    def evaluate_center_crop(self, step: int) -> dict[str, float]:
        """Evaluates on center crops, logs and returns the metrics."""
        predicted, raw = self._predict(self._center_crop)
        results = {**classification.score(*predicted, sorted({1, *self._top_k})), **raw}
        for name in (*self._metrics, *self._best_metric):
            results[function_names(name)] = metrics.compute(name, *predicted)
        self._last = step, (predicted, raw), results
        values = {
            "loss/cross_entropy": results["nll"],
            "loss/total": results["nll"] + self._state.l2_penalty(),
        }
        for k in self._top_k:
            values[f"accuracy/top{k}"] = results[f"top{k}"]
        for name, facts in metrics.iter_shown({**results, "metrics": self._metrics}):
            if name not in metrics.STANDARD:
                values[f"{facts.tensorboard_group}/{name}"] = results[name]
        if "top1_raw" in results:
            values["accuracy/top1_raw"] = results["top1_raw"]
        self._writer.write_scalars("eval", step, values)
        return results

    def metrics_at(self, step: int) -> dict[str, float]:
        """Returns the metrics to store in a step's checkpoint; empty if it was not evaluated."""
        if self._last is None or self._last[0] != step:
            return {}
        results = self._last[2]
        stored = {name: results[name] for name in ("top1", "nll")}
        for name in self._best_metric:
            sign = 1.0 if METRICS.get(name).facts.higher_is_better else -1.0
            score = sign * results[function_names(name)]
            stored["score"] = score if math.isfinite(score) else -sys.float_info.max
        return stored

    def score_at(self, step: int) -> float:
        """Returns by what `--best` compares the step with others; -inf if it was not evaluated."""
        return checkpoint.get_score(self.metrics_at(step))

    def is_missing_metrics(self, step: int) -> bool:
        """Returns whether the step has a checkpoint without metrics."""
        folder = checkpoint.step_folder(self._run_dir, step)
        return folder.exists() and checkpoint.read_score(folder) is None

    def add_missing_metrics(self, step: int) -> dict[str, float]:
        """Evaluates on center crops and adds the metrics to the checkpoint of the step."""
        results = self.evaluate_center_crop(step)
        if self._is_chief:
            folder = checkpoint.step_folder(self._run_dir, step)
            try:
                checkpoint.add_metrics(folder, self.metrics_at(step))
            except OSError as error:
                logging.error("%s: the metrics could not be added: %s", folder, error)
        return results

    def evaluate_final(self, step: int) -> dict:
        """Runs the last evaluation, with `--crops`; writes and returns its results."""
        crops = self._config.evaluation.crops
        if crops == 1 and self._last is not None and self._last[0] == step:
            predicted, raw = self._last[1]
        else:
            predicted, raw = self._predict(self._make_evaluator(crops))
        more = self._metrics
        results = {**comparison.evaluate_predictions(*predicted, self._top_k, more=more), **raw}
        folder = checkpoint.step_folder(self._run_dir, step)
        results = eval_results.add_metadata(
            results, self._config, self._val_split, step, [str(folder)]
        )
        if self._is_chief:
            eval_results.write_json(self._run_dir, results, self._config.evaluation.json)
            self._writer.write_scalars("eval", step, eval_results.to_scalars(results))
            picture = first_filters.draw(self._state.model)
            if picture is not None:
                self._writer.write_image("eval", step, "first_filters", picture)
            console.print_summary(
                f"{self._run_dir}, step {step}", console.format_evaluation(results)
            )
        return results

    def _make_evaluator(self, crops: int) -> Evaluator:
        config = self._config.replace(crops=crops)
        return Evaluator.from_config(
            self._state.strategy, self._state.model, self._val_split, config
        )

    def _predict(self, evaluator: Evaluator) -> _Predictions:
        """Returns ((probabilities, labels), {"top1_raw": top-1 of the raw weights} with EMA)."""
        self._update_statistics(int(self._state.step))
        ema = self._state.ema
        with ema.swap_weights() if ema else contextlib.nullcontext():
            predicted = evaluator(stop=self._stop)
        eval_results.warn_of_non_finite(f"{self._run_dir}", predicted[0], is_final=False)
        if not ema:
            return predicted, {}
        raw = classification.score(*evaluator(stop=self._stop), [1])
        return predicted, {"top1_raw": raw["top1"]}
