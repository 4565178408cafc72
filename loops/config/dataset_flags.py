"""Where the images of a command are, and where what a tool finds out about them goes."""

import dataclasses
import os
import pathlib

from input_pipeline.errors import UsageError
from input_pipeline.sources import manifest, shapes, source
from loops.config import validation
from loops.config.config import leaves

_LIST_FLAGS = frozenset(("train_list", "val_list", "test_list", "class_names"))


def resolve_dataset(data, given):
    """The DataConfig with the data set that a prepared `--data_dir` says it is.

    Args:
      data: DataConfig of the command line.
      given: names of the flags that were typed.

    Raises:
      UsageError: `--dataset` was typed and says another.
    """
    if not manifest.exists(data.data_dir):
        return data
    facts = manifest.read(data.data_dir)
    if "dataset" in given:
        manifest.require_dataset(data.data_dir, facts, data.dataset)
    return dataclasses.replace(data, dataset=facts["dataset"])


def require_named_dataset(data, given):
    """Refuses what was typed for another set of images than the one that would be read.

    Args:
      data: DataConfig.
      given: names of the flags that were typed.

    Raises:
      UsageError: a flag of `lists` was typed for another set, or `--data_dir` without `--dataset`,
        and it does not hold the shapes, which would be drawn there.
    """
    check_list_flags(data, given)
    if data.dataset != "shapes" or not data.data_dir or "dataset" in given:
        return
    if manifest.exists(data.data_dir):
        return
    if "data_dir" not in given or shapes.is_complete(data.data_dir):
        return
    if not pathlib.Path(data.data_dir).exists():
        raise UsageError(f"--data_dir={data.data_dir}: there is no such folder")
    raise UsageError(
        f"--data_dir={data.data_dir}: neither a prepared set nor the built-in shapes; say what it"
        " is, as in --dataset=folder"
    )


def check_list_flags(data, given):
    """Raises UsageError where a flag that `lists` alone reads was typed for another set."""
    for name in sorted(_LIST_FLAGS & given):
        flag = f"--{name}={getattr(data, name)}"
        if data.dataset != "lists":
            raise UsageError(
                f"{flag}: --dataset={data.dataset} does not read it; leave it out, or give"
                " --dataset=lists"
            )
        if manifest.exists(data.data_dir):
            raise UsageError(
                f"{flag}: the prepared set in --data_dir={data.data_dir} has its own; leave it out"
            )


def resolve_data_config(config, given, mode):
    """The DataConfig of a tool that looks at images: where they are is settled.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.
      mode: the tool, for the message.

    Raises:
      UsageError: no folder, values out of range.
    """
    validation.check_ranges(dict(leaves(config)))
    validation.check_outputs(dict(leaves(config)))
    data = resolve_dataset(config.data, given)
    require_named_dataset(data, given)
    if data.dataset == "shapes" and not manifest.exists(data.data_dir):
        return dataclasses.replace(data, data_dir=source.ensure_data_dir(data))
    if data.dataset != "lists":
        if not data.data_dir:
            raise UsageError(f"--data_dir is missing: name the folder of the images to {mode}")
        if not pathlib.Path(data.data_dir).is_dir():
            raise UsageError(f"--data_dir={data.data_dir}: there is no such folder")
    return data


def resolve_results_folder(config):
    """The folder for what a tool finds out about a set: `--out`, else with the images.

    Raises:
      UsageError: it is read-only, or lists alone do not say which it is.
    """
    name = config.export.out or source.get_data_dir(config.data)
    if not name:
        raise UsageError("--data_dir is missing: name the folder of the images, or --out")
    folder = pathlib.Path(name)
    if config.export.out:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out={folder}: cannot be made ({error.strerror})") from None
    elif not folder.is_dir():
        raise UsageError(f"--data_dir={folder}: there is no such folder")
    # A superuser could write anywhere: what is marked read-only is still meant to stay as it is.
    if not os.access(folder, os.W_OK) or not folder.stat().st_mode & 0o222:
        raise UsageError(f"{folder} is read-only: name a folder for the results by --out")
    return str(folder)
