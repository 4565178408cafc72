"""What a raw data set is to `prepare` and `verify`: classes, and the images of each split."""

import dataclasses
import hashlib
import os

from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources.image_folders import is_image_name, list_files_and_folders, list_images

# Of twelve images of a class ten are for training, one for val and one for test: 500/50/50 of
# mini-ImageNet's 600.
_TWELFTHS = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One image of a raw set.

    Attributes:
      name: what it is called in lists and records: a path below the root.
      label: int.
      path: the file that holds it.
      offset, size: where it lies in a tar file; size -1 is the whole file.
    """

    name: str
    label: int
    path: str
    offset: int = 0
    size: int = -1

    def read(self):
        """The bytes of the image."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclasses.dataclass(frozen=True)
class RawSet:
    """A raw data set.

    Attributes:
      classes: their names by label.
      splits: dict from "train", "val", "test" to a list of Items; splits that are not there are
        left out.
      unlabelled: paths of images that no label was found for.
    """

    classes: tuple
    splits: dict
    unlabelled: list

    def sha256(self):
        """Hash over names and labels of all splits, hexadecimal: it names the split itself."""
        digest = hashlib.sha256()
        for split, items in self.splits.items():
            digest.update(f"{split}\n".encode())
            for item in items:
                digest.update(os.fsencode(item.name) + b" %d\n" % item.label)
        return digest.hexdigest()


def split_by_name(names):
    """Deals the images of one class to the splits: a pure function of their names.

    Sorted by the sha256 of the name, the first ten twelfths are for training, then one each for
    val and test, so that a name's split hardly depends on which others there are.

    Args:
      names: list of str.

    Returns:
      dict from split to its names, sorted.
    """
    dealt = sorted(names, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    held_out = round(len(dealt) / _TWELFTHS)
    train = len(dealt) - 2 * held_out
    parts = {"train": dealt[:train], "val": dealt[train : train + held_out]}
    return {
        split: sorted(part) for split, part in (parts | {"test": dealt[train + held_out :]}).items()
    }


def list_class_items(root, split, classes, found):
    """Items of ROOT/SPLIT/CLASS/*, in the order of class, then name."""
    labels = {name: label for label, name in enumerate(classes)}
    return [
        Item(f"{split}/{name}/{file}", labels[name], str(root / split / name / file))
        for name in sorted(found, key=labels.get)
        for file in list_images(root / split / name)
    ]


def find_folder(root, names, what):
    """The first of the folders below ROOT that is there; UsageError if none is."""
    for name in names:
        if (root / name).is_dir():
            return root / name if name != "." else root
    raise UsageError(
        f"{root}: no folder {' or '.join(names)}, wanted for {what}; name another --data_dir"
    )


def require_known_classes(root, found, classes):
    """Raises DataError for a name that is not one of the classes."""
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise DataError(
            f"{root}: {unknown[0]} is not one of the {len(classes)} known classes"
            f" ({len(unknown)} such)"
        )


def list_loose_images(folder):
    """Images beside the class folders: nothing says what they show."""
    return [str(folder / name) for name in list_images(folder)]


def list_nested_images(class_folders):
    """Images in folders below the class folders, where no reader of class folders looks."""
    nested = [
        folder / inner for folder in class_folders for inner in list_files_and_folders(folder)[1]
    ]
    files = (path for folder in nested for path in sorted(folder.rglob("*")) if path.is_file())
    return [str(path) for path in files if is_image_name(path.name)]
