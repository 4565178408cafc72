"""Lets `--ckpt` and `--init_from` name published weights: the first use imports them."""

import dataclasses
import pathlib

from absl import logging

from input_pipeline.errors import UsageError
from loops.checkpointing import checkpoint, run_folder
from loops.config import hub_names, local_paths
from loops.config.config import Config
from loops.distribution import strategies
from loops.tools.weights import import_weights, located_weights


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
    where = f"--{flag}={text}"
    if (run_dir / "config.json").exists():
        weights = run_folder.read_record(run_dir).weights
        if weights.get("repository") != name.repository or (
            name.revision and not str(weights["commit"]).startswith(name.revision)
        ):
            raise UsageError(
                f"{where}: {run_dir} already has other contents; import these weights with"
                f" --mode=import --weights={text} --run_name=NAME"
            )
        if checkpoint.list_step_folders(run_dir):
            return str(run_dir)
        (run_dir / "config.json").unlink()  # its import was killed
    if strategies.is_multi_worker(config.distribution):
        raise UsageError(
            f"{where}: several workers would download these weights at once; run --mode=import"
            f" --weights={text} first"
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
    return str(run_dir)
