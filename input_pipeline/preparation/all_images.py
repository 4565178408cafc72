"""All images of a set, raw or prepared, for tools that look at each once."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable

from input_pipeline.preparation import raw_layouts
from input_pipeline.sources import image_files, manifest, tfrecord
from input_pipeline.system import atomic_files
from input_pipeline.system.progress import NoProgress


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """One image.

    Attributes:
      name: what a person calls it: a path below the set's root, or a shard and a record.
      label: int.
      read: function that returns its bytes.
    """

    name: str
    label: int
    read: Callable


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """All images of a set.

    Attributes:
      classes: their names by label.
      splits: dict from a split to its list of Images.
      unlabelled: paths of images without a label.
      faults: (split, shard, what is wrong) of shards that are not whole.
    """

    classes: tuple
    splits: dict
    unlabelled: list
    faults: list


def find(config, prepare_config, progress=NoProgress):
    """Finds every image; of shards the sha256 is looked at, which takes as long as reading them.

    Args:
      config: DataConfig.
      prepare_config: PrepareConfig.
      progress: function from the number of images to what counts them, as `Silent`.

    Returns:
      Images.

    Raises:
      UsageError, DataError: as `raw_layouts.find` or the prepared set's own.
    """
    if not manifest.exists(config.data_dir):
        raw = raw_layouts.find(config, prepare_config)
        splits = {
            split: [Image(item.name, item.label, item.read) for item in items]
            for split, items in raw.splits.items()
        }
        return ImageSet(raw.classes, splits, raw.unlabelled, [])
    facts = manifest.read(config.data_dir)
    manifest.require_dataset(config.data_dir, facts, config.dataset)
    if facts["storage"] != "tfrecord":
        splits = {split: _find_in_lists(config.data_dir, facts, split) for split in facts["splits"]}
        return ImageSet(tuple(facts["classes"]), splits, [], [])
    splits, faults = {}, []
    total = sum(of_split["images"] for of_split in facts["splits"].values())
    with contextlib.closing(progress(total)) as bar:
        for split in facts["splits"]:
            splits[split] = _find_in_shards(config.data_dir, facts, split, faults, bar)
    return ImageSet(tuple(facts["classes"]), splits, [], faults)


def _find_in_lists(folder, facts, split):
    files = image_files.open_split(folder, facts, split)
    rows = zip(files.paths, files.labels.tolist(), strict=True)
    paths = ((name, label, os.path.join(files.root, name)) for name, label in rows)
    return [Image(name, label, functools.partial(_read_file, path)) for name, label, path in paths]


def _read_file(path):
    with open(path, "rb") as file:
        return file.read()


def _find_in_shards(folder, facts, split, faults, bar):
    """Records of shards that are there; those of a missing one are one fault together."""
    of_split = facts["splits"][split]
    wrong = manifest.find_damaged_shards(folder, of_split)
    for shard in of_split["shards"]:
        path = os.path.join(folder, shard["name"])
        if shard["name"] not in wrong and atomic_files.sha256(path) != shard["sha256"]:
            wrong[shard["name"]] = "its sha256 is not that of the manifest"
        bar.advance(shard["records"])
    faults += [(split, name, fault) for name, fault in wrong.items()]
    shards = tfrecord.open_split(folder, facts, split, lenient=True)
    images, files = [], shards.file_names
    for name, first, last in zip(shards.names, shards.first, shards.first[1:], strict=False):
        if os.path.isfile(os.path.join(folder, name)):
            images += [
                _image_from_record(shards, i, files[i]) for i in range(int(first), int(last))
            ]
    return images


def _image_from_record(shards, index, file):
    read = functools.partial(shards.record, index)
    return Image(f"{shards.locate(index)} ({file})", int(shards.labels[index]), read)
