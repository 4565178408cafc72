"""Checks that the typed flags fit the mode, before TensorFlow is loaded."""

import glob
import os
import pathlib

from input_pipeline.config import DataConfig
from input_pipeline.errors import UsageError
from loops.config import hub_names, local_paths, run_paths
from loops.config.config import Config, all_flags

# Only these flags are typed to resume a run.
_TYPED_TO_RESUME = {"mode", "run_name", "checkpoint_dir"}
# Modes that read the images of a data set and of no run.
DATA_MODES = ("train", "prepare", "verify", "stats", "preview")


def check_flags(config: Config) -> None:
    """Raises UsageError for a typed flag that the mode does not use: it would have no effect.

    `benchmark` is exempt. It checks its flags itself, because they depend on what is measured.
    """
    if config.mode == "benchmark":
        return
    for name in sorted(config.typed):
        flag = all_flags()[name]
        if config.mode in flag.modes:
            continue
        users = ", ".join(flag.modes or ("benchmark",))
        hint = flag.hints.get(config.mode, "leave it out")
        raise UsageError(f"--{name}: --mode={config.mode} does not use it, only {users}; {hint}")


def check_inputs(config: Config) -> None:
    """Raises UsageError if a flag that the mode needs is missing, or its folder does not exist.

    The modes check more. These checks are here because TensorFlow takes seconds to load.
    """
    values = config.leaves()
    for name, flag in all_flags().items():
        is_needed = config.mode in flag.needed_by and not (name == "ckpt" and values["logits"])
        if is_needed and not values[name]:
            raise UsageError(f"--{name} is missing: {flag.needed_by[config.mode]}")
    record = pathlib.Path(config.run.checkpoint_dir, config.run.run_name, "config.json")
    is_resumed = config.mode == "train" and bool(config.run.run_name) and record.exists()
    # A misspelled name would start a new run on the built-in images.
    is_like_resumed = bool(config.run.run_name) and config.typed <= _TYPED_TO_RESUME
    if config.mode == "train" and is_like_resumed:
        run_paths.require_run(config.run.checkpoint_dir, config.run.run_name)
    # A watched run may not have started. A resumed one does not read its first weights again.
    if not config.evaluation.watch:
        _check_runs("ckpt", config.evaluation.ckpt)
    if not is_resumed:
        _check_runs("init_from", config.fine_tuning.init_from)
    makes_folder = config.data.dataset == "shapes" and "dataset" in config.typed
    if config.mode in DATA_MODES and not is_resumed and not makes_folder:
        require_data_dir(config.data)
    for path in local_paths.split(config.prediction.image):
        if path not in ("", "-") and not (os.path.lexists(path) or glob.has_magic(path)):
            raise UsageError(f"--image={path}: there is no such file or folder")


def _check_runs(name: str, paths: str) -> None:
    for path in local_paths.split(paths):
        if path and not hub_names.parse(name, path):
            run_paths.require_folder(path, f"--{name}")


def require_data_dir(data: DataConfig) -> None:
    """Raises UsageError if `--data_dir` is missing or does not exist. `lists` may have none."""
    if data.dataset == "lists":
        return
    if data.dataset != "shapes" and not data.data_dir:
        raise UsageError(f"--dataset={data.dataset} needs --data_dir, the folder of its images")
    if data.data_dir and not os.path.exists(data.data_dir):
        raise UsageError(f"--data_dir={data.data_dir}: there is no such folder")
