"""Images that are files: class folders, and lists of `path label` lines."""

import codecs
import dataclasses
import hashlib
import os
import pathlib

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import datasets
from input_pipeline.decoding import decode
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import image_folders, manifest, path_table
from input_pipeline.text import pluralize

# Above it a label is a mistake: classes are counted by the largest one.
_MAX_LABEL = 1_000_000
# One image of a list may be missing, and is named when it is read; so many in a row are elsewhere.
_NUM_PROBED = 20
_FIX_HINT = "put class folders there, or name another --data_dir"


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Paths under one root and their labels."""

    root: str
    paths: path_table.PathTable
    labels: np.ndarray  # int32 [N]
    class_names: tuple

    def path(self, index):
        """The path of image `index`."""
        return os.path.join(self.root, self.paths[index])

    describe = path

    def make_reader(self):
        """Returns the function from an index tensor to (file content, label)."""
        path = self.paths.make_lookup(self.root)
        labels = tf.constant(self.labels)  # captured by reference

        def read(index):
            return tf.io.read_file(path(index)), labels[index]

        return read

    def fingerprint(self):
        """sha256 over names and labels, hexadecimal. Contents are not read."""
        digest = hashlib.sha256("\n".join(self.class_names).encode(errors="surrogateescape"))
        digest.update(self.paths.lines)
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
    deal = "" if split == "train" else "; --mode=prepare deals class folders to train, val and test"
    _require_folder(folder, f"the {split} split: {_FIX_HINT}{deal}")
    if not class_names:
        train = pathlib.Path(root, "train")
        _require_folder(train, f"the class names: {_FIX_HINT}")
        class_names = tuple(image_folders.list_subfolders(train))
    found = image_folders.list_subfolders(folder)
    unknown = sorted(set(found) - set(class_names))
    if unknown:
        raise DataError(
            f"{folder / unknown[0]}: not one of the {len(class_names)} known classes"
            f" ({len(unknown)} such folders); remove it, or add it to train and train anew"
        )
    paths, labels, ignored, nested = [], [], 0, []
    for label, name in enumerate(class_names):
        if name not in found:
            continue
        # A link to nowhere is among them: a missing image is not for us to pass over.
        entries, below = image_folders.list_files_and_folders(folder / name)
        images = [e for e in entries if image_folders.is_image_name(e)]
        ignored += len(entries) - len(images)
        nested += [f"{name}/{inner}" for inner in below]
        paths += [f"{split}/{name}/{image}" for image in images]
        labels += [label] * len(images)
    if ignored:
        logging.warning("%s: %d files without an image's extension are left out", folder, ignored)
    if nested:
        what = f"{pluralize(len(nested), 'folder')} in class folders"
        logging.warning("%s: %s left out, as %s", folder, what, nested[0])
    if not paths:
        raise DataError(f"{folder}: no image in any class folder ({', '.join(decode.EXTENSIONS)})")
    table = path_table.from_names(paths, labels)
    return ImageFiles(str(root), table, np.array(labels, np.int32), tuple(class_names))


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
    paths, labels = parse_list(getattr(config, flags[split]), f"--{flags[split]}")
    if not class_names and config.class_names:
        class_names = _read_class_names(config.class_names)
    if not class_names:
        train = labels
        if split != "train":
            _, train = parse_list(config.train_list, "--train_list")
        class_names = tuple(str(i) for i in range(max(train) + 1))
    beyond = np.flatnonzero(labels >= len(class_names))
    if beyond.size:
        raise DataError(
            f"{getattr(config, flags[split])}, line {beyond[0] + 1}: label {labels[beyond[0]]} is"
            f" out of range, there are {len(class_names)} classes (0 to {len(class_names) - 1})"
        )
    root = config.data_dir or "."
    _require_folder(pathlib.Path(root), "--data_dir")
    firsts = [os.path.join(root, name) for name in paths[:_NUM_PROBED]]
    if len(firsts) == _NUM_PROBED and not any(map(os.path.lexists, firsts)):
        raise DataError(
            f"{getattr(config, flags[split])}: none of its first {_NUM_PROBED} images is there, as"
            f" {firsts[0]}; name the folder that its paths are seen from by --data_dir"
        )
    return ImageFiles(root, paths, labels, class_names)


def open_split(folder, facts, split, class_names=()):
    """Opens a split of a set that `--mode=prepare` made as lists.

    Args:
      folder: of the lists and the manifest.
      facts: the manifest.
      split: "train", "val" or "test".
      class_names: the classes of a trained run, whose labels then hold; else the set's own.

    Returns:
      ImageFiles.
    """
    entry = manifest.get_split_entry(folder, facts, split)["list"]
    path = manifest.verify_file(folder, entry)
    # TensorFlow would take the `..` in it back along the path, not from where a link leads.
    root = os.path.realpath(os.path.join(folder, facts["root"]))
    _require_folder(pathlib.Path(root), f"the images of the lists in {folder}")
    paths, labels = parse_list(str(path), "the list")
    classes = tuple(facts["classes"])
    labels = manifest.remap_labels(labels, classes, class_names, folder)
    return ImageFiles(root, paths, labels, tuple(class_names) or classes)


def parse_list(path, flag):
    """Returns the PathTable and the labels, int32 [N], of a list file that a flag names."""
    if not path:
        raise UsageError(f"--dataset=lists needs {flag}, a file of `path label` lines")
    if not os.path.isfile(path):
        raise UsageError(f"{flag}={path}: there is no such file")
    data = pathlib.Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
    if not data:
        raise DataError(f"{path}: the list is empty")
    parsed = path_table.parse(data)
    if parsed is None or parsed[1].max() > _MAX_LABEL:
        return _parse_lines(data, path)
    return parsed


def _parse_lines(data, path):
    """As `path_table.parse`, line by line, so that a bad one can be named."""
    paths, labels = [], []
    text = data.decode(errors="surrogateescape")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        name, _, label = line.rstrip().rpartition(" ")
        if not name.strip() or not label.isascii() or not label.isdigit():
            raise DataError(f"{path}, line {number}: not `path label`: {line[:80]!r}")
        if int(label) > _MAX_LABEL:
            raise DataError(f"{path}, line {number}: label {label} is out of range")
        paths.append(name)
        labels.append(int(label))
    return path_table.from_names(paths, labels), np.array(labels, np.int32)


def _read_class_names(path):
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
