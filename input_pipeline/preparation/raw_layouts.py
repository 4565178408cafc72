"""How the raw data sets lie on disk, and which image of them is in which split.

Every layout becomes the same thing: classes in the order of their labels and, for each split, a
list of Items, in the order of class, then name.
"""

import os
import pathlib

from input_pipeline import datasets
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import raw_ilsvrc, raw_set
from input_pipeline.sources import image_files, image_folders, shapes

# Below the root these hold class folders; where none is there, the root itself does.
_SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = (*_SPLITS, "ILSVRC2012_img_train", "ILSVRC2012_img_val")


def find(config, prepare):
    """Finds the images of a raw data set.

    Args:
      config: DataConfig: dataset, data_dir and the lists.
      prepare: PrepareConfig: devkit and split_csv.

    Returns:
      RawSet.

    Raises:
      UsageError: folders or files that are not there.
      DataError: files that do not say what they should.
    """
    if config.dataset == "lists":
        return _find_in_lists(config)
    if config.dataset == "shapes":
        shapes.make(config.data_dir)
    root = pathlib.Path(config.data_dir)
    if not root.is_dir():
        raise UsageError(f"--data_dir={config.data_dir}: there is no such folder")
    table = tuple(wnid for wnid, _ in datasets.load_class_table(config.dataset))
    if config.dataset == "ilsvrc2012":
        return raw_ilsvrc.find_ilsvrc2012(root, table, prepare.devkit)
    if prepare.split_csv:
        return raw_ilsvrc.find_mini_imagenet(root, table, pathlib.Path(prepare.split_csv))
    return _find_in_class_folders(root, table, pools=config.dataset == "mini_imagenet")


def _find_in_lists(config):
    splits, classes = {}, ()
    for split in _SPLITS:
        if not getattr(config, f"{split}_list"):
            continue
        files = image_files.from_list(config, split, classes)
        classes = files.class_names
        rows = zip(files.paths, files.labels.tolist(), strict=True)
        splits[split] = [raw_set.Item(n, label, os.path.join(files.root, n)) for n, label in rows]
    if not splits:
        raise UsageError("--dataset=lists needs --train_list, a file of `path label` lines")
    return raw_set.RawSet(classes, splits, [])


def _find_in_class_folders(root, table, pools):
    """ROOT/{train,val,test}/CLASS/*, or ROOT/CLASS/*, which is split here.

    Args:
      root: pathlib.Path.
      table: classes by label, or () to take the sorted ones of train.
      pools: splits with classes of their own, as few-shot learning has them, are pooled and split
        anew.
    """
    splits = [split for split in _SPLITS if (root / split).is_dir()]
    found = {split: image_folders.list_subfolders(root / split) for split in splits}
    if pools and len(splits) > 1 and not set(found[splits[0]]) & set(found[splits[1]]):
        return _split_class_folders(root, {n: f"{s}/{n}" for s in splits for n in found[s]}, table)
    if not splits:
        return _split_class_folders(
            root, {name: name for name in image_folders.list_subfolders(root)}, table
        )
    classes = table or tuple(found[splits[0]])
    raw_set.require_known_classes(
        root, [name for names in found.values() for name in names], classes
    )
    items = {s: raw_set.list_class_items(root, s, classes, found[s]) for s in splits}
    unlabelled = [file for s in splits for file in raw_set.list_loose_images(root / s)]
    unlabelled += raw_set.list_nested_images(root / s / name for s in splits for name in found[s])
    return raw_set.RawSet(classes, items, unlabelled)


def _split_class_folders(root, homes, table):
    """Splits the images of every class by their names.

    Args:
      root: pathlib.Path.
      homes: the folder of each class, below root.
      table: classes by label, or () to take the sorted ones.
    """
    classes = table or tuple(sorted(homes))
    raw_set.require_known_classes(root, homes, classes)
    items = {split: [] for split in _SPLITS}
    for label, name in enumerate(classes):
        if name in homes:
            home = homes[name]
            for split, names in raw_set.split_by_name(
                image_folders.list_images(root / home)
            ).items():
                paths = [f"{home}/{file}" for file in names]
                items[split] += [raw_set.Item(p, label, str(root / p)) for p in paths]
    if not items["train"]:
        raise DataError(f"{root}: no image in any class folder")
    items = {split: of_split for split, of_split in items.items() if of_split}
    unlabelled = raw_set.list_loose_images(root)
    unlabelled += raw_set.list_nested_images(root / home for home in homes.values())
    return raw_set.RawSet(classes, items, unlabelled)
