"""The run folder: its name, its record `config.json`, its lock, and the checkpoints in it."""

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
from collections.abc import Iterator
from importlib import metadata
from typing import Annotated, Any, NotRequired, TypedDict

import tensorflow as tf

from input_pipeline import user_code
from input_pipeline.errors import UsageError
from input_pipeline.sources import shapes
from input_pipeline.system import atomic_files, folder_lock, regular_files, typed_json
from input_pipeline.text import escape_non_utf8, summarize_error
from loops.checkpointing import checkpoint
from loops.checkpointing.split_facts import SplitFacts
from loops.config import config_json, run_paths, validation
from loops.config.config import Config
from loops.runtime import environment

_MAX_NAME_BYTES = 200  # file systems allow 255
# As many as an image list may have. The head alone would fill the memory of most machines.
_MAX_CLASSES = 1_000_001
_MAX_CLASS_NAME_LENGTH = 1000
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "opencv-python-headless")


def _check_class_names(names: tuple[str, ...]) -> str:
    """Returns what is wrong with the class names of a run, or ""."""
    if not 1 <= len(names) <= _MAX_CLASSES:
        return f"has {len(names)} names, and must have 1 to {_MAX_CLASSES}"
    longest = max(map(len, names))
    return f"has a name of {longest} characters" if longest > _MAX_CLASS_NAME_LENGTH else ""


class _RecordJson(TypedDict):
    """The parts of config.json that are read."""

    config: dict[str, Any]
    class_names: Annotated[tuple[str, ...], _check_class_names]
    dataset: dict[str, SplitFacts]
    weights: NotRequired[dict[str, int | float | str]]
    code: NotRequired[dict[str, user_code.FileFacts]]


@dataclasses.dataclass(frozen=True)
class Record:
    """The contents of a run's config.json.

    Attributes:
      config: the resolved configuration.
      class_names: name of each class, by label.
      dataset: facts about each split at the last start of the run.
      weights: file, sha256, source and more of imported weights; empty for a trained run.
    """

    config: Config
    class_names: tuple[str, ...]
    dataset: dict[str, SplitFacts]
    weights: dict[str, int | float | str] = dataclasses.field(default_factory=dict)


def resolve_run_dir(config: Config) -> pathlib.Path:
    """Returns the run folder of a training command.

    Raises:
      UsageError: `--run_name` or `--checkpoint_dir` cannot be used.
    """
    name = config.run.run_name
    if not name:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        model = user_code.function_names(config.net.model)
        name = f"{model}-{config.data.dataset}-{stamp}"
    if name in (".", "..") or "/" in name or name.startswith("~"):
        raise UsageError(f"--run_name={name}: must be the name of a folder, not a path")
    if len(os.fsencode(name)) > _MAX_NAME_BYTES:
        raise UsageError(f"--run_name={name[:20]}...: longer than {_MAX_NAME_BYTES} bytes")
    if checkpoint.parse_step(name) is not None or name == "best":
        raise UsageError(f"--run_name={name}: --ckpt reads this name as a step; choose another")
    root = pathlib.Path(config.run.checkpoint_dir)
    if root.exists() and not root.is_dir():
        raise UsageError(f"--checkpoint_dir={root}: is not a folder")
    for flag, value in (("run_name", name), ("checkpoint_dir", str(root))):
        if value != escape_non_utf8(value):
            raise UsageError(
                f"--{flag}={value}: is not UTF-8, but TensorFlow requires it of paths; rename it"
            )
    return root / name


def resolve_new_run_dir(config: Config, contents: str) -> pathlib.Path:
    """Returns the run folder that `--run_name` names, for a mode that creates it in one step.

    Args:
      config: configuration of the command line.
      contents: what the folder will contain, for the error message.

    Raises:
      UsageError: `--run_name` is missing or the folder already exists and is not empty.
    """
    if not config.run.run_name:
        raise UsageError(f"--run_name is missing: name the run folder for {contents}")
    run_dir = resolve_run_dir(config)
    if (run_dir / "config.json").exists() or contains_other_files(run_dir):
        raise UsageError(
            f"--run_name={run_dir.name}: {run_dir} already exists; choose another name"
        )
    return run_dir


def contains_other_files(run_dir: pathlib.Path) -> bool:
    """Returns whether a path exists and is neither a run folder nor the beginning of one."""
    if not run_dir.exists() or (run_dir / "config.json").exists():
        return False
    own = (folder_lock.NAME, "log.txt", user_code.FOLDER, ".tmp-")
    return not run_dir.is_dir() or any(not p.name.startswith(own) for p in run_dir.iterdir())


def write_record(run_dir: pathlib.Path, record: Record) -> None:
    """Writes config.json atomically, after the copies of the user's code."""
    user_code.save_copies(run_dir, record.config.leaves().values())
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


def to_json(record: Record) -> dict:
    """Converts a Record to JSON types; `from_json` is the inverse."""
    return {
        "config": config_json.to_json(record.config),
        "class_names": record.class_names,
        "dataset": record.dataset,
        "weights": record.weights,
        "code": user_code.list_files(record.config.leaves().values()),
    }


def from_json(data: Any, where: pathlib.Path | str) -> Record:
    """Rebuilds a Record.

    Args:
      data: a result of `to_json`, not checked yet.
      where: the file that contains it, for the log and for error messages.

    Raises:
      ValueError: a value has the wrong type.
      UsageError: a value of the config is out of range, or the copy of the user's code is not the
        one that the run had.
    """
    record = typed_json.convert(data, _RecordJson, "the record")
    config = config_json.from_json(Config, record["config"], where)
    user_code.read_copies(
        pathlib.Path(where).parent, config.leaves().values(), record.get("code", {})
    )
    try:
        validation.check_values(config)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return Record(config, record["class_names"], record["dataset"], record.get("weights", {}))


def get_package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that affect results, by name."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def read_record(run_dir: pathlib.Path | str) -> Record:
    """Reads config.json.

    The built-in images are the same everywhere. A folder that the run names and that does not have
    them is left out of its config: a run from elsewhere must not draw images there.

    Raises:
      UsageError: the file is missing or invalid.
    """
    path = pathlib.Path(run_dir, "config.json")
    try:
        record = from_json(regular_files.read_json(path), path)
    except FileNotFoundError:
        raise UsageError(f"{run_dir}: is not a run folder, it has no config.json") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: is not the record of a run ({error})") from None
    data = record.config.data
    if data.dataset == "shapes" and data.data_dir and not shapes.is_complete(data.data_dir):
        record = dataclasses.replace(record, config=record.config.replace(data_dir=""))
    return record


def lock(
    run_dir: pathlib.Path, must_be_new: bool = False
) -> contextlib.AbstractContextManager[None]:
    """Locks a run folder against other training processes; see `folder_lock.acquire`."""
    return folder_lock.acquire(
        run_dir,
        f"--checkpoint_dir={run_dir.parent}",
        f"--run_name={run_dir.name}: another process trains in {run_dir};"
        " wait for it, or name another run",
        must_be_new,
    )


def lock_unnamed(run_dir: pathlib.Path, stack: contextlib.ExitStack) -> pathlib.Path:
    """Creates and locks the folder of a run without a name, until the stack is closed.

    Returns:
      the folder; a number is added to its name if another run began in the same second.
    """
    new_dir, number = run_dir, 1
    while True:
        try:
            stack.enter_context(lock(new_dir, must_be_new=True))
            return new_dir
        except FileExistsError:
            number += 1
            new_dir = run_dir.with_name(f"{run_dir.name}-{number}")


@contextlib.contextmanager
def create_or_roll_back(run_dir: pathlib.Path) -> Iterator[None]:
    """Locks a new run folder while a mode fills it, and removes the folder if the mode fails.

    Raises:
      UsageError: the folder cannot be written, or another process has created the run.
    """
    # Lock first, because the folder of another process must not be removed.
    with lock(run_dir):
        if (run_dir / "config.json").exists():
            raise UsageError(
                f"--run_name={run_dir.name}: another process has just created {run_dir}; choose"
                " another name"
            )
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


def find_run_dir(ckpt: str) -> pathlib.Path:
    """Returns the run folder of any form of `--ckpt`. It needs no checkpoint.

    Raises:
      UsageError: there is no such folder.
    """
    path = pathlib.Path(ckpt)
    if path.name == "best" or checkpoint.parse_step(path) is not None:
        path = path.absolute().parent
    if not path.is_dir():
        raise UsageError(f"--ckpt={ckpt}: there is no such folder")
    return path


def find_checkpoint(ckpt: str, flag: str = "--ckpt") -> tuple[pathlib.Path, pathlib.Path]:
    """Finds the checkpoint that `--ckpt` names.

    Args:
      ckpt: RUN (its newest checkpoint), RUN/best, or a step folder.
      flag: the flag that has this value, for error messages.

    Returns:
      (run folder, step folder).

    Raises:
      UsageError: the path contains no intact checkpoint.
    """
    if not ckpt:
        raise UsageError(f"{flag} is missing: name a run folder, as in {flag}=checkpoints/RUN")
    path, where = pathlib.Path(ckpt), f"{flag}={ckpt}"
    is_run = (path.parent / "config.json").exists()
    # In a run folder, an existing `best` is not followed: it may lead to another run.
    if path.name == "best" and (is_run or not path.exists()) and path.parent.is_dir():
        step_dir = checkpoint.find_best_intact(path.parent)
        if step_dir is None:
            raise UsageError(
                f"{where}: contains no intact checkpoint that was evaluated; train the run first"
            )
        return path.parent, step_dir
    run_paths.require_folder(ckpt, flag)
    if checkpoint.parse_step(path) is None:
        step_dir = checkpoint.find_newest_intact(path)
        if step_dir is None:
            raise UsageError(f"{where}: contains no intact checkpoint; train the run first")
        return path, step_dir
    try:
        checkpoint.verify(path)
    except checkpoint.CorruptCheckpointError as error:
        raise UsageError(f"{where}: is not intact: {error}") from None
    return path.absolute().parent, path


def get_git_commit() -> str:
    """Returns the commit of this code, with `+` if files are modified; empty outside git."""
    folder = pathlib.Path(__file__).parent

    # Git sets variables such as GIT_DIR for its hooks. They would name another repository.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", folder, *arguments],
            env=environ,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()

    try:
        dirty = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + dirty
    except (OSError, subprocess.SubprocessError):
        return ""
