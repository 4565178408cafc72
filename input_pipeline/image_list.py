"""Images that are files: class folders, and lists of `path label` lines."""

import dataclasses
import hashlib
import os
import pathlib

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import datasets, decode
from input_pipeline.errors import DataError, UsageError

# Above it a label is a mistake: classes are counted by the largest one.
_LARGEST_LABEL = 1_000_000


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Paths under one root and their labels."""

    root: str
    paths: list
    labels: np.ndarray  # int32 [N]
    class_names: tuple

    def path(self, index):
        """The path of image `index`."""
        return os.path.join(self.root, self.paths[index])

    def reader(self):
        """Returns the function from an index tensor to (file content, label)."""
        # Captured by reference: constants of a graph would be copied into it.
        paths = tf.constant([os.fsencode(self.path(i)) for i in range(len(self.paths))])
        labels = tf.constant(self.labels)

        def read(index):
            return tf.io.read_file(paths[index]), labels[index]

        return read

    def fingerprint(self):
        """sha256 over names and labels, hexadecimal. Contents are not read."""
        digest = hashlib.sha256("\n".join(self.class_names).encode(errors="surrogateescape"))
        for path, label in zip(self.paths, self.labels, strict=True):
            digest.update(f"{path} {label}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def from_folders(root, split, class_names=()):
    """Lists the images of ROOT/SPLIT/CLASS/*, in the order of class, then name.

    Args:
      root: folder of the data set.
      split: "train", "val" or "test".
      class_names: folder of each label; if empty, the sorted folders of ROOT/train.

    Returns:
      ImageFiles.
    """
    folder = pathlib.Path(root, split)
    _require_folder(pathlib.Path(root), "--data_dir")
    _require_folder(folder, f"the {split} split: put class folders there, or name other --data_dir")
    if not class_names:
        train = pathlib.Path(root, "train")
        _require_folder(train, "the class names: put class folders there, or name other --data_dir")
        class_names = tuple(_subfolders(train))
    found = _subfolders(folder)
    unknown = sorted(set(found) - set(class_names))
    if unknown:
        raise DataError(
            f"{folder / unknown[0]}: not one of the {len(class_names)} known classes"
            f" ({len(unknown)} such folders); remove it, or add it to train and train anew"
        )
    paths, labels, ignored = [], [], 0
    for label, name in enumerate(class_names):
        if name not in found:
            continue
        entries = sorted(e.name for e in os.scandir(folder / name) if e.is_file())
        images = [e for e in entries if e.lower().endswith(decode.EXTENSIONS)]
        ignored += len(entries) - len(images)
        paths += [f"{split}/{name}/{image}" for image in images]
        labels += [label] * len(images)
    if ignored:
        logging.warning("%s: %d files without an image's extension are left out", folder, ignored)
    if not paths:
        raise DataError(f"{folder}: no image in any class folder ({', '.join(decode.EXTENSIONS)})")
    return ImageFiles(str(root), paths, np.array(labels, np.int32), tuple(class_names))


def from_list(config, split, class_names=()):
    """Reads the `path label` list of a split; the label follows the last space.

    Args:
      config: DataConfig with the lists.
      split: "train", "val" or "test".
      class_names: the classes of a trained run; else of `--class_names`, else "0", "1", ... up to
        the largest training label.

    Returns:
      ImageFiles.
    """
    flags = {"train": "train_list", "val": "val_list", "test": "test_list"}
    paths, labels = _parse_list(getattr(config, flags[split]), flags[split])
    if not class_names and config.class_names:
        class_names = _class_names_of_file(config.class_names)
    if not class_names:
        train = labels
        if split != "train":
            _, train = _parse_list(config.train_list, "train_list")
        class_names = tuple(str(i) for i in range(max(train) + 1))
    for line, label in enumerate(labels, 1):
        if label >= len(class_names):
            raise DataError(
                f"{getattr(config, flags[split])}, line {line}: label {label} is out of range,"
                f" there are {len(class_names)} classes (0 to {len(class_names) - 1})"
            )
    root = config.data_dir or "."
    _require_folder(pathlib.Path(root), "--data_dir")
    return ImageFiles(root, paths, np.array(labels, np.int32), class_names)


def _parse_list(path, flag):
    """Returns paths and labels of a list file."""
    if not path:
        raise UsageError(f"--dataset=lists needs --{flag}, a file of `path label` lines")
    if not os.path.isfile(path):
        raise UsageError(f"--{flag}={path}: there is no such file")
    paths, labels = [], []
    text = pathlib.Path(path).read_text(errors="surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        name, _, label = line.rstrip().rpartition(" ")
        if not name.strip() or not label.isascii() or not label.isdigit():
            raise DataError(f"{path}, line {number}: not `path label`: {line[:80]!r}")
        if int(label) > _LARGEST_LABEL:
            raise DataError(f"{path}, line {number}: label {label} is out of range")
        paths.append(name)
        labels.append(int(label))
    if not paths:
        raise DataError(f"{path}: the list is empty")
    return paths, labels


def _class_names_of_file(path):
    if not os.path.isfile(path):
        raise UsageError(f"--class_names={path}: there is no such file")
    try:
        table = datasets.read_class_table(path)
    except ValueError as error:
        raise DataError(f"{path}, {error}") from None
    if not table:
        raise DataError(f"{path}: the class table is empty")
    return tuple(wnid for wnid, _ in table)


def _require_folder(path, what):
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder, wanted for {what}")


def _subfolders(path):
    return sorted(e.name for e in os.scandir(path) if e.is_dir() and not e.name.startswith("."))
