"""`--mode=prepare`: converts a raw data set to lists or TFRecord shards with a manifest."""

import functools
import pathlib
from typing import Any

from input_pipeline import datasets
from input_pipeline.errors import UsageError
from input_pipeline.preparation import compressed_tars, prepare
from input_pipeline.sources import image_folders, layouts, val_ground_truth
from input_pipeline.text import pluralize
from loops.config import dataset_flags, validation
from loops.config.config import Config
from loops.distribution import strategies
from loops.monitoring import console, progress_bar
from loops.runtime import output_files

_STORAGE_FORMATS = ("tfrecord", "lists")
_MAX_CONVERSIONS_SHOWN = 3


def run(config: Config) -> dict[str, Any]:
    """Prepares a data set and returns its manifest.

    Args:
      config: config of the command line.

    Raises:
      UsageError: `--format` or `--out` is not valid, see also `prepare.prepare`.
      DataError: see `prepare.prepare`.
    """
    storage, out = config.export.format, config.export.out
    if storage not in _STORAGE_FORMATS:
        if "format" in config.typed:
            raise UsageError(f"--format={storage}: prepare writes tfrecord or lists")
        storage = "tfrecord"
    strategies.hide_gpus()
    origin = config.data.data_dir
    is_whole = config.data.dataset != "lists" and not config.prepare.split_csv
    if is_whole and (archives := layouts.find_compressed(config.data.data_dir)):
        validation.check_ranges(config)
        validation.check_outputs(config)
        if storage == "lists":
            raise UsageError(
                f"--format=lists: lists cannot point into {archives[0]}; use --format=tfrecord"
            )
        config = config.replace(
            data_dir=str(compressed_tars.unpack(archives, out)),
            devkit=config.prepare.devkit or _find_devkit(archives[0].parent),
        )
    data = dataset_flags.resolve_data_config(config)
    make_bar = functools.partial(progress_bar.Progress, "prepare")
    manifest = prepare.prepare(data, config.prepare, out, storage, make_bar, origin)
    console.print_summary(f"{out}: {manifest['dataset']} as {storage}", _make_rows(manifest))
    output_files.write_json_output(config.evaluation.json, manifest)
    return manifest


def _find_devkit(folder: pathlib.Path) -> str:
    """Returns the folder of the labels of val images next to compressed tar files, or ""."""
    found, _ = val_ground_truth.search(folder, datasets.load_wnids("ilsvrc2012"))
    return str(found or "")


def _make_rows(manifest: dict[str, Any]) -> list[tuple[str, str | int]]:
    rows: list[tuple[str, str | int]] = []
    for name, split in manifest["splits"].items():
        text = pluralize(split["images"], "image")
        if shards := split.get("shards", []):
            size = sum(shard["bytes"] for shard in shards)
            text += f", {pluralize(len(shards), 'shard')}, {size / 1e6:.1f} MB"
        rows.append((name, text))
    rows.append(("classes", len(manifest["classes"])))
    rows.append(("split hash", manifest["split_sha256"]))
    if manifest["short_side"]:
        text = f"short side {manifest['short_side']}, quality {manifest['quality']}"
        rows.append(("re-encoded", text))
    rows.append(("left out", pluralize(manifest["unlabeled"], "image") + " without a label"))
    if manifest["skipped"]:
        rows.append(("other files", image_folders.describe_other_files(manifest["skipped"])))
    rows.append(("converted", _format_conversions(manifest["conversions"])))
    return rows


def _format_conversions(conversions: list[dict[str, Any]]) -> str:
    """Lists the files that had another format than their names, or `none`."""
    if not conversions:
        return "none"
    names = [f"{conversion['file']} ({conversion['was']})" for conversion in conversions]
    text = ", ".join(names[:_MAX_CONVERSIONS_SHOWN])
    if len(names) > _MAX_CONVERSIONS_SHOWN:
        text += f" and {len(names) - _MAX_CONVERSIONS_SHOWN} more, see the manifest"
    return text
