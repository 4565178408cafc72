"""Atomic checkpoints in step folders, verified by size and sha256 before they are restored.

A checkpoint is written into `.tmp-*`, read back, synced to disk and only then renamed to
`step-<n>/`. The newest step folder that passes verification is the state of the run. No pointer
file exists that could name the wrong folder.
"""

import json
import math
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypedDict

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf import message

from input_pipeline.system import atomic_files, regular_files, typed_json
from loops.runtime.plain_folder import plain_folder

# Nested dicts of variables; the keys name the variables in the file.
VariableTree = dict[str, "tf.Variable | VariableTree"]

_STEP_FOLDER = re.compile(r"step-([0-9]{8,18})")
_PREFIX = "ckpt"
_MANIFEST = "manifest.json"
_MAX_FILE_BYTES = 2**36  # hashing a larger file would take minutes; such files are sparse


# What TensorFlow raises for a checkpoint of other variables, or for one whose files are consistent
# with their manifest and yet no checkpoint.
MISMATCH_ERRORS = (
    *(AssertionError, ValueError, IndexError, KeyError, TypeError, message.DecodeError),
    tf.errors.OpError,
)


class _FileFacts(TypedDict):
    """What a manifest contains about a file."""

    bytes: Annotated[int, typed_json.at_least(0), typed_json.at_most(_MAX_FILE_BYTES)]
    sha256: str


class _Manifest(TypedDict):
    """What must be in a manifest."""

    step: int
    files: dict[Annotated[str, typed_json.is_file_name], _FileFacts]


class NonFiniteError(Exception):
    """A variable to be saved contains a NaN or an infinity."""


class CorruptCheckpointError(Exception):
    """A step folder fails verification."""


def save(
    run_dir: pathlib.Path | str,
    step: int,
    variables: VariableTree,
    metrics: Mapping[str, float] | None = None,
) -> pathlib.Path:
    """Writes the checkpoint of a step.

    Args:
      run_dir: the run folder.
      step: number of completed steps.
      variables: the variables to save.
      metrics: metrics of this step's evaluation, stored in the manifest.

    Returns:
      the step folder.

    Raises:
      NonFiniteError: names the variable; nothing is written.
      OSError, tf.errors.OpError, IndexError: writing failed, IndexError because a file is short
        when it is read back; no files are left behind.
    """
    run_dir = pathlib.Path(run_dir)
    require_finite(variables)
    final = step_folder(run_dir, step)
    temporary = atomic_files.temporary_path(run_dir)
    try:
        temporary.mkdir()
        with plain_folder(temporary) as folder:
            tf.train.Checkpoint(**variables).write(f"{folder}/{_PREFIX}")
            for _ in read_tensors(folder):  # a damaged one raises an error
                pass
        files = sorted(p for p in temporary.iterdir() if p.is_file())
        manifest = {
            "step": int(step),
            "files": {
                p.name: {"bytes": p.stat().st_size, "sha256": atomic_files.sha256(p)} for p in files
            },
            "metrics": metrics or {},
        }
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        for path in [*files, temporary / _MANIFEST, temporary]:
            atomic_files.sync(path)
        if os.path.lexists(final):
            # The folder was corrupt, so the step was trained again.
            if final.is_dir() and not final.is_symlink():
                shutil.copymode(final, temporary)  # a private folder stays private
            remove(final)
        os.rename(temporary, final)
        atomic_files.sync(run_dir)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def restore(step_dir: pathlib.Path | str, variables: VariableTree) -> None:
    """Restores variables from a step folder; file and variables must match one to one.

    Raises:
      CorruptCheckpointError: raised before any variable changes.
      AssertionError, ValueError: the folder and the variables do not match.
    """
    verify(step_dir)
    checkpoint = tf.train.Checkpoint(**variables)
    with plain_folder(step_dir) as folder:
        checkpoint.read(f"{folder}/{_PREFIX}").assert_consumed()


def restore_partial(step_dir: pathlib.Path | str, variables: VariableTree) -> None:
    """Restores some variables of a verified step folder; all given ones must be in the file.

    Raises:
      AssertionError, ValueError: a variable is missing or has another shape.
    """
    checkpoint = tf.train.Checkpoint(**variables)
    with plain_folder(step_dir) as folder:
        status = checkpoint.read(f"{folder}/{_PREFIX}")
        status.assert_existing_objects_matched().expect_partial()


def verify(step_dir: pathlib.Path | str) -> dict:
    """Checks sizes and hashes of a step folder against its manifest; returns the manifest.

    Raises:
      CorruptCheckpointError: with the reason.
    """
    step_dir = pathlib.Path(step_dir)
    try:
        manifest = regular_files.read_json(step_dir / _MANIFEST)
        files = typed_json.convert(manifest, _Manifest, _MANIFEST)["files"]
        for name, metadata in files.items():
            path, size = step_dir / name, metadata["bytes"]
            if path.stat().st_size != size or atomic_files.sha256(path) != metadata["sha256"]:
                raise CorruptCheckpointError(f"{path} differs from its manifest")
        # TensorFlow would open other shards too, even if they are pipes.
        shards = [path.name for path in step_dir.iterdir() if path.name.startswith(_PREFIX)]
        if unknown := sorted(set(shards) - set(files)):
            raise CorruptCheckpointError(f"{step_dir / unknown[0]} is not in the manifest")
    except (OSError, ValueError) as error:
        raise CorruptCheckpointError(f"{step_dir}: {error}") from error
    if f"{_PREFIX}.index" not in files or manifest.get("step") != parse_step(step_dir):
        raise CorruptCheckpointError(f"{step_dir / _MANIFEST} does not describe this folder")
    return manifest


def parse_step(step_dir: pathlib.Path | str) -> int | None:
    """Returns the step in a folder's name, or None if the name is not a step folder's."""
    match = _STEP_FOLDER.fullmatch(pathlib.Path(step_dir).name)
    return int(match[1]) if match else None


def step_folder(run_dir: pathlib.Path, step: int) -> pathlib.Path:
    """Returns the folder of a step, whether it exists or not."""
    return run_dir / f"step-{step:08d}"


def list_step_folders(run_dir: pathlib.Path | str) -> list[pathlib.Path]:
    """Lists all step folders of a run, intact or not, newest first; empty without a run folder."""
    entries = pathlib.Path(run_dir).iterdir() if os.path.isdir(run_dir) else ()
    folders = (p for p in entries if p.is_dir() and parse_step(p) is not None)
    return sorted(folders, key=parse_step, reverse=True)


def find_newest_intact(run_dir: pathlib.Path | str) -> pathlib.Path | None:
    """Returns the newest intact step folder, or None; logs each corrupt one."""
    return next((f for f in list_step_folders(run_dir) if is_intact(f)), None)


def find_best_intact(run_dir: pathlib.Path | str) -> pathlib.Path | None:
    """Returns the intact step folder with the highest recorded score, or None."""
    best_first = sorted(_list_scored(run_dir), key=lambda pair: pair[0], reverse=True)
    return next((f for _, f in best_first if is_intact(f)), None)


def read_best_score(run_dir: pathlib.Path | str) -> float:
    """Returns the highest recorded score of a run's step folders; -inf if none has one."""
    return max((score for score, _ in _list_scored(run_dir)), default=-math.inf)


def _list_scored(run_dir: pathlib.Path | str) -> list[tuple[float, pathlib.Path]]:
    """Lists (score, step folder), newest first, without folders that record no score."""
    return [(m, f) for f in list_step_folders(run_dir) if (m := read_score(f)) is not None]


def remove_unfinished(run_dir: pathlib.Path | str) -> None:
    """Removes temporary files of killed processes; the caller must hold the run's lock."""
    for path in pathlib.Path(run_dir).iterdir():
        # Earlier versions wrote evaluation results through `.eval-*`.
        if not path.name.startswith((".tmp-", ".del-", ".eval-")):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_intact(folder: pathlib.Path) -> bool:
    """Returns whether a step folder passes verification; logs the reason if it does not."""
    try:
        verify(folder)
    except CorruptCheckpointError as error:
        logging.warning("skipping corrupt checkpoint %s: %s", folder.name, error)
        return False
    return True


def get_score(metrics: Mapping[str, float]) -> float:
    """Returns by what the best step is chosen: the metric of `--best`, by default top-1.

    It is negative if a lower value of the metric is better, and -inf without metrics.
    """
    return metrics.get("score", metrics.get("top1", -math.inf))


def read_score(folder: pathlib.Path) -> float | None:
    """Returns the score recorded in a step folder, see `get_score`, or None."""
    try:
        metrics = regular_files.read_json(folder / _MANIFEST)["metrics"]
        typed_json.convert(metrics["top1"], Annotated[float, typed_json.at_least(0)], "top1")
        return typed_json.convert(get_score(metrics), float, "score")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def add_metrics(folder: pathlib.Path, metrics: Mapping[str, float]) -> None:
    """Stores the metrics of a later evaluation in a step folder's manifest.

    Raises:
      OSError: the disk is full or fails, or the folder is a link; the manifest is unchanged.
    """
    atomic_files.make_folder(folder)  # it exists, and must not be a link
    path = folder / _MANIFEST
    atomic_files.write_json(path, {**regular_files.read_json(path), "metrics": metrics})


def remove(folder: pathlib.Path) -> None:
    """Renames a step folder, then removes it, so that a partly removed one never looks intact."""
    doomed = folder.with_name(f".del-{secrets.token_hex(8)}")
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def copy_to_host(variables: VariableTree, path: str = "") -> VariableTree:
    """Copies variables to host memory, so that training can continue during a save.

    Args:
      variables: the variables to copy.
      path: prefix of the variables' names in error messages.

    Returns:
      the same nested dicts with independent copies of the variables.

    Raises:
      NonFiniteError: names the variable.
    """
    copies = {}
    for name, value in variables.items():
        if isinstance(value, dict):
            copies[name] = copy_to_host(value, f"{path}{name}/")
            continue
        array = np.array(value.numpy())
        if value.dtype.is_floating and not np.isfinite(array).all():
            raise NonFiniteError(f"{path}{name}")
        with tf.device("CPU:0"):
            copies[name] = tf.Variable(array, trainable=False, dtype=value.dtype)
    return copies


def require_finite(variables: VariableTree, path: str = "") -> None:
    """Raises NonFiniteError with a variable's name if it contains a NaN or an infinity."""
    for name, value in variables.items():
        if isinstance(value, dict):
            require_finite(value, f"{path}{name}/")
        elif value.dtype.is_floating and not np.isfinite(value.numpy()).all():
            raise NonFiniteError(f"{path}{name}")


def read_tensors(folder: str | os.PathLike[str]) -> Iterator[tuple[str, Any]]:
    """Yields the name and the value of every tensor of a step folder, one at a time.

    TensorFlow verifies the checksum of a tensor when it is read.
    """
    reader = tf.train.load_checkpoint(f"{os.fspath(folder)}/{_PREFIX}")
    for name in sorted(reader.get_variable_to_shape_map()):
        yield name, reader.get_tensor(name)
