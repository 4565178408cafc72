"""A run's folder: its record, its lock, and what `--ckpt` may name in it."""

import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from importlib import metadata

import tensorflow as tf

from input_pipeline.errors import UsageError
from input_pipeline.system import atomic_files, folder_lock
from input_pipeline.text import escape_non_utf8, summarize_error
from loops.checkpointing import checkpoint
from loops.config import config_json
from loops.config.config import Config
from loops.runtime import environment

_MAX_NAME_BYTES = 200  # bytes; file systems take 255
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "opencv-python-headless")


@dataclasses.dataclass(frozen=True)
class Record:
    """What a run's config.json holds.

    Attributes:
      config: Config.
      class_names: name of each class, by label.
      dataset: name, images and fingerprint of each split when the run was last started.
      weights: file, sha256 and source of imported weights; empty for a run that was trained.
    """

    config: Config
    class_names: tuple
    dataset: dict
    weights: dict = dataclasses.field(default_factory=dict)


def resolve_run_dir(config):
    """The run folder of a training command."""
    name = config.run.run_name
    if not name:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        name = f"{config.net.model}-{config.data.dataset}-{stamp}"
    if name in (".", "..") or "/" in name:
        raise UsageError(f"--run_name={name}: must be the name of a folder, not a path")
    if len(os.fsencode(name)) > _MAX_NAME_BYTES:
        raise UsageError(f"--run_name={name[:20]}...: longer than {_MAX_NAME_BYTES} bytes")
    if checkpoint.parse_step(name) is not None or name == "best":
        raise UsageError(f"--run_name={name}: this is how --ckpt names a step; choose another")
    root = pathlib.Path(config.run.checkpoint_dir)
    if root.exists() and not root.is_dir():
        raise UsageError(f"--checkpoint_dir={root}: not a folder")
    for flag, value in (("run_name", name), ("checkpoint_dir", str(root))):
        if value != escape_non_utf8(value):
            raise UsageError(f"--{flag}={value}: not UTF-8, and so no path for TensorFlow's files")
    return root / name


def resolve_new_run_dir(config, of):
    """The run folder that `--run_name` names, for a mode that makes one at one go.

    Args:
      config: Config of the command line.
      of: what it is to hold, for the message.

    Raises:
      UsageError: no name, or something is there already.
    """
    if not config.run.run_name:
        raise UsageError(f"--run_name is missing: name the run folder of {of}")
    run_dir = resolve_run_dir(config)
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UsageError(
            f"--run_name={run_dir.name}: {run_dir} is there already; choose another name"
        )
    return run_dir


def is_foreign(run_dir):
    """Whether a folder holds something else than a run, or than the beginnings of one."""
    if not run_dir.exists() or (run_dir / "config.json").exists():
        return False
    own = (folder_lock.NAME, "log.txt", ".tmp-")
    return not run_dir.is_dir() or any(not p.name.startswith(own) for p in run_dir.iterdir())


def write_record(run_dir, record):
    """Writes config.json, whole or not at all."""
    text = json.dumps(
        {
            **to_json(record),
            "versions": get_package_versions(),
            "git_commit": get_git_commit(),
            "machine": environment.describe_machine(),
            "argv": sys.argv,
        },
        indent=1,
    )
    atomic_files.write_bytes(run_dir / "config.json", f"{text}\n".encode())


def to_json(record):
    """A Record as JSON can hold it; `from_json` is the way back."""
    return {
        "config": config_json.to_json(record.config),
        "class_names": record.class_names,
        "dataset": record.dataset,
        "weights": record.weights,
    }


def from_json(data, where):
    """Rebuilds a Record.

    Args:
      data: what `to_json` returned.
      where: file that it comes from, for the log.
    """
    return Record(
        config=config_json.from_json(Config, data["config"], where),
        class_names=tuple(data["class_names"]),
        dataset=data["dataset"],
        weights=data.get("weights", {}),
    )


def get_package_versions():
    """Versions of Python and of the packages that results depend on, by name."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def read_record(run_dir):
    """Reads config.json.

    Raises:
      UsageError: it is missing or not a record of a run.
    """
    path = pathlib.Path(run_dir, "config.json")
    try:
        return from_json(json.loads(path.read_text()), path)
    except OSError:
        raise UsageError(f"{run_dir}: not a run folder, it has no config.json") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not the record of a run ({error!r})") from None


def lock(run_dir):
    """Holds the run folder, as `folder_lock.acquire`, against a second trainer."""
    return folder_lock.acquire(
        run_dir,
        f"--checkpoint_dir={run_dir.parent}",
        f"--run_name={run_dir.name}: another process trains in {run_dir};"
        " wait for it, or name another run",
    )


@contextlib.contextmanager
def create_or_roll_back(run_dir):
    """Locks a run folder while a mode fills it at one go; a failure leaves nothing behind.

    Raises:
      UsageError: the disk is full or takes no files.
    """
    with lock(run_dir):  # outside: a folder that somebody else fills is not ours to remove
        if (run_dir / "config.json").exists():
            raise UsageError(f"--run_name={run_dir.name}: {run_dir} has just been made by another")
        try:
            yield
        except BaseException as error:
            shutil.rmtree(run_dir, ignore_errors=True)
            if not isinstance(error, (OSError, tf.errors.OpError)):
                raise
            reason = summarize_error(error)
            raise UsageError(
                f"--run_name={run_dir.name}: {run_dir} cannot be written ({reason})"
            ) from error


def find_checkpoint(ckpt, flag="--ckpt"):
    """Resolves `--ckpt`.

    Args:
      ckpt: a run folder, RUN/best, or a step folder.
      flag: that named it, for the messages.

    Returns:
      (run folder, step folder), both pathlib.Path.

    Raises:
      UsageError: nothing there that could be evaluated.
    """
    if not ckpt:
        raise UsageError(f"{flag} is missing: name a run folder, as in {flag}=checkpoints/RUN")
    path, where = pathlib.Path(ckpt), f"{flag}={ckpt}"
    if path.name == "best" and not path.exists() and path.parent.is_dir():
        return path.parent, _require_found(
            checkpoint.find_best_intact(path.parent), where, "evaluated and saved"
        )
    if not path.is_dir():
        raise UsageError(f"{where}: there is no such folder")
    if checkpoint.parse_step(path) is None:
        return path, _require_found(checkpoint.find_newest_intact(path), where, "saved")
    try:
        checkpoint.verify(path)
    except checkpoint.CorruptCheckpointError as error:
        raise UsageError(f"{where}: not intact: {error}") from None
    return path.absolute().parent, path


def _require_found(step_dir, where, what):
    if step_dir is None:
        raise UsageError(f"{where}: nothing in it is intact and was {what}; train it first")
    return step_dir


def get_git_commit():
    """The commit of this code, with `+` where files differ from it; empty outside git."""
    here = pathlib.Path(__file__).parent

    def git(*words):
        return subprocess.run(
            ["git", "-C", here, *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        dirty = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + dirty
    except (OSError, subprocess.SubprocessError):
        return ""
