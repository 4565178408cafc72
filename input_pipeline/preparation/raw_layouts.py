"""Finds the images of a raw data set in any supported folder layout, and their splits.

Every layout yields a RawSet: the class names by label and, for each split, a list of Items sorted
by label and then by name.
"""

import os
import pathlib
from collections.abc import Iterator

from input_pipeline import datasets
from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import raw_ilsvrc, raw_set
from input_pipeline.sources import (
    folder_splits,
    image_files,
    image_folders,
    layout_splits,
    layouts,
    packed_images,
    shapes,
)

_SPLITS = folder_splits.SPLITS
# Folders below the root that contain the class folders. If none exists, the root contains them.
_SPLIT_FOLDERS = (*_SPLITS, "ILSVRC2012_img_train", "ILSVRC2012_img_val")


def find(config: DataConfig, prepare: PrepareConfig) -> raw_set.RawSet:
    """Finds the images of a raw data set.

    Args:
      config: contains dataset, data_dir and the lists.
      prepare: contains devkit and split_csv.

    Raises:
      UsageError: a folder or file does not exist.
      DataError: a file is malformed, or a class is unknown.
    """
    raw = _find_all(config, prepare)
    return raw_set.select_classes(raw, config.classes) if config.classes else raw


def _find_all(config: DataConfig, prepare: PrepareConfig) -> raw_set.RawSet:
    if config.dataset == "lists":
        return _find_in_lists(config)
    if config.dataset == "shapes":
        shapes.make(config.data_dir)
    root = pathlib.Path(config.data_dir)
    if not root.is_dir():
        raise UsageError(f"--data_dir={config.data_dir}: no such folder")
    table = datasets.load_wnids(config.dataset)
    if prepare.split_csv:
        return raw_ilsvrc.find_mini_imagenet(root, table, pathlib.Path(prepare.split_csv))
    layout = layouts.recognize(root)
    if folders := folder_splits.find_class_folders(root, config.dataset, layout):
        return _find_without_splits(root, folders, config.dataset)
    if layout is not None and not layout.is_plain(root):
        return _find_in_layout(layout, config.dataset, prepare.devkit)
    if config.dataset == "ilsvrc2012":
        raw_set.find_folder(root, ("train",), "the training images")
    return _find_in_class_folders(root, table)


def _find_in_lists(config: DataConfig) -> raw_set.RawSet:
    splits: dict[str, list[raw_set.Item]] = {}
    classes: tuple[str, ...] = ()
    for split in _SPLITS:
        if not getattr(config, f"{split}_list"):
            continue
        files = image_files.from_list(config, split, classes)
        classes = files.class_names
        splits[split] = [
            raw_set.Item(name, label, os.path.join(files.root, name))
            for name, label in zip(files.paths, files.labels.tolist(), strict=True)
        ]
    if not splits:
        raise UsageError("--dataset=lists needs --train_list, a file of `path label` lines")
    return raw_set.RawSet(classes, splits, [])


def _find_in_layout(layout: layouts.Layout, dataset: str, devkit: str) -> raw_set.RawSet:
    """Finds the images of a layout that is not only class folders."""
    classes: tuple[str, ...] = ()
    splits: dict[str, list[raw_set.Item]] = {}
    unlabeled: list[str] = []
    class_folders: list[pathlib.Path] = []
    for split, place in layout.splits.items():
        images = layout_splits.open_split(layout, dataset, split, classes, devkit)
        classes = images.class_names
        splits[split] = list(_list_items(images))
        unlabeled += images.unlabeled
        if place.kind == layouts.FOLDERS:
            unlabeled += raw_set.list_loose_images(place.folder)
            names = image_folders.list_subfolders(place.folder)
            class_folders += [place.folder / name for name in names]
    unlabeled += raw_set.list_nested_images(class_folders)
    skipped = raw_set.count_skipped_files(class_folders)
    return raw_set.RawSet(classes, splits, unlabeled, skipped)


def _list_items(
    images: image_files.ImageFiles | packed_images.PackedImages,
) -> Iterator[raw_set.Item]:
    labels = images.labels.tolist()
    if isinstance(images, image_files.ImageFiles):
        for name, label in zip(images.paths, labels, strict=True):
            yield raw_set.Item(name, label, os.path.join(images.root, name))
        return
    for name, label, row in zip(images.names, labels, images.rows.tolist(), strict=True):
        file, _, offset, size, place = row
        position = images.files[file], offset, size
        yield raw_set.Item(name, label, *position, images.storage, tuple(place))


def require_separate_folder(
    config: DataConfig, out: str | os.PathLike[str], is_data_set: bool = False
) -> None:
    """Raises UsageError if an output folder would be read as a class folder of the images.

    Args:
      config: names the images.
      out: the output folder.
      is_data_set: whether it becomes a data set, which may not be in the folder of tar files or
        other shards either.
    """
    if config.dataset == "lists":
        return
    root = pathlib.Path(config.data_dir)
    parents = [root / name for name in _SPLIT_FOLDERS if (root / name).is_dir()]
    if not parents and (is_data_set or folder_splits.has_class_folders(root)):
        parents = [root]
    for parent in parents:
        path = os.path.relpath(os.path.realpath(out), os.path.realpath(parent))
        if not path.startswith("."):  # in it, and not hidden
            raise UsageError(f"--out={out}: would be read as a class folder; choose another folder")


def _find_in_class_folders(root: pathlib.Path, table: tuple[str, ...]) -> raw_set.RawSet:
    """Finds ROOT/{train,val,test}/CLASS/*.

    Args:
      root: folder of the data set.
      table: class names by label, or () for the sorted folders of train.
    """
    splits = [split for split in _SPLITS if (root / split).is_dir()]
    if not splits:
        raise DataError(
            f"{root}: contains no class folders and no folder train; put the images of each class"
            " into a separate folder"
        )
    folders = {split: image_folders.list_subfolders(root / split) for split in splits}
    classes = table or tuple(folders[splits[0]])
    image_folders.require_known_classes(
        root, [name for names in folders.values() for name in names], classes
    )
    items = {s: raw_set.list_class_items(root, s, classes, folders[s]) for s in splits}
    unlabeled = [file for s in splits for file in raw_set.list_loose_images(root / s)]
    class_folders = [root / s / name for s in splits for name in folders[s]]
    unlabeled += raw_set.list_nested_images(class_folders)
    return raw_set.RawSet(classes, items, unlabeled, raw_set.count_skipped_files(class_folders))


def _find_without_splits(
    root: pathlib.Path, folder_of_class: dict[str, str], dataset: str
) -> raw_set.RawSet:
    """Splits class folders that have no splits; see `folder_splits`.

    Args:
      root: folder of the data set.
      folder_of_class: folder of each class, relative to root.
      dataset: name of the data set.
    """
    images = folder_splits.list_images(root, folder_of_class)
    classes, paths, _ = folder_splits.assign(root, folder_of_class, images, dataset)
    labels = {name: label for label, name in enumerate(classes)}
    items = {
        split: [raw_set.Item(path, labels[name], str(root / path)) for name, path in part]
        for split, part in paths.items()
        if part
    }
    unlabeled = raw_set.list_loose_images(root)
    class_folders = [root / folder for folder in folder_of_class.values()]
    unlabeled += raw_set.list_nested_images(class_folders)
    return raw_set.RawSet(classes, items, unlabeled, raw_set.count_skipped_files(class_folders))
