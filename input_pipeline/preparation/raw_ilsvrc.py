"""Finds the images of ILSVRC 2012 as downloaded, and of mini-ImageNet, which is a subset."""

import csv
import os
import pathlib
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import raw_set, val_ground_truth
from input_pipeline.sources import image_folders
from input_pipeline.system import regular_files

_MAX_CSV_BYTES = 2**26
_MAX_DIGITS = 18


def find_ilsvrc2012(root: pathlib.Path, table: tuple[str, ...], devkit: str) -> raw_set.RawSet:
    """Finds ILSVRC 2012: class folders and class tar files, with val in class folders or flat.

    Args:
      root: contains train (or ILSVRC2012_img_train) and val (or ILSVRC2012_img_val).
      table: WordNet ids by label.
      devkit: folder of the development kit, or "" to search it in root.

    Raises:
      UsageError: the training images or the ground truth of val do not exist.
      DataError: a class is unknown, a tar file is incomplete, or there is no image.
    """
    train = raw_set.find_folder(root, ("train", "ILSVRC2012_img_train"), "the training images")
    tars = sorted(p.name[:-4] for p in train.glob("n*.tar"))
    # A class can exist as both if unpacking was interrupted. Only the tar file is complete then.
    folders = [name for name in image_folders.list_subfolders(train) if name not in tars]
    raw_set.require_known_classes(train, [*tars, *folders], table)
    items = raw_set.list_class_items(root, train.name, table, folders)
    labels = {wnid: label for label, wnid in enumerate(table)}
    items += [i for name in tars for i in _list_tar_items(train / f"{name}.tar", labels[name])]
    items.sort(key=lambda item: item.label)
    splits, unlabeled = {"train": items}, raw_set.list_loose_images(train)
    val_folders = [p for p in (root / "val", root / "ILSVRC2012_img_val") if p.is_dir()]
    if val_folders:
        val = val_folders[0]
        if folders := image_folders.list_subfolders(val):
            raw_set.require_known_classes(val, folders, table)
            splits["val"] = raw_set.list_class_items(root, val.name, table, folders)
            unlabeled += raw_set.list_loose_images(val)
        else:
            splits["val"], unlabeled_val = _list_flat_val_items(root, val, table, devkit)
            unlabeled += unlabeled_val
    if not items:
        raise DataError(f"{train}: contains no images in class folders and no class tar files")
    return raw_set.RawSet(table, splits, unlabeled)


def _list_flat_val_items(
    root: pathlib.Path, val: pathlib.Path, table: tuple[str, ...], devkit: str
) -> tuple[list[raw_set.Item], list[str]]:
    """Returns the items of a val folder without class folders, and its images without a label."""
    labels = val_ground_truth.read(pathlib.Path(devkit) if devkit else root, table)
    names = image_folders.list_images(val)
    labeled = sorted((labels[name], f"{val.name}/{name}") for name in names if name in labels)
    items = [raw_set.Item(name, label, str(root / name)) for label, name in labeled]
    return items, [str(val / name) for name in names if name not in labels]


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
    raw_set.require_known_classes(folder, names_of_class, table)
    items = {"train": [], "val": [], "test": []}
    for label, wnid in enumerate(table):
        if wnid not in names_of_class:
            continue
        if not (train / wnid).is_dir():
            raise UsageError(f"{train / wnid}: no such folder, but --split_csv names its images")
        # The last four digits of a name in the CSV are its position in the sorted class folder.
        files = sorted(image_folders.list_images(train / wnid), key=_parse_file_number)
        for split, names in raw_set.split_by_name(names_of_class[wnid]).items():
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
    try:
        text = regular_files.read_bytes(path, _MAX_CSV_BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(text.splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: is not a CSV file ({error})") from None
    for row in rows:
        wnid, image = row.get("label"), row.get("filename")
        if not wnid or not image or not pathlib.PurePath(image).stem[-4:].isdecimal():
            raise DataError(
                f"{path}: a row is not `filename,label` with a name like n0153282900000005.jpg"
            )
        yield wnid, image


def _parse_file_number(name: str) -> int:
    """Returns the number of an ILSVRC training file: 18 for n01440764_18.JPEG."""
    digits = pathlib.Path(name).stem.rpartition("_")[2]
    if not digits.isdecimal() or len(digits) > _MAX_DIGITS:
        raise DataError(f"{name}: is not named like an ILSVRC training file, n01440764_18.JPEG")
    return int(digits)


class _ForwardReader:
    """A tar file for `tarfile`, which reads as many bytes as headers claim, wherever they claim.

    It returns no more than the file has, and refuses to go back, which would never end.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        return self._file.read(max(0, min(size, self._size - self._file.tell())))

    def seek(self, position: int) -> None:
        # `tarfile` reads the last byte before a header again.
        if position < self._file.tell() - 1:
            raise tarfile.ReadError("a header leads back")
        self._file.seek(position)


def _iter_tar_images(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yields the members that are images.

    Raises:
      DataError: the bytes of a member are not those of an image file.
    """
    # Not compressed: images are read at their offset in the file.
    with tarfile.open(fileobj=_ForwardReader(file), mode="r:") as tar:  # type: ignore[call-overload]
        for member in tar:
            tar.members = []  # would fill the memory
            if not member.isfile() or not image_folders.is_image_name(
                os.path.basename(member.name)
            ):
                continue
            where = f"{file.name}: the member {member.name}"
            if member.issparse():
                raise DataError(f"{where} is sparse; unpack the tar file, and pack it without -S")
            if not 0 <= member.size <= regular_files.MAX_IMAGE_BYTES:
                raise DataError(f"{where} claims {member.size} bytes; remove it")
            yield member


def _list_tar_items(path: pathlib.Path, label: int) -> list[raw_set.Item]:
    """Returns the images in the tar file of one class, sorted by name."""
    try:
        with regular_files.open_regular(path) as file:
            members = list(_iter_tar_images(file))
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: is not a complete tar file ({error})") from None
    wnid = path.name[:-4]
    return [
        raw_set.Item(
            f"{path.parent.name}/{wnid}/{os.path.basename(m.name)}",
            label,
            str(path),
            m.offset_data,
            m.size,
        )
        for m in sorted(members, key=lambda m: m.name)
    ]
