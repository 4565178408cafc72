"""Lists all images of a raw or prepared data set, for tools that read each image once."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.errors import UsageError
from input_pipeline.preparation import raw_layouts
from input_pipeline.sources import image_files, manifest, tfrecord
from input_pipeline.system import atomic_files, regular_files
from input_pipeline.system.progress import NoProgress, ProgressBar, ProgressFactory


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """One image.

    Attributes:
      name: readable name: its path below the root of the data set, or its shard and record.
      label: its label.
      read: function that returns its bytes.
    """

    name: str
    label: int
    read: Callable[[], bytes]


class ShardFault(NamedTuple):
    """A missing or damaged shard."""

    split: str
    shard: str
    fault: str


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """All images of a data set.

    Attributes:
      classes: class names by label.
      splits: images of each split.
      unlabeled: paths of images without a label.
      faults: missing and damaged shards.
      skipped: number of files in class folders that are not read, by extension.
    """

    classes: tuple[str, ...]
    splits: dict[str, list[Image]]
    unlabeled: list[str]
    faults: list[ShardFault]
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)


def find(
    config: DataConfig, prepare_config: PrepareConfig, progress: ProgressFactory = NoProgress
) -> ImageSet:
    """Lists every image, and checks the sha256 of shards, which reads them once.

    Args:
      config: names the data set and its files.
      prepare_config: contains devkit and split_csv.
      progress: creates the progress bar for checking shards.

    Raises:
      UsageError: a folder or file is missing, or a flag does not fit the data set.
      DataError: a file of the data set does not parse, or is missing or changed.
    """
    if not manifest.exists(config.data_dir):
        raw = raw_layouts.find(config, prepare_config)
        splits = {
            split: [Image(item.name, item.label, item.read) for item in items]
            for split, items in raw.splits.items()
        }
        return ImageSet(raw.classes, splits, raw.unlabeled, [], raw.skipped)
    if config.classes:
        raise UsageError(
            f"--classes={config.classes}: every image of the prepared data set in"
            f" {config.data_dir} is verified; omit the flag"
        )
    metadata = manifest.read(config.data_dir)
    manifest.require_dataset(config.data_dir, metadata, config.dataset)
    classes = tuple(metadata["classes"])
    if metadata["storage"] != "tfrecord":
        splits = {
            split: _find_in_lists(config.data_dir, metadata, split) for split in metadata["splits"]
        }
        return ImageSet(classes, splits, [], [])
    splits, faults = {}, []
    num_images = sum(entry["images"] for entry in metadata["splits"].values())
    with contextlib.closing(progress(num_images)) as bar:
        for split in metadata["splits"]:
            splits[split], split_faults = _find_in_shards(config.data_dir, metadata, split, bar)
            faults += split_faults
    return ImageSet(classes, splits, [], faults)


def _find_in_lists(folder: str, metadata: dict[str, Any], split: str) -> list[Image]:
    files = image_files.open_split(folder, metadata, split)
    images = []
    for name, label in zip(files.paths, files.labels.tolist(), strict=True):
        path = os.path.join(files.root, name)
        read = functools.partial(regular_files.read_bytes, path, regular_files.MAX_IMAGE_BYTES)
        images.append(Image(name, label, read))
    return images


def _find_in_shards(
    folder: str, metadata: dict[str, Any], split: str, bar: ProgressBar
) -> tuple[list[Image], list[ShardFault]]:
    """Returns the records of existing shards, and the faults. A missing shard is one fault."""
    entry = metadata["splits"][split]
    fault_of_shard = manifest.find_damaged_shards(folder, entry)
    for shard in entry["shards"]:
        path = os.path.join(folder, shard["name"])
        if shard["name"] not in fault_of_shard and atomic_files.sha256(path) != shard["sha256"]:
            fault_of_shard[shard["name"]] = "its sha256 differs from the manifest"
        bar.advance(shard["records"])
    faults = [ShardFault(split, name, fault) for name, fault in fault_of_shard.items()]
    shards = tfrecord.open_split(folder, metadata, split, lenient=True)
    images, file_names = [], shards.file_names
    for name, first, last in zip(shards.names, shards.first, shards.first[1:], strict=False):
        if os.path.isfile(os.path.join(folder, name)):
            images += [
                _image_from_record(shards, index, file_names[index])
                for index in range(int(first), int(last))
            ]
    return images, faults


def _image_from_record(shards: tfrecord.Shards, index: int, file_name: str) -> Image:
    read = functools.partial(shards.record, index)
    return Image(f"{shards.locate(index)} ({file_name})", int(shards.labels[index]), read)
