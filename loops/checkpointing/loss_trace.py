"""The loss of each of a run's first steps, to the last bit: what a replay is compared with.

`loss_trace.jsonl` begins with a line about the run as it was at its first step, for config.json
tells of the last start only; then comes one line for each step.
"""

import dataclasses
import hashlib
import json
import pathlib
import time

import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.system import atomic_files
from loops.checkpointing import run_folder
from loops.config.config import leaves
from loops.runtime.environment import describe_machine, list_differences

FILE_NAME = "loss_trace.jsonl"
NUM_STEPS = 100
# Flags that change no figure of the training: what is written, when and where, and how images
# come into memory.
_FLAGS_WITHOUT_EFFECT = frozenset(
    ("mode", "checkpoint_dir", "run_name", "keep", "keep_every", "json", "log_norms", "profile")
    + ("save_every", "eval_every", "log_every", "crops", "top_k", "eval_batch_size")
    + ("data_dir", "train_list", "val_list", "test_list", "class_names", "reader_threads")
    + ("cache", "data_service", "recompute")
)


@dataclasses.dataclass(frozen=True)
class TraceHeader:
    """A run as it was before its first step.

    Attributes:
      record: Record of the run.
      environment: see `describe_environment`.
      placement: dict: `workers`, `replicas`, and the `dtype` that the net computes in.
      weights: hash of the initial weights, see `hash_weights`.
      time: of the start, in seconds since 1970.
    """

    record: run_folder.Record
    describe_environment: dict
    placement: dict
    weights: str
    time: float


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """What the trace keeps of a step.

    Attributes:
      loss_sum: loss summed over the images of the step, a float32 number.
      applied: whether the step changed the weights.
      replaced: images that stood in for unreadable ones.
    """

    loss_sum: float
    applied: bool
    replaced: int


def describe_environment():
    """Commit of the code, versions of the packages and facts of the machine: dict by name."""
    code = {"git_commit": run_folder.get_git_commit()}
    return code | run_folder.get_package_versions() | describe_machine()


def hash_weights(model):
    """sha256 over all variables of a net in their order."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


def to_step_record(sums):
    """The Step of what `train_step` returned for one step."""
    return StepRecord(
        loss_sum=float(sums["loss"]),
        applied=bool(sums["applied"]),
        replaced=int(sums["replaced"]),
    )


class TracedStep:
    """The training step, called for one step at a time while the trace lasts.

    Args:
      train_step: see `make_train_step`.
      state: TrainState, fresh or restored.
      run_dir: pathlib.Path of the run folder.
      record: Record of the run; None on a worker that is not the chief.
      workers: Workers; the chief writes.
    """

    def __init__(self, train_step, state, run_dir, record, workers):
        self._train_step = train_step
        self._state = state
        self._path = None
        if workers.is_chief and int(state.step) < NUM_STEPS:
            self._start_trace(run_dir / FILE_NAME, record, workers.num_workers)

    def __call__(self, iterator, num_steps):
        """As `train_step`; sums over all steps that were asked for."""
        left, totals = int(num_steps), {}
        while left:
            done = int(self._state.step)
            count = 1 if done < NUM_STEPS else left
            sums = self._train_step(iterator, tf.constant(count, tf.int64))
            if done < NUM_STEPS:
                self._write(done + 1, to_step_record(sums))
            last = {"gradient_norms": sums["gradient_norms"]} if "gradient_norms" in sums else {}
            totals = {k: v + totals[k] if totals else v for k, v in sums.items()} | last
            left -= count
            if left and self._state.loss_scale.should_stop():
                break
        return totals

    def _start_trace(self, path, record, workers):
        """Starts a trace, or goes on with that of a resumed run where nothing has changed."""
        start = TraceHeader(
            record=record,
            environment=describe_environment(),
            placement={
                "workers": workers,
                "replicas": self._state.strategy.num_replicas_in_sync,
                "dtype": self._state.compute_dtype,
            },
            weights="",
            time=time.time(),
        )
        done = int(self._state.step)
        try:
            if done:
                self._resume_trace(path, start, done)
            else:
                start = dataclasses.replace(start, weights=hash_weights(self._state.model))
                _write_lines(path, [_format_header(start)])
                self._path = path
        except OSError as error:
            self._stop_tracing(error)

    def _resume_trace(self, path, now, done):
        """Cuts a trace back to the step that the run is resumed at."""
        try:
            start, steps, ended = read(path)
        except UsageError as error:
            logging.warning("no trace of the first losses is kept: %s", error)
            return
        if ended or len(steps) < done:
            return
        lines = [
            _format_header(start),
            *(_format_step(n, s) for n, s in enumerate(steps[:done], 1)),
        ]
        if changes := _find_changes(start, now):
            lines.append(json.dumps({"ended": changes}))
        else:
            self._path = path
        _write_lines(path, lines)

    def _write(self, step, values):
        if self._path is None:
            return
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(_format_step(step, values) + "\n")
        except OSError as error:
            self._stop_tracing(error)

    def _stop_tracing(self, error):
        logging.error("the trace of the first losses ends here: %s", error)
        self._path = None


def read(path):
    """Reads a trace.

    Returns:
      (Start, list of Step from the first step on, list of str: what changed when the run was
      resumed, so that the trace ends there).

    Raises:
      UsageError: it is missing, or not a trace.
    """
    try:
        first, *others = [json.loads(line) for line in _read_complete_lines(path)]
        record = run_folder.from_json(first.pop("record"), path)
        ended = others.pop()["ended"] if others and "ended" in others[-1] else []
        steps = [
            StepRecord(float.fromhex(line["sum"]), bool(line["applied"]), int(line["replaced"]))
            for line in others
        ]
        if [line["step"] for line in others] != list(range(1, len(others) + 1)):
            raise ValueError("steps are missing")
        return TraceHeader(record=record, **first), steps, ended
    except OSError:
        raise UsageError(
            f"{path}: missing; only a run that was trained here, by a version that keeps its first"
            " losses, can be replayed"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not the trace of a run ({error!r})") from None


def _read_complete_lines(path):
    """Lines of the file without a last one that a killed process left half-written."""
    text = pathlib.Path(path).read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


def _format_header(start):
    values = {f.name: getattr(start, f.name) for f in dataclasses.fields(start)}
    return json.dumps({**values, "record": run_folder.to_json(start.record)})


def _format_step(step, values):
    return json.dumps(
        {
            "step": step,
            "sum": values.loss_sum.hex(),  # every bit, where decimals would be for people
            "applied": values.applied,
            "replaced": values.replaced,
        }
    )


def _find_changes(start, now):
    """What would make the next steps other ones than those of an uninterrupted run."""
    old, new = dict(leaves(start.record.config)), dict(leaves(now.record.config))
    names = sorted(name for name in new if name not in _FLAGS_WITHOUT_EFFECT)
    changes = [f"--{n}={new[n]}, was {old[n]}" for n in names if new[n] != old[n]]
    if start.record.dataset["train"] != now.record.dataset["train"]:
        changes.append("other training images")
    placed = list_differences(start.placement, now.placement)
    return changes + placed + list_differences(start.environment, now.environment)


def _write_lines(path, lines):
    """Writes the file, whole or not at all."""
    atomic_files.write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
