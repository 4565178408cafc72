"""`--mode=eval --watch`: evaluates each checkpoint of a run as training saves it.

It takes no lock and training does not know of it. A run is done when the checkpoint of its last
step is there, which config.json tells: training rewrites that file when a run is made longer.
"""

import contextlib
import dataclasses
import pathlib
import time

from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.sources import source
from loops.checkpointing import checkpoint, restore, run_folder
from loops.config import flag_parsers, validation
from loops.distribution import strategies
from loops.evaluation import eval_results
from loops.evaluation.trained_models import TrainedModel, make_evaluation_config
from loops.evaluator import Evaluator, predict_probabilities
from loops.metrics import classification, imagenet_real
from loops.monitoring import console
from loops.runtime import output_files

_POLL_SECONDS = 2.0
_LOG_SECONDS = 60.0


def run(config, given):
    """Evaluates the checkpoints that are there, the oldest first, and then each new one.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.

    Returns:
      list of the results of each checkpoint, in order; none is evaluated twice.
    """
    run_dir, record = _wait_for_record(config)
    own = make_evaluation_config(record, config, given)
    validation.check(own)
    strategy = strategies.make_strategy(strategies.to_single_process(config.distribution))
    split = source.open_split(own.data, own.evaluation.split, record.class_names)
    judge = _CheckpointEvaluator(strategy, split, own, record)
    every = []
    for step_dir in _watch_checkpoints(run_dir, config.evaluation.watch_patience):
        results = judge(TrainedModel(run_dir, step_dir, record, own))
        if results is not None:
            every.append(results)
            output_files.write_json_output(own.evaluation.json, {"curve": every})
    if not every:
        raise UsageError(f"--ckpt={run_dir}: no checkpoint could be evaluated")
    rows = [console.format_comparison_row(f"step {results['step']}", results) for results in every]
    console.print_lines([str(run_dir)])
    console.print_table(console.COMPARISON_HEADER, rows)
    return every


class _CheckpointEvaluator:
    """Evaluates one checkpoint after the other with one net, which is traced once."""

    def __init__(self, strategy, split, config, record):
        self._config = config
        self._strategy = strategy
        self._split = split
        self._class_names = record.class_names
        self._real = imagenet_real.load_split_labels(config.evaluation, config.data.dataset, split)
        self._model = None
        self._evaluator = None

    def __call__(self, member):
        """Writes and returns the results of a member; None where it has been removed meanwhile."""
        evaluation = self._config.evaluation
        if not self._restore(member):
            return None
        predicted = predict_probabilities(self._evaluator, evaluation.crops)
        ks = flag_parsers.parse_top_ks(evaluation.top_k)
        names = [str(member.step_dir)]
        results = eval_results.score(
            [predicted],
            names,
            self._split.labels,
            self._class_names,
            self._split.describe,
            ks,
            self._real,
        )
        # Where they are gone by now, the figures of the average stay.
        if member.has_ema and self._restore(member, averaged=False):
            results["top1_raw"] = classification.score(*self._evaluator(), [1])["top1"]
        results = eval_results.add_metadata(results, self._config, self._split, member.step, names)
        suffix = eval_results.preprocessing_suffix(self._config, member.record)
        eval_results.write_json(member.run_dir, results, suffix=suffix)
        suffix = suffix.replace("-", "_")
        eval_results.log_to_tensorboard(
            member.run_dir, results, suffix, curve=eval_results.WATCH_CURVE
        )
        return results

    def _restore(self, member, averaged=True):
        """Reads a member's weights into the net; whether they were still there."""
        try:
            if self._model is None:
                evaluation = self._config.evaluation
                self._model = member.restore(self._strategy)
                self._evaluator = Evaluator(
                    self._strategy,
                    self._model,
                    self._split,
                    self._config.data,
                    evaluation.crops,
                    evaluation.eval_batch_size,
                )
            else:
                restore.load_weights(self._model, member.record, member.step_dir, averaged)
        except Exception:
            if member.step_dir.exists():
                raise
            which = "it was" if averaged else "the weights beside its average were"
            logging.warning("%s was removed before %s read", member.step_dir, which)
            self._model = None
            return False
        return True


def _wait_for_record(config):
    """The run folder of `--ckpt` and its record; training may not have made them yet."""
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
            raise UsageError(f"--ckpt={ckpt}: no run began here in the time of --watch_patience")
    return run_dir, run_folder.read_record(run_dir)


def _watch_checkpoints(run_dir, minutes):
    """Yields each intact step folder once, in order of steps, until the run is done."""
    patience = _PatienceTimer(minutes)
    last_done, damaged, looks_behind = -1, {}, 0
    record, read = run_dir / "config.json", None
    while True:
        # What "done" means is read before looking: a run that is made longer goes on.
        if not record.exists() or record.stat().st_mtime_ns != read:
            last = _read_last_step(run_dir)
            read = record.stat().st_mtime_ns
        folders = checkpoint.list_step_folders(run_dir)
        # The newest one goes only for a moment, when training writes a damaged step again.
        is_behind = bool(folders) and max(map(checkpoint.parse_step, folders)) < last_done
        looks_behind = looks_behind + 1 if is_behind else 0
        if looks_behind > 1:
            raise UsageError(f"--ckpt={run_dir}: the run was begun anew; watch it again")
        newer = [
            folder
            for folder in folders
            if checkpoint.parse_step(folder) > last_done
            and damaged.get(folder) != _identify_folder(folder)
        ]
        for folder in sorted(newer, key=checkpoint.parse_step):
            version = _identify_folder(folder)
            try:
                checkpoint.verify(folder)
            except checkpoint.CorruptCheckpointError as error:
                if folder.exists():  # and not just pruned
                    damaged[folder] = version  # training may write that step again
                    logging.warning("%s is passed over: %s", folder, error)
                continue
            last_done = checkpoint.parse_step(folder)
            yield folder
            patience = _PatienceTimer(minutes)
        if last_done >= last and not is_behind:
            logging.info("step %d was the last one", last_done)
            return
        if not newer and not patience.wait(f"a checkpoint after step {last_done}, of {last}"):
            logging.warning("no new checkpoint in %g minutes: giving up", minutes)
            return


def _identify_folder(folder):
    """Tells a folder from another that takes its name later; None where it is gone."""
    with contextlib.suppress(FileNotFoundError):
        status = folder.stat()
        return status.st_ino, status.st_mtime_ns
    return None


def _read_last_step(run_dir):
    """Steps of the whole run, as training would count them; what it began with, if unreadable."""
    with contextlib.suppress(UsageError, KeyError, TypeError):
        record = run_folder.read_record(run_dir)
        images = record.dataset["train"]["images"]
        length = record.config.length
        return flag_parsers.compute_total_steps(length, images, record.config.data.batch_size)
    raise UsageError(f"--ckpt={run_dir}: its config.json does not tell how long the run is")


@dataclasses.dataclass
class _PatienceTimer:
    """Waits a little at a time, says so once a minute, and ends after so many minutes; 0: never."""

    minutes: float

    def __post_init__(self):
        self._start = self._last_line = time.monotonic()

    def wait(self, what):
        """Waits; returns whether there is patience left."""
        now = time.monotonic()
        if self.minutes and now - self._start > 60 * self.minutes:
            return False
        if now - self._last_line > _LOG_SECONDS:
            self._last_line = now
            logging.info("waiting for %s", what)
        time.sleep(_POLL_SECONDS)
        return True
