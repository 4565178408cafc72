"""Lets `--ckpt` and `--init_from` name published weights: the first use imports them."""

import dataclasses
import pathlib
import time

from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.system import folder_lock
from loops.checkpointing import checkpoint, run_folder
from loops.config import hub_names, local_paths
from loops.config.config import Config
from loops.distribution import strategies
from loops.tools.weights import import_weights, located_weights

_POLL_SECONDS, _LOG_SECONDS = 0.1, 10.0


def replace_names(config: Config) -> Config:
    """Replaces names of published weights by run folders in `--checkpoint_dir`.

    Args:
      config: config of the command line.

    Raises:
      UsageError: the weights cannot be imported, or their run folder has other contents.
    """
    paths = [
        _find_or_import("ckpt", name, config) for name in local_paths.split(config.evaluation.ckpt)
    ]
    init_from = _find_or_import("init_from", config.fine_tuning.init_from, config)
    return config.replace(ckpt=",".join(paths), init_from=init_from)


def _find_or_import(flag: str, text: str, config: Config) -> str:
    """Returns the run folder of published weights, or the value itself if it is a path."""
    name = hub_names.parse(flag, text)
    if name is None:
        return text
    run_dir = pathlib.Path(config.run.checkpoint_dir, name.run_name)
    if not _is_imported(run_dir, f"--{flag}={text}", name):
        try:
            _import(run_dir, flag, text, name, config)
        except UsageError:  # another process may have been faster
            if not _is_imported(run_dir, f"--{flag}={text}", name):
                raise
    return str(run_dir)


def _is_imported(run_dir: pathlib.Path, where: str, name: hub_names.HubName) -> bool:
    """Returns whether a run folder has these weights; waits while another process imports them.

    Raises:
      UsageError: the folder has other contents.
    """
    while not _contains(run_dir, where, name):
        if not folder_lock.is_held(run_dir):
            return False
        logging.log_every_n_seconds(
            logging.INFO, "%s: waiting for another process that imports it", _LOG_SECONDS, where
        )
        time.sleep(_POLL_SECONDS)
    return True


def _contains(run_dir: pathlib.Path, where: str, name: hub_names.HubName) -> bool:
    """Returns whether a run folder has the checkpoint of these weights by now."""
    if not (run_dir / "config.json").exists():
        return False
    weights = run_folder.read_record(run_dir).weights
    if weights.get("repository") != name.repository or (
        name.revision and not str(weights["commit"]).startswith(name.revision)
    ):
        raise UsageError(
            f"{where}: {run_dir} already has other contents; import these weights with"
            f" --mode=import --weights={name} --run_name=NAME"
        )
    return bool(checkpoint.list_step_folders(run_dir))


def _import(
    run_dir: pathlib.Path, flag: str, text: str, name: hub_names.HubName, config: Config
) -> None:
    """Imports published weights into a run folder."""
    if (run_dir / "config.json").exists():
        with run_folder.lock(run_dir):
            if not checkpoint.list_step_folders(run_dir):  # its import was killed
                (run_dir / "config.json").unlink()
    if strategies.is_multi_worker(config.distribution):
        raise UsageError(
            f"--{flag}={text}: several workers would download these weights at once; run"
            f" --mode=import --weights={text} first"
        )
    values = {"mode": "import", "weights": text, "run_name": name.run_name}
    values["checkpoint_dir"] = config.run.checkpoint_dir
    importing = dataclasses.replace(
        Config().replace(**values),
        typed=frozenset(values),
        distribution=dataclasses.replace(config.distribution, strategy="one"),
    )
    imported = import_weights.import_run(importing, located_weights.locate(flag, text))
    data, weights = imported.record.config.data, imported.record.weights
    logging.info(
        "imported %s, commit %s, license %s, into %s: %d px, crop %g, %s",
        name,
        weights["commit"],
        weights.get("license", "not stated"),
        run_dir,
        data.image_size,
        data.crop_fraction,
        data.interpolation,
    )
