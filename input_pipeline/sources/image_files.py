"""Reads images that are separate files: class folders, or lists of `path label` lines."""

import codecs
import contextlib
import csv
import dataclasses
import hashlib
import io
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import datasets
from input_pipeline.config import DataConfig
from input_pipeline.decoding import decode
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import class_subset, image_folders, manifest, path_table
from input_pipeline.system import regular_files
from input_pipeline.text import is_number, pluralize

# The largest label sets the number of classes. A label above this limit is a mistake.
MAX_LABEL = 1_000_000
# A single missing image is reported when it is read. If this many leading images of a list are
# missing, --data_dir is wrong.
_NUM_PROBED = 20
_MAX_LIST_BYTES = 2**31
_NUMBER = re.compile(r"[-+]?[\d.]+")
_EXTENSION = "|".join(map(re.escape, decode.EXTENSIONS))
_IMAGE_AND_NAME = re.compile(rf"(.*(?:{_EXTENSION}))([\t ,])(.*)", re.IGNORECASE | re.DOTALL)
# Titles of columns, without case, blanks, `-` and `_`.
_TITLE = re.compile(
    "(path|image|img|file|name|id|index|idx|number|label|target|class|category|wnid|synset|y)"
    "(path|name|file|id|index|number|label)?(e?s)?"
)


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """The image files of one split.

    Attributes:
      root: folder that the paths are relative to.
      paths: path of each image.
      labels: int32 [N].
      class_names: name of each class, by label.
      rule: what the labels come from.
      lines: lines of the path table of the same images in class folders; None if it is `paths`.
      unlabeled: paths of images without a label, which are left out.
    """

    root: str
    paths: path_table.PathTable
    labels: np.ndarray
    class_names: tuple[str, ...]
    rule: str = "class folders"
    lines: bytes | None = None
    unlabeled: tuple[str, ...] = ()

    def path(self, index: int) -> str:
        """Returns the full path of an image."""
        return os.path.join(self.root, self.paths[index])

    describe = path

    def make_reader(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """Returns the function from an index tensor to (file content, label)."""
        path = self.paths.make_lookup(self.root)
        labels = tf.constant(self.labels)  # captured by reference

        def read(index):
            return tf.io.read_file(path(index)), labels[index]

        return read

    def fingerprint(self) -> str:
        """Returns the SHA-256 over names and labels, in hexadecimal. No file is read."""
        digest = hashlib.sha256("\n".join(self.class_names).encode(errors="surrogateescape"))
        digest.update(self.paths.lines if self.lines is None else self.lines)
        return digest.hexdigest()


def from_folders(
    root: str | os.PathLike[str], split: str, class_names: Sequence[str] = ()
) -> ImageFiles:
    """Lists the images ROOT/SPLIT/CLASS/*, sorted by class and then by name.

    Args:
      root: folder of the data set.
      split: "train", "val" or "test".
      class_names: class folder of each label; if empty, the sorted folders in ROOT/train.

    Raises:
      UsageError: a folder does not exist.
      DataError: a class folder is unknown or a broken link, or the split has no image.
    """
    folder = pathlib.Path(root, split)
    _require_folder(pathlib.Path(root), "check --data_dir")
    add_folders = "put class folders there, or choose another --data_dir"
    hint = ""
    if split != "train" and pathlib.Path(root, "train").is_dir():
        hint = f"; or give --dataset=folder --data_dir={root}/train to split its images 10:1:1"
    if not folder.is_dir():
        image_folders.require_no_images(root)
    _require_folder(folder, f"the {split} split is missing: {add_folders}{hint}")
    if not class_names:
        train = pathlib.Path(root, "train")
        _require_folder(train, f"its folders define the classes: {add_folders}")
        class_names = tuple(image_folders.list_subfolders(train))
    class_folders = image_folders.list_subfolders(folder)
    image_folders.require_known_classes(folder, class_folders, class_names)
    images_of_class = list_class_folders(folder, [n for n in class_names if n in class_folders])
    paths, labels = [], []
    for label, name in enumerate(class_names):
        images = images_of_class.get(name, [])
        paths += [f"{split}/{name}/{image}" for image in images]
        labels += [label] * len(images)
    if not paths:
        raise DataError(f"{folder}: no image in any class folder ({', '.join(decode.EXTENSIONS)})")
    table = path_table.from_names(paths, labels)
    return ImageFiles(str(root), table, np.array(labels, np.int32), tuple(class_names))


def list_class_folders(
    root: str | os.PathLike[str], folders: Sequence[str]
) -> dict[str, list[str]]:
    """Lists the images of class folders; warns of all else in them.

    Args:
      root: folder that contains them.
      folders: their paths below the root.

    Returns:
      dict from a folder to its sorted images.
    """
    images_of_class, mixed, nested, irregular = {}, [], [], []
    for name in folders:
        # This includes broken links: a missing image must be reported, not skipped.
        files, subfolders, pipes = image_folders.scan(os.path.join(root, name))
        irregular += [f"{name}/{pipe}" for pipe in pipes]
        images_of_class[name] = [file for file in files if image_folders.is_image_name(file)]
        if len(images_of_class[name]) < len(files):
            mixed += files
        nested += [f"{name}/{subfolder}" for subfolder in subfolders]
    if others := image_folders.count_other_files(mixed):
        logging.warning("%s: %s", root, image_folders.describe_other_files(others))
    if nested:
        what = f"{pluralize(len(nested), 'folder')} inside class folders"
        logging.warning("%s: skipping %s, for example %s", root, what, nested[0])
    if irregular:
        what = f"{len(irregular)} pipes, devices or sockets"
        logging.warning("%s: skipping %s, for example %s", root, what, irregular[0])
    return images_of_class


def from_list(config: DataConfig, split: str, class_names: Sequence[str] = ()) -> ImageFiles:
    """Reads the list of a split: `path label` lines, where the label follows the last space.

    A label is a number, or in all lines the name of a class.

    Args:
      config: contains the paths of the lists.
      split: "train", "val" or "test".
      class_names: class names of a trained run. If empty, they are read from `--class_names`.
        Without that flag they are the sorted names in the train list, or "0", "1", ... up to its
        largest label.

    Raises:
      UsageError: a flag is missing, or a file or folder does not exist.
      DataError: a file does not parse, a label is out of range, or the images do not exist.
    """
    flags = {"train": "train_list", "val": "val_list", "test": "test_list"}
    path = getattr(config, flags[split])
    listed = _read_list(path, f"--{flags[split]}")
    if not class_names and config.class_names:
        class_names = _read_class_names(config.class_names)
    if not class_names:
        train = listed if split == "train" else _read_list(config.train_list, "--train_list")
        class_names = train.names or tuple(str(i) for i in range(max(train.labels) + 1))
    paths, labels = listed.paths, listed.labels
    if listed.names:
        labels = _number_names(listed, class_names, path)
    too_large = np.flatnonzero(labels >= len(class_names))
    if too_large.size:
        raise DataError(
            f"{path}, line {listed.first_line + too_large[0]}: label {labels[too_large[0]]} of"
            f" {paths[too_large[0]]} is out of range for {len(class_names)} classes"
            f" (0 to {len(class_names) - 1})"
        )
    root = config.data_dir or "."
    _require_folder(pathlib.Path(root), "check --data_dir")
    probed = [os.path.join(root, name) for name in paths[:_NUM_PROBED]]
    if len(probed) == _NUM_PROBED and not any(map(os.path.lexists, probed)):
        raise DataError(
            f"{path}: the first {_NUM_PROBED} images do not exist, for"
            f" example {probed[0]}; set --data_dir to the folder that the paths are relative to"
        )
    _require_regular(root, paths, path, listed.first_line)
    return ImageFiles(root, paths, labels, tuple(class_names), rule="the list")


def open_split(
    folder: str | os.PathLike[str],
    metadata: dict[str, Any],
    split: str,
    class_names: Sequence[str] = (),
) -> ImageFiles:
    """Opens a split of a data set that `--mode=prepare` wrote as lists.

    Args:
      folder: contains the lists and the manifest.
      metadata: content of the manifest.
      split: "train", "val" or "test".
      class_names: class names of a trained run, which then define the labels; if empty, those
        of the data set.

    Raises:
      UsageError: there is no such split, or the folder of the images does not exist.
      DataError: the list is missing, changed or malformed, or the run does not know a class.
    """
    entry = manifest.get_split_entry(folder, metadata, split)["list"]
    path = manifest.verify_file(folder, entry)
    # Resolve links first, because TensorFlow simplifies `link/..` without following the link.
    root = os.path.realpath(os.path.join(folder, metadata["root"]))
    _require_folder(pathlib.Path(root), f"it must contain the images of the lists in {folder}")
    paths, labels = parse_list(str(path), "the list")
    classes = tuple(metadata["classes"])
    labels = manifest.remap_labels(labels, classes, class_names, folder)
    _require_regular(root, paths, path)
    return ImageFiles(root, paths, labels, tuple(class_names) or classes, rule=manifest.FILENAME)


def parse_list(path: str | os.PathLike[str], flag: str) -> tuple[path_table.PathTable, np.ndarray]:
    """Parses a file of `path label` lines.

    Args:
      path: the list file.
      flag: the flag that names it, for error messages.

    Returns:
      (paths, labels), with labels as int32 [N].

    Raises:
      UsageError: the path is empty, or the file does not exist.
      DataError: the list is empty, a line is malformed, or labels are names.
    """
    listed = _read_list(path, flag)
    if listed.names:
        raise DataError(f"{path}: the label {listed.names[0][:20]!r} is no number")
    return listed.paths, listed.labels


class _List(NamedTuple):
    """The content of a list.

    Attributes:
      paths: path of each image.
      labels: int32 [N].
      names: the sorted class names that the labels are numbers of; () if the list has numbers.
      first_line: number of the line of the first image.
    """

    paths: path_table.PathTable
    labels: np.ndarray
    names: tuple[str, ...] = ()
    first_line: int = 1


def _read_list(path: str | os.PathLike[str], flag: str) -> _List:
    """Reads a list, see `parse_list`; labels may be names."""
    if not path:
        raise UsageError(f"--dataset=lists needs {flag}, a file of `path label` lines")
    if not os.path.isfile(path):
        raise UsageError(f"{flag}={path}: no such file")
    data = regular_files.read_bytes(path, _MAX_LIST_BYTES).removeprefix(codecs.BOM_UTF8)
    if not data:
        raise DataError(f"{path}: the list is empty")
    parsed = path_table.parse(data)
    if parsed is None or parsed[1].max() > MAX_LABEL:
        return _parse_lines(data, path)
    return _List(*parsed)


def _parse_lines(data: bytes, path: str | os.PathLike[str]) -> _List:
    """Parses like `path_table.parse`, but line by line, to name a malformed line.

    Other programs write tabs, commas, a header, names of classes.
    """
    paths: list[str] = []
    labels: list[str] = []
    lines = data.decode(errors="surrogateescape").rstrip().split("\n")
    for number, line in enumerate(lines, 1):
        name, label = _split_line(line.rstrip())
        if number == 1 and _is_header(line):
            logging.warning("%s: line 1, %r, is taken for the titles of columns", path, line[:80])
            continue
        has_number = is_number(label)
        is_consistent = not labels or has_number == is_number(labels[0])
        is_name = not _NUMBER.fullmatch(label) and not image_folders.is_image_name(label)
        if (
            not name.strip()
            or "\0" in name  # no file can have it
            or line.startswith("# ")
            or not (label and is_consistent)
            or not (has_number or is_name)
        ):
            raise DataError(
                f"{path}, line {number}: is not `path label`: {line[:80]!r}"
                + _explain_line(line, label, labels[:1])
            )
        if has_number and (len(label.lstrip("0")) > len(str(MAX_LABEL)) or int(label) > MAX_LABEL):
            raise DataError(f"{path}, line {number}: label {label[:20]} is larger than {MAX_LABEL}")
        paths.append(name)
        labels.append(label)
    if not paths:
        raise DataError(f"{path}: the list has no image")
    first_line = len(lines) - len(paths) + 1
    if is_number(labels[0]):
        numbers = [int(label) for label in labels]
        table = path_table.from_names(paths, numbers)
        return _List(table, np.array(numbers, np.int32), (), first_line)
    is_image = [image_folders.is_image_name(name) for name in paths]
    if not is_image[0] and len(paths) > 1 and all(is_image[1:]):
        raise DataError(
            f"{path}, line {first_line}: {paths[0][:80]!r} has no extension of an image, and all"
            " other paths have; remove the line if it has the titles of columns"
        )
    names = tuple(sorted(set(labels)))
    label_of_name = {name: label for label, name in enumerate(names)}
    numbers = [label_of_name[label] for label in labels]
    table = path_table.from_names(paths, numbers)
    return _List(table, np.array(numbers, np.int32), names, first_line)


def _is_header(line: str) -> bool:
    """Returns whether the first line of a list has the titles of its columns."""
    separator = next((separator for separator in ("\t", ",") if separator in line), " ")
    columns = line.split(separator)
    titles = [re.sub(r"[-_ ]", "", column.strip().strip('"').lower()) for column in columns]
    return len(columns) > 1 and all(map(_TITLE.fullmatch, titles))


def _number_names(
    listed: _List, class_names: Sequence[str], path: str | os.PathLike[str]
) -> np.ndarray:
    """Returns the labels by `class_names` of a list with names of classes."""
    labels = class_subset.label_by_name(class_names)
    for number, name in enumerate(listed.names):
        if name not in labels:
            index = int(np.argmax(listed.labels == number))
            raise DataError(
                f"{path}, line {listed.first_line + index}: {name[:80]!r}, the class of"
                f" {listed.paths[index]}, is not one of the"
                f" {len(class_names)} classes"
            )
    return np.array([labels[name] for name in listed.names], np.int32)[listed.labels]


def _require_regular(
    root: str,
    paths: path_table.PathTable,
    list_path: str | os.PathLike[str],
    first_line: int = 1,
) -> None:
    """Raises DataError if a list names a pipe, device or socket."""
    if (index := find_irregular(root, paths)) is not None:
        raise DataError(
            f"{list_path}, line {first_line + index}: {paths[index]} is a pipe, device or socket;"
            " remove the line"
        )


def find_irregular(root: str, paths: path_table.PathTable) -> int | None:
    """Returns the index of the first pipe, device or socket, which TensorFlow would wait for.

    The folders of the images are listed, which takes one system call for hundreds of files.
    """
    irregular = set()
    for folder in {line[: line.rfind(b"/") + 1] for line in io.BytesIO(paths.lines)}:
        with contextlib.suppress(OSError, ValueError):  # missing images are reported later
            names = image_folders.scan(os.path.join(os.fsencode(root), folder or b".")).irregular
            irregular |= {folder + name for name in names}
    lines = enumerate(io.BytesIO(paths.lines)) if irregular else ()
    return next((i for i, line in lines if line.rpartition(b" ")[0] in irregular), None)


def _split_line(line: str) -> tuple[str, str]:
    """Returns the path and the label of `path label`, `path<TAB>label` or `path,label`.

    MXNet writes `number<TAB>label<TAB>path`, with a decimal point in the label.
    """
    columns = line.split("\t")
    if len(columns) == 3 and is_number(columns[0]) and re.fullmatch(r"[0-9]+(\.0*)?", columns[1]):
        return columns[2], columns[1].partition(".")[0]
    if (
        '"' in (line[:1], line[-1:]) and "," in line and len(line) < csv.field_size_limit()
    ):  # a path with a comma
        columns = next(csv.reader([line]))
        return ",".join(columns[:-1]), columns[-1]
    for separator in (" ", "\t", ","):
        name, _, label = line.rpartition(separator)
        if name and is_number(label):
            return name, label
    # The path can contain blanks and commas, and so can the name of the class.
    if match := _IMAGE_AND_NAME.fullmatch(line):
        name, separator, label = match.groups()
        return name, "" if separator != " " and separator in label else label.strip()
    separator = next((separator for separator in ("\t", ",") if separator in line), " ")
    name, _, label = line.rpartition(separator)
    return name, label.strip()


def _explain_line(line: str, label: str, first_label: Sequence[str]) -> str:
    """Returns what is wrong with a malformed line of a list, or "".

    Args:
      line: the line.
      label: its label.
      first_label: the label of the first line, if there is one.
    """
    if line.startswith("#"):
        return "; remove the comment"
    if not line.strip():
        return "; remove the empty line"
    if image_folders.is_image_name(label):
        return "; the label is missing"
    if _NUMBER.fullmatch(label):
        after_name = bool(first_label) and not is_number(first_label[0])
        titles = "; remove line 1 if it has the titles of columns" if after_name else ""
        return f"; labels are numbers from 0, or names in all lines{titles}"
    if not label and image_folders.is_image_name(line.partition(",")[0].partition("\t")[0]):
        return "; give two columns, the path and the label"
    if first_label and is_number(first_label[0]):
        return f"; {label[:20]!r} is no number, but the labels of other lines are"
    return ""


def _read_class_names(path: str) -> tuple[str, ...]:
    if not os.path.isfile(path):
        raise UsageError(f"--class_names={path}: no such file")
    try:
        table = datasets.read_class_table(path)
    except ValueError as error:
        raise DataError(f"{path}, {error}") from None
    if not table:
        raise DataError(f"{path}: the class table is empty")
    return tuple(wnid for wnid, _ in table)


def _require_folder(path: pathlib.Path, advice: str) -> None:
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder; {advice}")
