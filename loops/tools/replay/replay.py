"""`--mode=repro`: replays the first steps of a run and reports whether and where they differ.

Nothing is written into the run folder. The replay starts from scratch with the run's config. It
compares the initial weights and the loss of each step with those in `loss_trace.jsonl`.
"""

import dataclasses
import os
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from input_pipeline.errors import DataError, UsageError
from input_pipeline.text import pluralize
from loops.checkpointing import fine_tuning, loss_trace, run_folder
from loops.config import dataset_flags, validation
from loops.config.config import Config, merge, select_flags
from loops.monitoring import console, progress_bar
from loops.runtime import environment, output_files
from loops.runtime.out_of_memory import convert_out_of_memory
from loops.tools.replay import loss_comparison
from loops.train_setup import TrainSetup
from nets import registry

_MAX_IMAGES_SHOWN = 3


def run(config: Config) -> dict:
    """Replays the run that `--ckpt` names, as many of its first steps as have a recorded loss.

    Args:
      config: config of the command line; `--steps` asks for fewer steps.

    Returns:
      dict as in the JSON file: `verdict` ("bitwise", "rounding" or "departs"), `steps` compared,
      `bitwise_steps`, `departs_at`, `largest_difference`, `differences`.

    Raises:
      UsageError: a run that cannot be replayed, or flags that conflict with it.
      DataError: the replay differs from the run.
    """
    ckpt = config.evaluation.ckpt
    if "," in ckpt:
        raise UsageError(f"--ckpt={ckpt}: name one run to replay")
    run_dir = run_folder.find_run_dir(ckpt)
    header, steps, ended_by = loss_trace.read(run_dir / loss_trace.FILE_NAME)
    num_workers = header.placement["workers"]
    if num_workers > 1:
        raise UsageError(
            f"--ckpt={run_dir}: trained by {num_workers} workers; a replay is one process and"
            " would sum gradients in another order"
        )
    if not steps:
        raise UsageError(f"--ckpt={run_dir}: the run has no steps to replay")
    if "steps" in config.typed:
        validation.check_ranges(config)
        steps = steps[: config.length.steps]
    replay = _Replay(_make_replay_config(header, config), header)
    results = {"run": str(run_dir), **replay.compare(steps), "trace_ended_by": ended_by}
    output_files.write_json_output(config.evaluation.json, results)
    verdict = loss_comparison.format_verdict(results)
    console.print_summary(f"{run_dir}: {verdict}", _make_rows(results))
    if results["verdict"] == "departs":
        raise DataError(f"--ckpt={run_dir}: {verdict}{replay.explain_departure(results)}")
    return results


def _make_replay_config(header: loss_trace.TraceHeader, config: Config) -> Config:
    """Returns the run's config at its first step, with the paths and devices of this command."""
    may_change = select_flags(on_replay=True)
    # `--steps` is how many to replay; the run keeps its length.
    config = dataclasses.replace(config, typed=config.typed - {"steps"})
    own = merge(header.record.config, config, may_change, "replay")
    dataset_flags.require_named_dataset(own)
    values = {"data_service": ""}  # whose batches equal those of the pipeline
    if own.distribution.strategy not in ("one", "mirrored"):
        values["strategy"] = "mirrored" if header.placement["replicas"] > 1 else "one"
    own = own.replace(**values)
    validation.check(own)
    validation.check_training_code(own)
    return own


class _Replay:
    """A training from scratch, without a run folder.

    Args:
      config: what to train.
      header: the run before its first step.
    """

    def __init__(self, config: Config, header: loss_trace.TraceHeader):
        class_names = header.record.class_names
        self._header = header
        self._config = config
        self._batch_size = config.data.batch_size
        self._setup = TrainSetup(config, class_names, with_val=False)
        self._setup.build()
        if config.fine_tuning.init_from:
            fine_tuning.load_weights(
                self._setup.state.model, config.fine_tuning.init_from, class_names
            )

    def compare(self, recorded: list[loss_trace.StepRecord]) -> dict:
        """Replays until the loss differs from the recorded steps; returns the results."""
        weights = loss_trace.hash_weights(self._setup.state.model)
        results = {
            "weights": "equal" if weights == self._header.weights else "differ",
            "differences": self._find_differences(),
        }
        bar = progress_bar.Progress("replay", len(recorded) * self._batch_size)
        steps = self._run_steps(bar)
        comparison = loss_comparison.compare(recorded, steps, self._header.placement["dtype"])
        bar.close()
        return {**comparison, **results}

    def explain_departure(self, results: dict) -> str:
        """Returns the likely cause of a difference, as the end of the error's line."""
        if results["differences"]:
            return "; differs: " + ", ".join(results["differences"])
        if results["weights"] == "differ":
            return "; the initial weights already differ"
        step = results["bitwise_steps"]
        samples = range(step * self._batch_size, (step + 1) * self._batch_size)
        describe = self._setup.train_input.describe_sample
        names = dict.fromkeys(describe(sample) for sample in samples)
        changed = [name for name in names if self._is_newer(name)]
        if not changed or len(changed) == len(names):  # all: the folder was copied
            return f"; nothing is known to differ, look at the images of step {step + 1}"
        shown = ", ".join(changed[:_MAX_IMAGES_SHOWN])
        images = pluralize(len(changed), "image")
        return f"; {images} of step {step + 1} written since: {shown}"

    def _run_steps(self, bar: progress_bar.Progress) -> Iterator[loss_trace.StepRecord]:
        """Yields the record of each training step, without end."""
        setup, iterator = self._setup, None
        out_of_memory = f"--mode=repro with {self._batch_size} images per step"
        while True:
            step = int(setup.state.step)
            if iterator is None or step in setup.train_input.get_size_change_steps():
                iterator = setup.train_input.make_iterator(step)
            try:
                with convert_out_of_memory(out_of_memory, self._advise_on_memory):
                    sums = setup.step(iterator, tf.constant(1, tf.int64))
                    record = loss_trace.to_step_record(sums)
            except tf.errors.OpError as error:
                raise setup.train_input.to_user_error(error, step) from error
            yield record
            bar.advance(self._batch_size)

    def _advise_on_memory(self) -> str:
        net = self._config.net
        may_recompute = registry.is_residual(net.model) and not net.recompute
        return f"give {'--recompute, or ' * may_recompute}as many devices as the run had"

    def _find_differences(self) -> list[str]:
        """Returns what is known to differ from the run, one line each."""
        header, setup = self._header, self._setup
        lines = environment.list_differences(header.environment, loss_trace.describe_environment())
        placement = {
            **header.placement,
            "replicas": setup.strategy.num_replicas_in_sync,
            "dtype": setup.state.compute_dtype,
        }
        lines += environment.list_differences(header.placement, placement)
        split = setup.train_split
        images = {"images": split.num_examples, "fingerprint": split.fingerprint}
        facts = header.record.dataset["train"]
        recorded = {"images": facts["images"], "fingerprint": facts["fingerprint"]}
        lines += [f"train {line}" for line in environment.list_differences(recorded, images)]
        for line in lines:
            logging.warning("differs from the run: %s", line)
        return lines

    def _is_newer(self, name: str) -> bool:
        """Returns whether an image file was written or moved since the run began."""
        try:
            status = os.stat(name)
        except OSError:
            return False
        return max(status.st_mtime, status.st_ctime) > self._header.time


def _make_rows(results: dict) -> list[tuple[str, str]]:
    difference = results["largest_difference"]
    if difference is None:
        difference = "a step was skipped, or images were replaced, on one side only"
    else:
        difference = f"{difference:.2g} of the loss"
    rows = [
        ("initial weights", results["weights"]),
        ("steps", f"{results['steps']}, {results['bitwise_steps']} of them bit-identical"),
        ("largest difference", difference),
    ]
    rows += [("differs", line) for line in results["differences"]]
    rows += [
        ("trace ends", f"the run was resumed with {line}") for line in results["trace_ended_by"]
    ]
    return rows
