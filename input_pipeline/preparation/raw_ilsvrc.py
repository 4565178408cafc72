"""Finds the images of mini-ImageNet in the folders of ILSVRC 2012."""

import os
import pathlib
from collections.abc import Iterator

from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import raw_set
from input_pipeline.sources import csv_lists, folder_splits, image_folders
from input_pipeline.text import is_number

_MAX_DIGITS = 18


def find_mini_imagenet(
    root: pathlib.Path, table: tuple[str, ...], folder: pathlib.Path
) -> raw_set.RawSet:
    """Finds the images of Ravi & Larochelle's (2017) CSV files in the ILSVRC train folders.

    The splits of the CSV files have disjoint classes. For classification, each class is split by
    the names of its images instead.

    Args:
      root: contains train, or the class folders themselves.
      table: WordNet ids of the 100 classes by label.
      folder: contains train.csv, val.csv and test.csv.

    Raises:
      UsageError: a CSV file or a folder does not exist.
      DataError: a CSV file is malformed, or names an unknown class or image.
    """
    train = raw_set.find_folder(root, ("train", "ILSVRC2012_img_train", "."), "the training images")
    names_of_class = {}
    for name in ("train.csv", "val.csv", "test.csv"):
        if not (folder / name).is_file():
            raise UsageError(f"--split_csv={folder}: contains no {name}")
        for wnid, image in _read_csv(folder / name):
            names_of_class.setdefault(wnid, []).append(image)
    image_folders.require_known_classes(folder, names_of_class, table)
    items = {"train": [], "val": [], "test": []}
    for label, wnid in enumerate(table):
        if wnid not in names_of_class:
            continue
        if not (train / wnid).is_dir():
            raise UsageError(f"{train / wnid}: no such folder, but --split_csv names its images")
        # The last four digits of a name in the CSV are its position in the sorted class folder.
        files = sorted(image_folders.list_images(train / wnid), key=_parse_file_number)
        for split, names in folder_splits.split_by_name(names_of_class[wnid]).items():
            for name in names:
                position = int(pathlib.PurePath(name).stem[-4:])
                if not 1 <= position <= len(files):
                    raise DataError(
                        f"{train / wnid}: {name} is image {position} of this class, but the folder"
                        f" contains {len(files)} images"
                    )
                path = train / wnid / files[position - 1]
                items[split].append(raw_set.Item(os.path.relpath(path, root), label, str(path)))
    return raw_set.RawSet(table, items, [])


def _read_csv(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Yields the class and image name of every row; raises DataError for a malformed row."""
    for image, wnid in csv_lists.read(path):
        if not is_number(pathlib.PurePath(image).stem[-4:]):
            raise DataError(
                f"{path}: a row is not `filename,label` with a name like n0153282900000005.jpg"
            )
        yield wnid, image


def _parse_file_number(name: str) -> int:
    """Returns the number of an ILSVRC training file: 18 for n01440764_18.JPEG."""
    digits = pathlib.Path(name).stem.rpartition("_")[2]
    if not is_number(digits) or len(digits) > _MAX_DIGITS:
        raise DataError(f"{name}: is not named like an ILSVRC training file, n01440764_18.JPEG")
    return int(digits)
