"""Step folders: written whole or not at all, verified before they are trusted.

A checkpoint is written into `.tmp-*`, read back, synced to disk and only then renamed to
`step-<n>/`; the newest step folder that passes its checks is the state of the run. There is no
pointer file that could name the wrong one.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline.system.atomic_files import write_bytes

_STEP_FOLDER = re.compile(r"step-(\d{8,})")
_PREFIX = "ckpt"
_MANIFEST = "manifest.json"


class NonFiniteError(Exception):
    """A variable that should be saved holds a NaN or an infinity."""


class CorruptCheckpointError(Exception):
    """A step folder that does not pass its checks."""


def save(run_dir, step, variables, metrics=None):
    """Writes the checkpoint of a step.

    Args:
      run_dir: the run folder.
      step: number of steps done.
      variables: nested dicts of tf.Variable; the keys name them in the file.
      metrics: figures of this step's evaluation, kept in the manifest.

    Returns:
      pathlib.Path of the step folder.

    Raises:
      NonFiniteError: names the variable; nothing is written.
      OSError, tf.errors.OpError, IndexError (a file reads back short): nothing is left behind.
    """
    run_dir = pathlib.Path(run_dir)
    require_finite(variables)
    final = run_dir / f"step-{step:08d}"
    temporary = run_dir / f".tmp-{step:08d}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        tf.train.Checkpoint(**variables).write(str(temporary / _PREFIX))
        _read_back(temporary)
        files = sorted(p for p in temporary.iterdir() if p.is_file())
        manifest = {
            "step": int(step),
            "files": {p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in files},
            "metrics": metrics or {},
        }
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        for path in [*files, temporary / _MANIFEST, temporary]:
            _fsync(path)
        if final.exists():
            # A step that was found corrupt and has been trained again.
            remove(final)
        os.rename(temporary, final)
        _fsync(run_dir)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def restore(step_dir, variables):
    """Reads a step folder into variables; every one of both sides must be matched.

    Raises:
      CorruptCheckpointError: before any variable has been touched.
    """
    verify(step_dir)
    checkpoint = tf.train.Checkpoint(**variables)
    checkpoint.read(str(pathlib.Path(step_dir) / _PREFIX)).assert_consumed()


def restore_partial(step_dir, variables):
    """Reads some variables of a verified step folder; all that are asked for must be there.

    Raises:
      AssertionError, ValueError: a variable is missing or has another shape.
    """
    checkpoint = tf.train.Checkpoint(**variables)
    status = checkpoint.read(str(pathlib.Path(step_dir) / _PREFIX))
    status.assert_existing_objects_matched().expect_partial()


def verify(step_dir):
    """Checks sizes and hashes of a step folder against its manifest; returns the manifest.

    Raises:
      CorruptCheckpointError: with the reason.
    """
    step_dir = pathlib.Path(step_dir)
    try:
        manifest = json.loads((step_dir / _MANIFEST).read_text())
        files = manifest["files"]
        for name, facts in files.items():
            path = step_dir / name
            if path.stat().st_size != facts["bytes"] or _sha256(path) != facts["sha256"]:
                raise CorruptCheckpointError(f"{path} differs from its manifest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptCheckpointError(f"{step_dir}: {error!r}") from error
    if f"{_PREFIX}.index" not in files or manifest.get("step") != parse_step(step_dir):
        raise CorruptCheckpointError(f"{step_dir / _MANIFEST} does not describe this folder")
    return manifest


def parse_step(step_dir):
    """The step that a folder's name tells, or None where it is not a step folder."""
    match = _STEP_FOLDER.fullmatch(pathlib.Path(step_dir).name)
    return int(match[1]) if match else None


def step_folder(run_dir: pathlib.Path, step: int) -> pathlib.Path:
    """Returns the folder of a step, whether it exists or not."""
    return run_dir / f"step-{step:08d}"


def list_step_folders(run_dir):
    """All step folders of a run, newest first, intact or not; none where there is no folder."""
    entries = pathlib.Path(run_dir).iterdir() if os.path.isdir(run_dir) else ()
    return sorted((p for p in entries if p.is_dir() and parse_step(p) is not None), key=parse_step)[
        ::-1
    ]


def find_newest_intact(run_dir):
    """The newest step folder that passes its checks, or None; names each that does not."""
    return next((f for f in list_step_folders(run_dir) if is_intact(f)), None)


def find_best_intact(run_dir):
    """The intact step folder with the highest top-1 at its save, or None."""
    scored = [(m, f) for f in list_step_folders(run_dir) if (m := read_top1(f)) is not None]
    best_first = sorted(scored, key=lambda pair: pair[0], reverse=True)
    return next((f for _, f in best_first if is_intact(f)), None)


def remove_unfinished(run_dir):
    """Removes what a killed process left half-written. Only for the holder of the run's lock."""
    for path in pathlib.Path(run_dir).iterdir():
        if not path.name.startswith((".tmp-", ".del-", ".eval-")):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_intact(folder):
    """Whether a step folder passes its checks; the log says why not."""
    try:
        verify(folder)
    except CorruptCheckpointError as error:
        logging.warning("%s is not intact and passed over: %s", folder.name, error)
        return False
    return True


def read_top1(folder):
    """Top-1 of the evaluation at a step folder's save, or None."""
    try:
        return json.loads((folder / _MANIFEST).read_text())["metrics"].get("top1")
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def add_metrics(folder, metrics):
    """Adds an evaluation that was made after the save to the manifest of a step folder.

    Raises:
      OSError: the disk is full or fails; the manifest is as before.
    """
    path = folder / _MANIFEST
    facts = json.loads(path.read_text())
    write_bytes(path, (json.dumps({**facts, "metrics": metrics}, indent=1) + "\n").encode())


def remove(folder):
    """Renames before removing, so that a half-removed folder never looks like a step."""
    doomed = folder.with_name(f".del-{folder.name}-{os.getpid()}")
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def copy_to_host(variables, path=""):
    """Copies variables into the memory of the host, for a save while training goes on.

    Args:
      variables: nested dicts of tf.Variable.
      path: of the dict, for the message.

    Returns:
      the same dicts of tf.Variable with values of their own, which nobody changes.

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


def require_finite(variables, path=""):
    """Raises NonFiniteError, which names the variable, if a variable holds a NaN or an infinity."""
    for name, value in variables.items():
        if isinstance(value, dict):
            require_finite(value, f"{path}{name}/")
        elif value.dtype.is_floating and not np.isfinite(value.numpy()).all():
            raise NonFiniteError(f"{path}{name}")


def _read_back(folder):
    """Reads every tensor, whose checksums TensorFlow compares."""
    reader = tf.train.load_checkpoint(str(folder / _PREFIX))
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
