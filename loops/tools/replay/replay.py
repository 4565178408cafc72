"""`--mode=repro`: replays the first steps of a run and says whether, and where, they depart.

Nothing is written into the run folder. The replay starts afresh with the run's own config and
compares what stands in its `loss_trace.jsonl`: the initial weights, then the loss of each step.
"""

import os
import pathlib

import tensorflow as tf
from absl import logging

from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import source
from input_pipeline.text import pluralize, tf_error_message
from loops import train
from loops.checkpointing import checkpoint, fine_tuning, loss_trace
from loops.config import dataset_flags, validation
from loops.config.config import leaves, merge, replace
from loops.distribution import strategies
from loops.monitoring import console, progress_bar
from loops.optimization.train_schedule import TrainSchedule
from loops.runtime import environment, output_files
from loops.tools.replay import loss_comparison
from loops.train_input import TrainInput
from loops.train_state import TrainState
from nets import registry

# Paths and devices; none of them changes what is computed but for rounding.
_OVERRIDABLE_FLAGS = frozenset(
    ("mode", "ckpt", "json", "strategy", "cpu_devices", "reader_threads", "cache", "recompute")
    + ("data_dir", "train_list", "val_list", "test_list", "class_names", "init_from")
)
_SUSPECTS_SHOWN = 3


def run(config, given):
    """Replays the run that `--ckpt` names, as many of its first steps as it kept the loss of.

    Args:
      config: Config of the command line; `--steps` asks for fewer steps.
      given: names of the flags that were typed.

    Returns:
      dict of facts, as in the JSON: `verdict` ("bitwise", "rounding" or "departs"), `steps`
      compared, `bitwise_steps`, `departs_at`, `largest_difference`, `differences`.

    Raises:
      UsageError: a run that cannot be replayed, or flags that conflict with it.
      DataError: the replay departs from the run.
    """
    run_dir = _find_run_dir(config.evaluation.ckpt)
    start, steps, ended = loss_trace.read(run_dir / loss_trace.FILE_NAME)
    if start.placement["workers"] > 1:
        raise UsageError(
            f"--ckpt={run_dir}: trained by {start.placement['workers']} workers; a replay is one"
            " process and would sum gradients in another order"
        )
    if not steps:
        raise UsageError(f"--ckpt={run_dir}: the run made no step, so there is nothing to replay")
    if "steps" in given:
        validation.check_ranges(dict(leaves(config)))
        steps = steps[: config.length.steps]
    own = _make_replay_config(start, config, given)
    replay = _Replay(own, start)
    facts = {"run": str(run_dir), **replay.compare(steps), "trace_ended_by": ended}
    output_files.write_json_output(config.evaluation.json, facts)
    console.print_summary(f"{run_dir}: {loss_comparison.format_verdict(facts)}", _rows(facts))
    if facts["verdict"] == "departs":
        raise DataError(
            f"--ckpt={run_dir}: {loss_comparison.format_verdict(facts)}"
            f"{replay.explain_departure(facts)}"
        )
    return facts


def _find_run_dir(ckpt):
    """The run folder of any form of `--ckpt`; no checkpoint needs to be left in it."""
    if not ckpt:
        raise UsageError("--ckpt is missing: name a run folder, as in --ckpt=checkpoints/RUN")
    if "," in ckpt:
        raise UsageError(f"--ckpt={ckpt}: name one run to replay")
    path = pathlib.Path(ckpt)
    if path.name == "best" or checkpoint.parse_step(path) is not None:
        path = path.absolute().parent
    if not path.is_dir():
        raise UsageError(f"--ckpt={ckpt}: there is no such folder")
    return path


def _make_replay_config(start, config, given):
    """The run's config at its first step, with the paths and devices of this command."""
    saved = start.record.config
    own = merge(saved, given - {"steps"}, config, _OVERRIDABLE_FLAGS, "replay")
    # Batches from a data service are those of the pipeline itself.
    dataset_flags.require_named_dataset(own.data, given)
    values = {"data_service": ""}
    if own.distribution.strategy not in ("one", "mirrored"):
        values["strategy"] = "mirrored" if start.placement["replicas"] > 1 else "one"
    own = replace(own, values)
    validation.check(own)
    return own


class _Replay:
    """A training from scratch, without a run folder.

    Args:
      config: Config to train with.
      start: Start of the run.
    """

    def __init__(self, config, start):
        strategy = strategies.make_strategy(config.distribution)
        strategies.require_equal_micro_batches(
            config.data.batch_size, strategy, config.optimization.accumulate
        )
        self._start = start
        self._config = config
        self._batch_size = config.data.batch_size
        self._split = source.open_split(config.data, "train", start.record.class_names)
        length = TrainSchedule(config, self._split.num_examples)
        self._train_input = TrainInput(
            strategy,
            self._split,
            config.data,
            config.length.seed,
            length.image_sizes,
            config.optimization.accumulate,
        )
        self._state = TrainState(strategy, config, len(start.record.class_names))
        if config.fine_tuning.init_from:
            names = start.record.class_names
            fine_tuning.load_weights(self._state.model, config.fine_tuning.init_from, names)
        self._step = train.make_step(config, self._state, length.learning_rate)

    def compare(self, recorded):
        """Replays until the loss departs from the recorded steps; returns the facts."""
        weights = loss_trace.hash_weights(self._state.model)
        facts = {
            "weights": "equal" if weights == self._start.weights else "differ",
            "differences": self._find_differences(),
        }
        bar = progress_bar.Progress("replay", len(recorded) * self._batch_size)
        steps = self._steps(bar)
        found = loss_comparison.compare(recorded, steps, self._start.placement["dtype"])
        bar.close()
        return {**found, **facts}

    def _steps(self, bar):
        """Yields the Step of each training step, without end."""
        iterator = None
        while True:
            done = int(self._state.step)
            if iterator is None or done in self._train_input.get_size_change_steps():
                iterator = self._train_input.make_iterator(done)
            try:
                yield loss_trace.to_step_record(self._step(iterator, tf.constant(1, tf.int64)))
            except tf.errors.ResourceExhaustedError as error:
                net = self._config.net
                helps = registry.is_residual(net.model) and not net.recompute
                raise UsageError(
                    f"--mode=repro: out of memory at {self._batch_size} images a step; give"
                    f" {'--recompute, or ' * helps}as many devices as the run had"
                    f" ({tf_error_message(error)[:100]})"
                ) from None
            except tf.errors.OpError as error:
                raise self._train_input.explained(error, done) from error
            bar.advance(self._batch_size)

    def _find_differences(self):
        """What is known to differ from the run, one line each."""
        found = environment.list_differences(
            self._start.environment, loss_trace.describe_environment()
        )
        replicas = self._state.strategy.num_replicas_in_sync
        placement = {**self._start.placement, "replicas": replicas}
        placement["dtype"] = self._state.compute_dtype
        found += environment.list_differences(self._start.placement, placement)
        was = self._start.record.dataset["train"]
        now = {"images": self._split.num_examples, "fingerprint": self._split.fingerprint}
        found += [f"train {line}" for line in environment.list_differences(was, now)]
        for line in found:
            logging.warning("not as in the run: %s", line)
        return found

    def explain_departure(self, facts):
        """What may be behind a departure, in a few words: the end of the error's line."""
        if facts["differences"]:
            return "; differs: " + ", ".join(facts["differences"])
        if facts["weights"] == "differ":
            return "; the initial weights differ already"
        step = facts["bitwise_steps"]
        samples = range(step * self._batch_size, (step + 1) * self._batch_size)
        names = dict.fromkeys(self._train_input.describe_sample(sample) for sample in samples)
        changed = [name for name in names if self._is_newer(name)]
        if not changed or len(changed) == len(names):  # all: the folder was copied
            return f"; nothing is known to differ, look at the images of step {step + 1}"
        shown = ", ".join(changed[:_SUSPECTS_SHOWN])
        return f"; {pluralize(len(changed), 'image')} of step {step + 1} written since: {shown}"

    def _is_newer(self, name):
        """Whether an image that is a file was written, or put there, since the run began."""
        try:
            status = os.stat(name)
        except OSError:
            return False
        return max(status.st_mtime, status.st_ctime) > self._start.time


def _rows(facts):
    difference = facts["largest_difference"]
    if difference is None:
        difference = "a step was skipped, or images were replaced, on one side only"
    else:
        difference = f"{difference:.2g} of the loss"
    rows = [
        ("initial weights", facts["weights"]),
        ("steps", f"{facts['steps']}, {facts['bitwise_steps']} of them equal bit for bit"),
        ("largest difference", difference),
    ]
    rows += [("differs", line) for line in facts["differences"]]
    rows += [("trace ends", f"the run was resumed with {c}") for c in facts["trace_ended_by"]]
    return rows
