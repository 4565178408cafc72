"""`--mode=eval --watch`: evaluates each checkpoint of a run as training saves it.

It takes no lock and does not affect training. A run is complete when the checkpoint of its last
step exists. The last step comes from config.json, which training rewrites when a run is extended.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.sources import source
from loops.checkpointing import checkpoint, restore, run_folder, split_facts
from loops.config import flag_parsers, validation
from loops.config.config import Config
from loops.distribution import strategies
from loops.evaluation import eval_results
from loops.evaluation.trained_models import TrainedModel, make_evaluation_config
from loops.evaluator import Evaluator, predict_probabilities
from loops.metrics import classification, imagenet_real
from loops.monitoring import console
from loops.runtime import output_files

_POLL_SECONDS = 2.0
_LOG_SECONDS = 60.0


def run(config: Config) -> list[dict]:
    """Evaluates the existing checkpoints, oldest first, and then each new one.

    Args:
      config: config of the command line.

    Returns:
      results of each checkpoint, in order.
    """
    run_dir, record = _wait_for_record(config)
    own = make_evaluation_config(record, config)
    validation.check(own)
    strategy = strategies.make_strategy(strategies.to_single_process(config.distribution))
    split_facts.require_same_split(record.dataset, own.data)
    split = source.open_split(own.data, own.evaluation.split, record.class_names)
    evaluate = _CheckpointEvaluator(strategy, split, own)
    curve = []
    for step_dir in _watch_checkpoints(run_dir, config.evaluation.watch_patience):
        results = evaluate(TrainedModel(run_dir, step_dir, record, own))
        if results is not None:
            curve.append(results)
            output_files.write_json_output(own.evaluation.json, {"curve": curve})
    if not curve:
        raise UsageError(f"--ckpt={run_dir}: no checkpoint could be evaluated")
    rows = [console.format_comparison_row(f"step {r['step']}", r) for r in curve]
    console.print_lines([str(run_dir)])
    console.print_table(console.comparison_header(curve[0]), rows)
    return curve


class _CheckpointEvaluator:
    """Evaluates checkpoints one after the other with one model, which is traced once."""

    def __init__(self, strategy: tf.distribute.Strategy, split: source.Source, config: Config):
        self._config = config
        self._strategy = strategy
        self._split = split
        self._real = imagenet_real.load_split_labels(config.evaluation, config.data.dataset, split)
        eval_results.warn_of_small_set(
            flag_parsers.parse_top_k(config.evaluation.top_k),
            len(split.class_names),
            split.num_examples,
        )
        self._model = None
        self._evaluator: Evaluator | None = None

    def __call__(self, model: TrainedModel) -> dict | None:
        """Writes and returns the results; None if the checkpoint was removed in the meantime."""
        if not self._restore(model):
            return None
        predicted = predict_probabilities(self._evaluator, self._config.evaluation.crops)
        top1_raw = None
        # If the raw weights are gone by now, the results of the average are kept.
        if model.has_ema and self._restore(model, averaged=False):
            top1_raw = classification.score(*self._evaluator(), [1])["top1"]
        results = eval_results.score_models([predicted], [model], self._split, self._real, top1_raw)
        suffix = eval_results.resizing_suffix(self._config, model.record)
        eval_results.write_json(model.run_dir, results, suffix=suffix)
        eval_results.log_to_tensorboard(
            model.run_dir, results, suffix.replace("-", "_"), curve=eval_results.WATCH_CURVE
        )
        return results

    def _restore(self, model: TrainedModel, averaged: bool = True) -> bool:
        """Loads the weights; returns whether they still existed."""
        try:
            if self._model is None:
                self._model = model.restore(self._strategy)
                self._evaluator = Evaluator.from_config(
                    self._strategy, self._model, self._split, self._config
                )
            else:
                restore.load_weights(self._model, model.record, model.step_dir, averaged)
        except Exception:
            if model.step_dir.exists():
                raise
            which = "it was" if averaged else "its raw weights were"
            logging.warning("%s was removed before %s read", model.step_dir, which)
            self._model = None
            return False
        return True


def _wait_for_record(config: Config) -> tuple[pathlib.Path, run_folder.Record]:
    """Waits for the run of `--ckpt` to start; returns its folder and its Record."""
    ckpt = config.evaluation.ckpt
    names_a_step = checkpoint.parse_step(ckpt) is not None or pathlib.Path(ckpt).name == "best"
    if not ckpt or "," in ckpt or names_a_step:
        raise UsageError(f"--ckpt={ckpt}: --watch needs the folder of one run")
    run_dir = pathlib.Path(ckpt)
    patience = _PatienceTimer(config.evaluation.watch_patience)
    while not (run_dir / "config.json").exists():
        if run_dir.exists() and not run_dir.is_dir():
            raise UsageError(f"--ckpt={ckpt}: not a folder")
        if not patience.wait(f"a run in {run_dir}"):
            raise UsageError(f"--ckpt={ckpt}: no run has started within --watch_patience")
    return run_dir, run_folder.read_record(run_dir)


def _watch_checkpoints(run_dir: pathlib.Path, minutes: float) -> Iterator[pathlib.Path]:
    """Yields each intact step folder once, in order of steps, until the run is complete."""
    patience = _PatienceTimer(minutes)
    last_seen, damaged, polls_behind = -1, {}, 0
    config_file, config_time = run_dir / "config.json", None
    while True:
        # Read the last step before listing folders, because a run may be made longer.
        if not config_file.exists() or config_file.stat().st_mtime_ns != config_time:
            last_step = _read_last_step(run_dir)
            config_time = config_file.stat().st_mtime_ns
        folders = checkpoint.list_step_folders(run_dir)
        # The newest folder disappears for a moment when training rewrites a damaged step.
        is_behind = bool(folders) and max(map(checkpoint.parse_step, folders)) < last_seen
        polls_behind = polls_behind + 1 if is_behind else 0
        if polls_behind > 1:
            raise UsageError(
                f"--ckpt={run_dir}: the run was started over; run --watch again to follow it"
            )
        new_folders = [
            folder
            for folder in folders
            if checkpoint.parse_step(folder) > last_seen
            and damaged.get(folder) != _identify_folder(folder)
        ]
        for folder in sorted(new_folders, key=checkpoint.parse_step):
            identity = _identify_folder(folder)
            try:
                checkpoint.verify(folder)
            except checkpoint.CorruptCheckpointError as error:
                if folder.exists():  # training has not removed it in the meantime
                    damaged[folder] = identity  # training may write that step again
                    logging.warning("%s is skipped: %s", folder, error)
                continue
            last_seen = checkpoint.parse_step(folder)
            yield folder
            patience = _PatienceTimer(minutes)
        if last_seen >= last_step and not is_behind:
            logging.info("the run is complete at step %d", last_seen)
            return
        if not new_folders and not patience.wait(
            f"a checkpoint after step {max(0, last_seen)}, of {last_step}"
        ):
            logging.warning("no new checkpoint in %g minutes: giving up", minutes)
            return


def _identify_folder(folder: pathlib.Path) -> tuple[int, int] | None:
    """Returns an identity that differs if the folder was replaced; None if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        status = folder.stat()
        return status.st_ino, status.st_mtime_ns
    return None


def _read_last_step(run_dir: pathlib.Path) -> int:
    """Returns the number of steps of the whole run, computed as training does.

    Raises:
      UsageError: config.json does not have it.
    """
    with contextlib.suppress(UsageError, KeyError, TypeError):
        record = run_folder.read_record(run_dir)
        images = record.dataset["train"]["images"]
        length = record.config.length
        return flag_parsers.compute_total_steps(length, images, record.config.data.batch_size)
    raise UsageError(f"--ckpt={run_dir}: config.json does not have the length of the run")


@dataclasses.dataclass
class _PatienceTimer:
    """Waits in short intervals, logs once a minute, gives up after `minutes` (0: never)."""

    minutes: float

    def __post_init__(self):
        self._start = self._last_line = time.monotonic()

    def wait(self, what: str) -> bool:
        """Waits a moment and returns True, or returns False if time is up."""
        now = time.monotonic()
        if self.minutes and now - self._start > 60 * self.minutes:
            return False
        if now - self._last_line > _LOG_SECONDS:
            self._last_line = now
            logging.info("waiting for %s", what)
        time.sleep(_POLL_SECONDS)
        return True
