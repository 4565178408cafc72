"""Represents a raw data set: its classes and the images of each split."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

from input_pipeline.errors import UsageError
from input_pipeline.sources import class_subset, packed_images
from input_pipeline.sources.image_folders import (
    count_other_files,
    is_image_name,
    list_files_and_folders,
    list_images,
)
from input_pipeline.system import regular_files


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One image of a raw data set.

    Attributes:
      name: its name in lists and records: a path below the root.
      label: its label.
      path: the file that contains it.
      offset, size: its position in a larger file, in bytes; size -1 means the whole file.
      storage, place: how a larger file holds it, see `packed_images`.
    """

    name: str
    label: int
    path: str
    offset: int = 0
    size: int = -1
    storage: str = ""
    place: tuple[int, int, int] = (0, 0, 0)

    def read(self) -> bytes:
        """Returns the bytes of the image."""
        if self.storage:
            return packed_images.read_image(
                self.storage, self.path, self.offset, self.size, self.place
            )
        return regular_files.read_bytes(self.path, regular_files.MAX_IMAGE_BYTES)


@dataclasses.dataclass(frozen=True)
class RawSet:
    """A raw data set.

    Attributes:
      classes: class names by label.
      splits: images of "train", "val" and "test"; a split that does not exist has no entry.
      unlabeled: paths of images without a label.
      skipped: number of files in class folders that are not read, by extension.
    """

    classes: tuple[str, ...]
    splits: dict[str, list[Item]]
    unlabeled: list[str]
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)

    def sha256(self) -> str:
        """Returns the hash over names and labels of all splits, in hexadecimal."""
        digest = hashlib.sha256()
        for split, items in self.splits.items():
            digest.update(f"{split}\n".encode())
            for item in items:
                digest.update(os.fsencode(item.name) + b" %d\n" % item.label)
        return digest.hexdigest()


def select_classes(raw: RawSet, path: str) -> RawSet:
    """Returns only the images whose class a file names, see `class_subset.read`."""
    selected = class_subset.read(path, raw.classes)
    new_label = {label: number for number, label in enumerate(selected)}
    splits = {
        split: [
            dataclasses.replace(item, label=new_label[item.label])
            for item in items
            if item.label in new_label
        ]
        for split, items in raw.splits.items()
    }
    classes = tuple(raw.classes[label] for label in selected)
    return dataclasses.replace(raw, classes=classes, splits=splits)


def list_class_items(
    root: pathlib.Path, split: str, classes: Sequence[str], class_folders: Iterable[str]
) -> list[Item]:
    """Returns the items ROOT/SPLIT/CLASS/*, sorted by label and then by name.

    Args:
      root: folder of the data set.
      split: name of the split's folder.
      classes: class names by label.
      class_folders: the existing class folders of the split.
    """
    labels = {name: label for label, name in enumerate(classes)}
    return [
        Item(f"{split}/{name}/{file}", labels[name], str(root / split / name / file))
        for name in sorted(class_folders, key=labels.get)
        for file in list_images(root / split / name)
    ]


def find_folder(root: pathlib.Path, names: Sequence[str], content: str) -> pathlib.Path:
    """Returns the first existing folder of these names below ROOT.

    Args:
      root: folder of the data set.
      names: possible names; "." is the root.
      content: what the folder contains, for the error message.

    Raises:
      UsageError: no such folder exists.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name if name != "." else root
    raise UsageError(
        f"{root}: no folder {' or '.join(names)} with {content}; choose another --data_dir"
    )


def list_loose_images(folder: pathlib.Path) -> list[str]:
    """Returns the images next to the class folders, which have no label."""
    return [str(folder / name) for name in list_images(folder)]


def list_nested_images(class_folders: Iterable[pathlib.Path]) -> list[str]:
    """Returns the images in subfolders of the class folders, which no reader finds."""
    nested = [
        folder / inner for folder in class_folders for inner in list_files_and_folders(folder)[1]
    ]
    files = (path for folder in nested for path in sorted(folder.rglob("*")) if path.is_file())
    return [str(path) for path in files if is_image_name(path.name)]


def count_skipped_files(class_folders: Iterable[pathlib.Path]) -> dict[str, int]:
    """Returns the number of files in the folders that are not read, by extension."""
    names = (name for folder in class_folders for name in list_files_and_folders(folder)[0])
    return count_other_files(names)
