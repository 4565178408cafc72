"""Finds the images of a command, and the folder for results about them."""

import dataclasses
import os
import pathlib

from absl import logging

from input_pipeline import datasets
from input_pipeline.config import DataConfig
from input_pipeline.errors import UsageError
from input_pipeline.preparation import raw_layouts
from input_pipeline.sources import (
    folder_splits,
    image_folders,
    layouts,
    manifest,
    shapes,
    source,
)
from loops.config import mode_flags, validation
from loops.config.config import Config, select_flags


def resolve_dataset(config: Config) -> Config:
    """Takes the data set from the manifest of a prepared `--data_dir`, or from its layout.

    Class folders without splits are a data set to train on. For a trained run they are a test set
    whose classes are those of the run.

    Raises:
      UsageError: `--dataset` was typed and names another data set.
    """
    data = config.data
    if not manifest.exists(data.data_dir):
        if "dataset" in config.typed or "data_dir" not in config.typed:
            return config
        if shapes.is_complete(data.data_dir):
            return config
        layout = layouts.recognize(data.data_dir)
        if layout is not None:
            return config.replace(dataset=layout.dataset)
        if config.mode in mode_flags.DATA_MODES and folder_splits.has_class_folders(data.data_dir):
            return config.replace(dataset="folder")
        return config
    facts = manifest.read(data.data_dir)
    if "dataset" in config.typed:
        manifest.require_dataset(data.data_dir, facts, data.dataset)
    return config.replace(dataset=facts["dataset"])


def require_named_dataset(config: Config) -> None:
    """Checks that the typed flags match the data set that would be read.

    Raises:
      UsageError: a flag of `lists` was typed for another data set, or `--data_dir` was typed
        without `--dataset` and does not contain the built-in shapes. Or `--exif` would turn the
        images of a published data set.
    """
    check_list_flags(config)
    data = config.data
    is_published = bool(datasets.get(data.dataset).class_table)
    if data.exif == "apply" and is_published and config.mode in ("train", "prepare"):
        raise UsageError(
            f"--exif=apply: --dataset={data.dataset} is published with images as they are stored;"
            " leave the flag out"
        )
    if "data_dir" in config.typed:
        _check_for_split(config)
    if data.dataset != "shapes" or not data.data_dir or "dataset" in config.typed:
        return
    if manifest.exists(data.data_dir):
        return
    if "data_dir" not in config.typed or shapes.is_complete(data.data_dir):
        return
    mode_flags.require_data_dir(data)
    image_folders.require_no_images(data.data_dir)
    raise UsageError(
        f"--data_dir={data.data_dir}: has no class folders and nothing else that is recognized; for"
        " lists of image files, give --dataset=lists"
    )


def _check_for_split(config: Config) -> None:
    """Raises UsageError if `--data_dir` is one split of a data set whose other splits are needed.

    With `--dataset=folder`, class folders are a whole data set. A trained run is evaluated on them.
    """
    data = config.data
    found = None if data.dataset == "lists" else layouts.find_whole(data.data_dir)
    if found is None:
        return
    folder, split, place = found
    what = f"--data_dir={data.data_dir}: is the {split} split of {folder}"
    if place.kind == layouts.FOLDERS and config.mode not in mode_flags.DATA_MODES:
        return
    if place.kind == layouts.FOLDERS and data.dataset == "folder" and "dataset" in config.typed:
        logging.warning("%s, which has the other splits, too", what)
        return
    raise UsageError(f"{what}; give --data_dir={folder}")


def check_list_flags(config: Config) -> None:
    """Raises UsageError if a flag that only `lists` uses was typed for another data set."""
    data = config.data
    for name in sorted(select_flags(is_lists_only=True) & config.typed):
        flag = f"--{name}={getattr(data, name)}"
        if data.dataset != "lists":
            raise UsageError(
                f"{flag}: --dataset={data.dataset} does not use this flag; leave it out, or give"
                " --dataset=lists"
            )
        if manifest.exists(data.data_dir):
            raise UsageError(
                f"{flag}: the prepared data set in --data_dir={data.data_dir} already has its lists"
                " and class names; leave the flag out"
            )


def resolve_data_config(config: Config) -> DataConfig:
    """Resolves the images of a mode that works on a data set alone.

    Raises:
      UsageError: no folder, or values out of range.
    """
    validation.check_ranges(config)
    validation.check_outputs(config)
    config = resolve_dataset(config)
    require_named_dataset(config)
    data = config.data
    if data.dataset == "shapes" and not manifest.exists(data.data_dir):
        return dataclasses.replace(data, data_dir=source.ensure_data_dir(data))
    mode_flags.require_data_dir(data)
    return data


def resolve_results_folder(config: Config) -> tuple[str, bool]:
    """Finds the folder for results about a data set: `--out`, or that of the images.

    Returns:
      (folder, whether it can be written). The images may be on a read-only disk.

    Raises:
      UsageError: `--out` is read-only, or no folder is named, as is possible with
        `--dataset=lists`.
    """
    name = config.export.out or source.get_data_dir(config.data)
    if not name:
        raise UsageError("--data_dir is missing: name the folder of the images, or --out")
    folder = pathlib.Path(name)
    if config.export.out:
        raw_layouts.require_separate_folder(config.data, folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out={folder}: cannot be created ({error.strerror})") from None
    elif not folder.is_dir():
        raise UsageError(f"--data_dir={folder}: there is no such folder")
    # Root can write anywhere, but should not write to a folder that is marked read-only either.
    is_writable = os.access(folder, os.W_OK) and bool(folder.stat().st_mode & 0o222)
    if config.export.out and not is_writable:
        raise UsageError(f"--out={folder}: is read-only; name another folder")
    if not is_writable:
        logging.warning(
            "%s is read-only: the results are not written; --out names a folder", folder
        )
    return str(folder), is_writable
