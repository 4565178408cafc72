"""ILSVRC 2012 as it is downloaded, and mini-ImageNet, which is a part of it."""

import csv
import os
import pathlib
import tarfile

from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import raw_set, val_ground_truth
from input_pipeline.sources import image_folders


def find_ilsvrc2012(root, table, devkit):
    """ILSVRC 2012: class folders and class tar files, val in class folders or flat.

    Args:
      root: pathlib.Path with train (or ILSVRC2012_img_train) and val (or ILSVRC2012_img_val).
      table: WordNet ids by label.
      devkit: folder of the development kit, or "" to look for it in root.

    Returns:
      RawSet.
    """
    train = raw_set.find_folder(root, ("train", "ILSVRC2012_img_train"), "the training images")
    tars = sorted(p.name[:-4] for p in train.glob("n*.tar"))
    # A class may be there as both, where unpacking was cut short: the tar file is the whole one.
    folders = [name for name in image_folders.list_subfolders(train) if name not in tars]
    raw_set.require_known_classes(train, [*tars, *folders], table)
    items = raw_set.list_class_items(root, train.name, table, folders)
    labels = {wnid: label for label, wnid in enumerate(table)}
    items += [i for name in tars for i in _list_tar_items(train / f"{name}.tar", labels[name])]
    items.sort(key=lambda item: item.label)
    splits, unlabelled = {"train": items}, raw_set.list_loose_images(train)
    val = [p for p in (root / "val", root / "ILSVRC2012_img_val") if p.is_dir()]
    if val and (folders := image_folders.list_subfolders(val[0])):
        raw_set.require_known_classes(val[0], folders, table)
        splits["val"] = raw_set.list_class_items(root, val[0].name, table, folders)
        unlabelled += raw_set.list_loose_images(val[0])
    elif val:
        labels = val_ground_truth.read(pathlib.Path(devkit) if devkit else root, table)
        names = image_folders.list_images(val[0])
        rows = [(labels[n], f"{val[0].name}/{n}") for n in names if n in labels]
        splits["val"] = [
            raw_set.Item(name, label, str(root / name)) for label, name in sorted(rows)
        ]
        unlabelled += [str(val[0] / n) for n in names if n not in labels]
    if not items:
        raise DataError(f"{train}: no image in any class folder and no class tar file")
    return raw_set.RawSet(table, splits, unlabelled)


def find_mini_imagenet(root, table, folder):
    """The images that the CSVs of Ravi & Larochelle (2017) name, from ILSVRC's train folders.

    Their splits have classes of their own; for classification each class is split by name.

    Args:
      root: pathlib.Path with train, or of the class folders themselves.
      table: WordNet ids of the 100 classes by label.
      folder: pathlib.Path of train.csv, val.csv and test.csv.

    Returns:
      RawSet.
    """
    train = raw_set.find_folder(root, ("train", "ILSVRC2012_img_train", "."), "the training images")
    wanted = {}
    for name in ("train.csv", "val.csv", "test.csv"):
        if not (folder / name).is_file():
            raise UsageError(f"--split_csv={folder}: there is no {name}")
        for wnid, image in _read_csv(folder / name):
            wanted.setdefault(wnid, []).append(image)
    raw_set.require_known_classes(folder, wanted, table)
    items = {"train": [], "val": [], "test": []}
    for label, wnid in enumerate(table):
        if wnid not in wanted:
            continue
        if not (train / wnid).is_dir():
            raise UsageError(f"{train / wnid}: no such folder, wanted for --split_csv")
        # The last four digits of a name in the CSV are a place among the class's files.
        files = sorted(image_folders.list_images(train / wnid), key=_parse_file_number)
        for split, names in raw_set.split_by_name(wanted[wnid]).items():
            for name in names:
                place = int(pathlib.PurePath(name).stem[-4:])
                if not 1 <= place <= len(files):
                    raise DataError(
                        f"{train / wnid}: {name} is image {place} of this class, and only"
                        f" {len(files)} are here"
                    )
                path = train / wnid / files[place - 1]
                items[split].append(raw_set.Item(os.path.relpath(path, root), label, str(path)))
    return raw_set.RawSet(table, items, [])


def _read_csv(path):
    """Class and image of every line of a CSV; DataError for one of another form."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            wnid, image = row.get("label"), row.get("filename")
            if not wnid or not image or not pathlib.PurePath(image).stem[-4:].isdigit():
                raise DataError(f"{path}: not lines of `filename,label` like n0153282900000005.jpg")
            yield wnid, image


def _parse_file_number(name):
    digits = pathlib.Path(name).stem.rpartition("_")[2]
    if not digits.isdigit():
        raise DataError(f"{name}: not an ILSVRC training file like n01440764_18.JPEG")
    return int(digits)


def _list_tar_items(path, label):
    try:
        with tarfile.open(path) as tar:
            files = [m for m in tar if m.isfile()]
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path}: not a whole tar file ({error})") from None
    members = [m for m in files if image_folders.is_image_name(os.path.basename(m.name))]
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
