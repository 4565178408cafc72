"""Splits class folders that have no splits into train, val and test, once for good.

The split of every image is written into the index folder of the data set when a training opens it.
Images that are added later are split without moving an image from one split to another.
"""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from absl import logging

from input_pipeline import datasets
from input_pipeline.errors import DataError
from input_pipeline.sources import image_files, image_folders, index_folder, layouts, path_table
from input_pipeline.system import atomic_files
from input_pipeline.text import pluralize

SPLITS = ("train", "val", "test")
# Data sets whose class folders may have no splits. Those of others are sets to evaluate on.
_DATASETS = ("folder", "mini_imagenet")
# Of twelve images of a class, ten go to train, one to val and one to test. This gives 500/50/50
# for the 600 images per class of mini-ImageNet.
_TWELFTHS = 12
_MAX_PROBED = 10  # class folders
_FILENAME = "split.txt"
RULE = "the class folders, split 10:1:1 by name"


def split_by_name(
    names: Iterable[str], split_of_name: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """Splits the images of one class into train, val and test, 10:1:1, by the hash of their names.

    Args:
      names: the names.
      split_of_name: splits that are kept, by name.

    Returns:
      dict from a split to its sorted names.
    """
    result: dict[str, list[str]] = {split: [] for split in SPLITS}
    known, new = split_of_name or {}, []
    for name in names:
        result[known[name]].append(name) if name in known else new.append(name)
    num_held_out = round((len(new) + sum(map(len, result.values()))) / _TWELFTHS)
    new.sort(key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    for split in ("test", "val"):
        first = len(new) - min(len(new), max(0, num_held_out - len(result[split])))
        result[split] += new[first:]
        del new[first:]
    result["train"] += new
    return {split: sorted(part) for split, part in result.items()}


def find_class_folders(
    root: str | os.PathLike[str], dataset: str, layout: layouts.Layout | None
) -> dict[str, str]:
    """Finds class folders without splits.

    Args:
      root: folder of the data set.
      dataset: name of the data set. The splits of mini-ImageNet for few-shot learning, which have
        different classes, do not count.
      layout: the recognized layout of the folder.

    Returns:
      dict from class name to folder, relative to root; empty if there are splits, or no folders.

    Raises:
      DataError: a folder is called like a split and does not contain one.
    """
    if dataset not in _DATASETS or not os.path.isdir(root):
        return {}
    if layout is None:
        names = image_folders.list_subfolders(root)
        if reserved := [name for name in names if name.lower() in layouts.SPLIT_ALIASES]:
            raise DataError(
                f"{root}/{reserved[0]}: is called like a split, but contains neither class folders"
                " nor files with classes; put class folders there, or rename it if it is a class"
            )
        return {name: name for name in names}
    places = [*layout.splits.values()]
    is_folders = layout.root == pathlib.Path(root) and {p.kind for p in places} == {layouts.FOLDERS}
    if dataset != "mini_imagenet" or not is_folders or len(places) == 1:
        return {}
    classes = {p.folder.name: image_folders.list_subfolders(p.folder) for p in places}
    pooled = {name: f"{split}/{name}" for split, names in classes.items() for name in names}
    return pooled if len(pooled) == sum(map(len, classes.values())) else {}


def has_class_folders(root: str | os.PathLike[str]) -> bool:
    """Returns whether a folder without splits says by itself that it contains class folders."""
    if not os.path.isdir(root):
        return False
    folders = image_folders.list_subfolders(root)[:_MAX_PROBED]
    paths = (os.path.join(root, folder) for folder in folders)
    return len(folders) > 1 and any(map(image_folders.list_images, paths))


def is_written(root: str | os.PathLike[str]) -> bool:
    """Returns whether a training has written down the split of a data set."""
    return bool(index_folder.list_existing(root, _FILENAME))


def written_path(root: str | os.PathLike[str]) -> pathlib.Path:
    """Returns where the split of a data set is, unless it is in the cache."""
    return index_folder.in_data_set(root) / _FILENAME


def open_split(
    root: str | os.PathLike[str],
    folder_of_class: Mapping[str, str],
    dataset: str,
    split: str,
    class_names: Sequence[str] = (),
) -> image_files.ImageFiles:
    """Opens a split of class folders without splits, and writes down the split of new images.

    Args:
      root: folder of the data set.
      folder_of_class: see `find_class_folders`.
      dataset: name of the data set.
      split: "train", "val" or "test".
      class_names: class names by label; if empty, those of the data set, or the sorted folders.

    Raises:
      UsageError: the split cannot be written anywhere.
      DataError: a class folder is unknown, or the split has no image.
    """
    images = list_images(root, folder_of_class)
    classes, paths, is_new = assign(root, folder_of_class, images, dataset)
    if is_new:
        folder = index_folder.find(root)
        with index_folder.lock(folder):  # another process may have written a split by now
            classes, paths, _ = assign(root, folder_of_class, images, dataset)
            known = _read(root)
            numbered = {p: number for number, name in enumerate(SPLITS) for _, p in paths[name]}
            # New images go behind the others, see `fingerprint_written`.
            new = {path: numbered[path] for path in sorted(numbered.keys() - known.keys())}
            _write(folder, known | new)
        logging.info("wrote the split to %s; keep it with the images", folder / _FILENAME)
    classes = tuple(class_names) or classes
    labels = {name: label for label, name in enumerate(classes)}
    image_folders.require_known_classes(root, {name for name, _ in paths[split]}, classes)
    labeled = sorted((labels[name], path) for name, path in paths[split])
    if not labeled:
        raise DataError(
            f"{root}: no image in the {split} split of {RULE}; a class needs seven images to have"
            " one in each split"
        )
    table_labels = np.array([label for label, _ in labeled], np.int32)
    logging.info(
        "%s: %d of %d images in %s; the split is in %s",
        *(split, len(labeled), sum(map(len, paths.values())), root),
        " and ".join(map(str, index_folder.list_existing(root, _FILENAME))),
    )
    table = path_table.from_names([path for _, path in labeled], table_labels)
    return image_files.ImageFiles(str(root), table, table_labels, classes, rule=RULE)


def list_images(
    root: str | os.PathLike[str], folder_of_class: Mapping[str, str]
) -> dict[str, list[str]]:
    """Returns the images of each class folder, by its path relative to root."""
    return image_files.list_class_folders(root, [*folder_of_class.values()])


def assign(
    root: str | os.PathLike[str],
    folder_of_class: Mapping[str, str],
    images_of_folder: Mapping[str, Sequence[str]],
    dataset: str,
) -> tuple[tuple[str, ...], dict[str, list[tuple[str, str]]], bool]:
    """Assigns every image of class folders to a split. Nothing is written.

    Args:
      root: folder of the data set.
      folder_of_class: see `find_class_folders`.
      images_of_folder: see `list_images`.
      dataset: name of the data set.

    Returns:
      (class names by label, dict from a split to (class name, path) of its images, whether an
      image is not written down yet).

    Raises:
      DataError: a class folder is unknown, the file of the split is malformed, or fewer than two
        folders have images.
    """
    table = datasets.load_wnids(dataset)
    classes = table or tuple(sorted(folder_of_class))
    image_folders.require_known_classes(root, folder_of_class, classes)
    written = _read(root)
    known = {path: SPLITS[number] for path, number in written.items()}
    paths: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for name in [name for name in classes if name in folder_of_class]:
        folder = folder_of_class[name]
        files = images_of_folder[folder]
        prefix = f"{folder}/"
        kept = {file: known[prefix + file] for file in files if prefix + file in known}
        for split, part in split_by_name(files, kept).items():
            paths[split] += [(name, prefix + file) for file in part]
    with_images = sorted({name for part in paths.values() for name, _ in part})
    if len(with_images) < 2:
        found = f"only the folder {with_images[0]} has images" if with_images else "no image"
        raise DataError(
            f"{root}: {found} ({pluralize(len(folder_of_class), 'folder')}); a classifier needs"
            " two classes; name the folder that contains the class folders with --data_dir"
        )
    return classes, paths, any(path not in known for part in paths.values() for _, path in part)


def _read(root: str | os.PathLike[str]) -> dict[str, int]:
    """Returns the number of the split of each image that is written down, by path.

    The order is that of writing. What the data set itself contains takes precedence over the cache.
    """
    known: dict[str, int] = {}
    existing = index_folder.list_existing(root, _FILENAME)
    for path in existing:
        paths, numbers = image_files.parse_list(path, "the split")
        if numbers.max() >= len(SPLITS):
            raise DataError(f"{path}: is not a split; remove it to split the images again")
        written = dict(zip(paths, numbers.tolist(), strict=True))
        moved = sum(known.get(name, number) != number for name, number in written.items())
        if moved:
            logging.warning(
                "%s: takes precedence over the cache, which has another split for %s",
                *(existing[0], pluralize(moved, "image")),
            )
        known |= {name: number for name, number in written.items() if name not in known}
    return known


def list_written(root: str | os.PathLike[str], split: str) -> list[str]:
    """Returns the paths of the images that are written down as those of a split."""
    return [path for path, number in _read(root).items() if SPLITS[number] == split]


def fingerprint_written(
    root: str | os.PathLike[str], num_images: int | None = None
) -> tuple[int, str]:
    """Returns the number of images whose split is written down, and a hash of their splits.

    Images are only added, behind the others. The hash of the first ones therefore never changes.

    Args:
      root: folder of the data set.
      num_images: number of images to hash, in the order of writing; None for all.
    """
    lines = [f"{path} {number}\n" for path, number in _read(root).items()][:num_images]
    digest = hashlib.sha256("".join(lines).encode(errors="surrogateescape"))
    return len(lines), digest.hexdigest()


def _write(folder: pathlib.Path, number_of_path: Mapping[str, int]) -> None:
    if broken := next((path for path in number_of_path if "\n" in path), None):
        raise DataError(f"{broken!r}: the name contains a line break; rename the file")
    lines = path_table.from_names(number_of_path, [*number_of_path.values()]).lines
    atomic_files.write_bytes(folder / _FILENAME, lines)
