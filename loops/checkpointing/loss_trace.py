"""The exact loss of each of the first steps of a run: what a replay is compared with.

`loss_trace.jsonl` begins with one line about the run at its first step, because config.json only
describes the last start. Each further line is one step.
"""

import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypedDict

import keras
import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.system import atomic_files, regular_files, typed_json
from loops.checkpointing import run_folder
from loops.config.config import select_flags
from loops.distribution.workers import Workers
from loops.runtime.environment import describe_machine, list_differences

FILE_NAME = "loss_trace.jsonl"
NUM_STEPS = 100
_MAX_BYTES = 2**26  # of the file; a header has the class names


class _Placement(TypedDict):
    """Where a run trained, see `TraceHeader`."""

    workers: int
    replicas: int
    dtype: Literal["float32", "float16", "bfloat16"]


class _HeaderJson(TypedDict):
    """The first line, see `TraceHeader`. `run_folder.from_json` checks the record."""

    record: dict[str, Any]
    environment: dict[str, bool | int | float | str | None]
    placement: _Placement
    weights: str
    time: float


class _StepJson(TypedDict):
    """The line of a step, see `StepRecord`. `sum` is hexadecimal."""

    step: int
    sum: str
    applied: bool
    replaced: int


@dataclasses.dataclass(frozen=True)
class TraceHeader:
    """A run before its first step.

    Attributes:
      record: Record of the run.
      environment: see `describe_environment`.
      placement: `workers`, `replicas`, and the compute `dtype` of the model.
      weights: hash of the initial weights, see `hash_weights`.
      time: of the start, in seconds since 1970.
    """

    record: run_folder.Record
    environment: dict
    placement: dict
    weights: str
    time: float


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """What the trace keeps of a step.

    Attributes:
      loss_sum: loss summed over the images of the step, a float32 number.
      applied: whether the step changed the weights.
      replaced: number of unreadable images that were replaced.
    """

    loss_sum: float
    applied: bool
    replaced: int


def describe_environment() -> dict:
    """Returns the commit of the code, package versions, and facts about the machine, by name."""
    code = {"git_commit": run_folder.get_git_commit()}
    return code | run_folder.get_package_versions() | describe_machine()


def hash_weights(model: keras.Model) -> str:
    """Returns the sha256 over all variables of a model in their order."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


def to_step_record(sums: Mapping[str, Any]) -> StepRecord:
    """Converts what `TrainStep` returned for one step."""
    return StepRecord(
        loss_sum=float(sums["loss"]),
        applied=bool(sums["applied"]),
        replaced=int(sums["replaced"]),
    )


class _TracedState(Protocol):
    """What a trace reads of a TrainState, which this package cannot import."""

    strategy: tf.distribute.Strategy
    compute_dtype: str
    model: keras.Model
    step: tf.Variable


class LossTrace:
    """Writes the loss of each of the first steps of a run.

    A resumed run continues its trace, unless something changed that affects the losses.

    Args:
      state: TrainState, initialized or restored.
      run_dir: the run folder.
      record: Record of the run; None on a worker that is not the chief.
      workers: Workers; the chief writes.

    Attributes:
      num_steps: number of steps that must be run one at a time, on all workers.
    """

    num_steps = NUM_STEPS

    def __init__(
        self,
        state: _TracedState,
        run_dir: pathlib.Path,
        record: run_folder.Record | None,
        workers: Workers,
    ) -> None:
        self._state = state
        self._path: pathlib.Path | None = None
        if workers.is_chief and int(state.step) < self.num_steps:
            self._start(run_dir / FILE_NAME, record, workers.num_workers)

    def record(self, step: int, sums: Mapping[str, Any]) -> None:
        """Appends one step.

        Args:
          step: number of steps, this one included.
          sums: what `TrainStep` returned for it.
        """
        if self._path is None or step > self.num_steps:
            return
        try:
            with atomic_files.open_to_append(self._path) as file:
                file.write(f"{_format_step(step, to_step_record(sums))}\n".encode())
        except OSError as error:
            self._stop(error)

    def _start(self, path, record, num_workers):
        """Starts a trace, or continues that of a resumed run."""
        header = TraceHeader(
            record=record,
            environment=describe_environment(),
            placement={
                "workers": num_workers,
                "replicas": self._state.strategy.num_replicas_in_sync,
                "dtype": self._state.compute_dtype,
            },
            weights="",
            time=time.time(),
        )
        step = int(self._state.step)
        try:
            if step:
                self._resume(path, header, step)
            else:
                header = dataclasses.replace(header, weights=hash_weights(self._state.model))
                _write_lines(path, [_format_header(header)])
                self._path = path
        except OSError as error:
            self._stop(error)

    def _resume(self, path, now, step):
        """Cuts a trace back to the step that the run resumes from."""
        try:
            header, steps, ended_by = read(path)
        except UsageError as error:
            logging.warning("no trace of the first losses is kept: %s", error)
            return
        if ended_by or len(steps) < step:
            return
        lines = [_format_header(header)]
        lines += [_format_step(number, record) for number, record in enumerate(steps[:step], 1)]
        if changes := _find_changes(header, now):
            lines.append(json.dumps({"ended": changes}))
        else:
            self._path = path
        _write_lines(path, lines)

    def _stop(self, error):
        logging.error("cannot write the trace of the first losses: %s", error)
        self._path = None


class NullLossTrace:
    """Takes the place of a LossTrace where none is written, as in benchmarks."""

    num_steps = 0

    def record(self, step: int, sums: Mapping[str, Any]) -> None:
        """Does nothing."""


def read(path: pathlib.Path) -> tuple[TraceHeader, list[StepRecord], list[str]]:
    """Reads a trace.

    Returns:
      (header, one record per step from the first step, what changed when the run was resumed so
      that the trace ends there).

    Raises:
      UsageError: the file is missing, or is not a trace.
    """
    try:
        first, *others = map(regular_files.parse_json, _read_complete_lines(path))
        header = typed_json.convert(first, _HeaderJson, "the first line")
        record = run_folder.from_json(header["record"], path)
        ended_by = others.pop()["ended"] if others and "ended" in others[-1] else []
        ended_by = typed_json.convert(ended_by, list[str], "ended")
        lines = typed_json.convert(others, list[_StepJson], "the steps")
        if [line["step"] for line in lines] != list(range(1, len(lines) + 1)):
            raise ValueError("steps are missing")
        if "train" not in record.dataset:
            raise ValueError("the facts of the train split are missing")
        steps = [
            StepRecord(float.fromhex(line["sum"]), line["applied"], line["replaced"])
            for line in lines
        ]
        values = {name: header[name] for name in ("environment", "placement", "weights", "time")}
        return TraceHeader(record=record, **values), steps, ended_by
    except FileNotFoundError:
        raise UsageError(
            f"{path}: missing; only a run that was trained here, by a version that keeps its first"
            " losses, can be replayed"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UsageError(f"{path}: not the trace of a run ({error})") from None


def _read_complete_lines(path):
    """Returns the lines of a file. A killed process may leave a partial last line, which is cut."""
    text = regular_files.read_bytes(path, _MAX_BYTES).decode()
    return text[: text.rfind("\n") + 1].splitlines()


def _format_header(header):
    values = {f.name: getattr(header, f.name) for f in dataclasses.fields(header)}
    return json.dumps({**values, "record": run_folder.to_json(header.record)})


def _format_step(step, record):
    return json.dumps(
        {
            "step": step,
            "sum": record.loss_sum.hex(),  # hexadecimal keeps every bit
            "applied": record.applied,
            "replaced": record.replaced,
        }
    )


def _find_changes(header, now):
    """Lists what makes the next steps differ from those of an uninterrupted run."""
    old, new = header.record.config.leaves(), now.record.config.leaves()
    names = sorted(new.keys() - select_flags(affects_training=False))
    changes = [f"--{n}={new[n]}, was {old[n]}" for n in names if new[n] != old[n]]
    splits = [facts.record.dataset["train"]["fingerprint"] for facts in (header, now)]
    if splits[0] != splits[1]:
        changes.append("other training images")
    placement = list_differences(header.placement, now.placement)
    return changes + placement + list_differences(header.environment, now.environment)


def _write_lines(path, lines):
    """Writes a file atomically."""
    atomic_files.write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
