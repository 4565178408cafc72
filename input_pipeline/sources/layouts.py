"""Recognizes the layouts in which people have ImageNet and similar data sets, and opens them.

A layout is recognized by the names of its folders and files. Some have no class folders: flat
folders, tar files, TFRecords and Parquet. Their images get the names and the order that they have
in class folders, so every layout of a data set gives the same labels and batches.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from absl import logging

from input_pipeline import datasets
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import (
    foreign_records,
    image_files,
    image_folders,
    manifest,
    packed_images,
    parquet_files,
    path_table,
    tar_files,
    val_ground_truth,
)
from input_pipeline.sources.packed_images import Entry, Labels, PackedImages, Part
from input_pipeline.system import regular_files
from input_pipeline.text import pluralize

FOLDERS = "class folders"
INNER_FOLDERS = "the folders `images` of class folders"
FLAT = "a flat folder"
ANNOTATED = "a folder with val_annotations.txt"
CLASS_TARS = "class tar files"
NESTED_TAR = "a tar file of class tar files"
TAR = "a tar file"
WEBDATASET = "WebDataset tar files"
RECORDS = "TFRecord files"
PARQUET = "Parquet files"

SPLIT_NAMES = {
    "train": ("train", "ilsvrc2012_img_train", "training"),
    "val": ("val", "ilsvrc2012_img_val", "validation", "valid"),
    "test": ("test", "testing"),
}
_ILSVRC_TARS = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
# Folders below the one that a user names, where the splits can be: of Kaggle, Hugging Face, TFDS.
_INNER_FOLDERS = (
    *("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC"),
    *("data", "[0-9]*.[0-9]*.[0-9]*", "imagenet2012/[0-9]*.[0-9]*.[0-9]*"),
)
_SHARDS = {
    WEBDATASET: re.compile(r"\.tar$"),
    PARQUET: re.compile(r"\.parquet$"),
    RECORDS: re.compile(r"\.tfrec(ord)?s?$|\.tfrecord-\d+-of-\d+$|^[^.]*-\d{5}-of-\d{5}$"),
}
# What is recognized but cannot be read in place: names of files, what they are, and what to do.
_UNREADABLE = (
    (
        r"(train|val|test)_images.*\.tar\.gz$",
        "compressed tar files, which allow no random access",
        "unpack them: mkdir -p DIR/train DIR/val && for f in train_images_*.tar.gz; do tar -xzf $f"
        " -C DIR/train; done && tar -xzf val_images.tar.gz -C DIR/val",
    ),
    (
        r"\.array_record(-\d+-of-\d+)?$",
        "ArrayRecord files",
        "write TFRecords with tfds build --file_format=tfrecord, and name their folder",
    ),
    (
        r"\.beton$",
        "a file of FFCV, which stores resized images",
        "download the class folders or Parquet files, and name their folder",
    ),
    (
        r"\.rec$",
        "RecordIO files of MXNet",
        "unpack them to class folders with MXNet's im2rec tools, and name their folder",
    ),
    (
        r"^mini-imagenet-cache-\w+\.pkl$",
        "pickle files, which can run any program when they are opened",
        "download timm/mini-imagenet from Hugging Face, whose Parquet files are read",
    ),
    (
        r"^(train_data_batch_\d+|val_data)(\.pkl|\.pickle)?$",
        "pickle files of downsampled ImageNet, which can run any program when they are opened",
        "prepare the full images with --mode=prepare --short_side=64",
    ),
    (
        r"\.(lmdb|mdb|h5|hdf5)$",
        "a database",
        "write its images to class folders, DIR/train/CLASS/NAME.jpg, and name that folder",
    ),
)
_ILSVRC_STEM = re.compile(r"n\d{8}_\d+|ILSVRC2012_(val|test)_\d{8}")
_LAST_WNID = re.compile(r"_(n\d{8})$")
_FIRST_WNID = re.compile(r"(n\d{8})_")
_NUM_PROBED = 100
_ANNOTATIONS = "val_annotations.txt"
_MAX_ANNOTATION_BYTES = 2**26


@dataclasses.dataclass(frozen=True)
class SplitFiles:
    """Where the images of a split are.

    Attributes:
      kind: one of the constants of this module.
      folder: folder of the split or of its files.
      files: the files, unless the kind is FOLDERS or FLAT.
    """

    kind: str
    folder: pathlib.Path
    files: tuple[pathlib.Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """A recognized data set.

    Attributes:
      dataset: its name in `datasets`.
      root: folder of the splits.
      splits: where the images of "train", "val" and "test" are.
    """

    dataset: str
    root: pathlib.Path
    splits: dict[str, SplitFiles]

    def is_plain(self, data_dir: str | os.PathLike[str]) -> bool:
        """Returns whether the splits are the class folders DATA_DIR/{train,val,test}."""
        return self.root == pathlib.Path(data_dir) and all(
            place.kind == FOLDERS and place.folder.name == split
            for split, place in self.splits.items()
        )


def recognize(data_dir: str | os.PathLike[str]) -> Layout | None:
    """Recognizes the layout of a data set by the names of its folders and files.

    Returns:
      The layout, or None if no split is recognized.

    Raises:
      UsageError: the files are of a known format that cannot be read. The message says what to do.
    """
    folder = pathlib.Path(data_dir)
    if not data_dir or not folder.is_dir():
        return None
    if (folder / manifest.UNFINISHED).exists():
        raise UsageError(
            f"--data_dir={data_dir}: is an unfinished prepared data set; run the same"
            " --mode=prepare command again to finish it"
        )
    inner = [path for name in _INNER_FOLDERS for path in sorted(folder.glob(name), reverse=True)]
    candidates = [folder, *(path for path in inner if path.is_dir())]
    for root in candidates:
        if splits := _find_splits(root):
            return Layout(_guess_dataset(root, splits), root, splits)
    for root in candidates:
        for name in sorted(_list_names(root)):
            for pattern, what, remedy in _UNREADABLE:
                if re.search(pattern, name):
                    raise UsageError(f"--data_dir={data_dir}: {name} is one of {what}; {remedy}")
    return None


def _list_names(folder: pathlib.Path, limit: int | None = None) -> list[str]:
    """Returns the names in a folder, without hidden ones; at most `limit` if it is given."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if limit is not None and len(names) >= limit:
                break
            if not entry.name.startswith("."):
                names.append(entry.name)
    return names


def _find_splits(root: pathlib.Path) -> dict[str, SplitFiles]:
    names = sorted(_list_names(root))
    splits = {}
    for split, aliases in SPLIT_NAMES.items():
        folders = [n for alias in aliases for n in names if n.lower() == alias]
        places = (_find_in_folder(split, root / name) for name in folders if (root / name).is_dir())
        place = next(filter(None, places), None) or _find_files(split, root, names)
        if place is not None:
            splits[split] = place
    return splits


def _find_in_folder(split: str, folder: pathlib.Path) -> SplitFiles | None:
    """Finds out what the folder of a split contains."""
    probed = _list_names(folder, _NUM_PROBED)
    if any(re.fullmatch(r"n\d{8}\.tar", name) for name in probed):
        return SplitFiles(CLASS_TARS, folder)
    if _ANNOTATIONS in probed:
        return SplitFiles(ANNOTATED, folder)
    folders = [name for name in probed if (folder / name).is_dir()]
    if folders == ["images"]:  # the test images of Tiny ImageNet have no labels
        return None
    if folders:
        has_inner = (folder / folders[0] / "images").is_dir()
        return SplitFiles(INNER_FOLDERS if has_inner else FOLDERS, folder)
    if place := _find_files(split, folder, probed, is_of_split=True):
        return place
    if probed and _wnid_or_published(probed[0]):
        return SplitFiles(FLAT, folder)
    return None


def _find_files(
    split: str, folder: pathlib.Path, names: Sequence[str], is_of_split: bool = False
) -> SplitFiles | None:
    """Finds the tar, TFRecord or Parquet files of a split.

    Args:
      split: name of the split.
      folder: folder to search.
      names: names of its files, or the first ones.
      is_of_split: whether all files belong to the split.
    """
    if _ILSVRC_TARS.get(split) in names:
        kind = NESTED_TAR if split == "train" else TAR
        return SplitFiles(kind, folder, (folder / _ILSVRC_TARS[split],))
    word = re.compile(rf"(^|[-_.])({'|'.join(SPLIT_NAMES[split])})([-_.]|$)", re.IGNORECASE)
    for kind, pattern in _SHARDS.items():
        if any(pattern.search(name) for name in names):
            shards = [
                folder / name
                for name in sorted(_list_names(folder))
                if pattern.search(name) and (is_of_split or word.search(name))
            ]
            shards = [path for path in shards if path.name not in _ILSVRC_TARS.values()]
            if shards:
                _require_all_shards(shards)
                return SplitFiles(kind, folder, tuple(shards))
    return None


def _require_all_shards(shards: Sequence[pathlib.Path]) -> None:
    """Raises DataError if the names say that a shard is missing, as 00000-of-01024 does."""
    numbers: dict[int, set[int]] = {}
    for path in shards:
        if match := re.search(r"(\d{5})-of-(\d{5})", path.name):
            numbers.setdefault(int(match[2]), set()).add(int(match[1]))
    for total, found in numbers.items():
        if missing := sorted(set(range(total)) - found):
            name = re.sub(r"\d{5}-of-", f"{missing[0]:05d}-of-", shards[0].name)
            raise DataError(
                f"{shards[0].parent / name}: is missing; {len(missing)} of {total} shards are"
                " missing; copy them"
            )


def _guess_dataset(root: pathlib.Path, splits: dict[str, SplitFiles]) -> str:
    """Returns the data set that a layout contains: one with a class table, or "folder"."""
    kinds = {place.kind for place in splits.values()}
    if kinds & {FLAT, CLASS_TARS, NESTED_TAR, TAR} or root.name == "CLS-LOC":
        return "ilsvrc2012"
    place = splits.get("train") or next(iter(splits.values()))
    names = set(_peek_classes(place))
    # Class folders and lists of class names are complete. Of other files, a part is read.
    for dataset in ("ilsvrc2012", "mini_imagenet"):
        if names == set(_class_table(dataset)):
            return dataset
    if names and place.files and names <= set(_class_table("ilsvrc2012")):
        return "ilsvrc2012"
    return "folder"


def _peek_classes(place: SplitFiles) -> Iterable[str]:
    """Returns names of classes of a split: all of class folders, some of other kinds."""
    if place.kind in (FOLDERS, INNER_FOLDERS):
        return image_folders.list_subfolders(place.folder)
    if place.kind == ANNOTATED:
        return ()
    first = place.files[0]
    if place.kind == PARQUET:
        columns = parquet_files.find_columns(first)
        if len(columns.class_names) == len(_class_table("ilsvrc2012")):
            return _class_table("ilsvrc2012")
        names = columns.class_names
        rows = [] if names else parquet_files.list_rows(first, columns, _NUM_PROBED)
        return [*names, *(_wnid_or_published(row.name) or row.name for row in rows)]
    if place.kind == RECORDS:
        if first.name.startswith("imagenet2012-"):
            return _class_table("ilsvrc2012")
        entries, _ = foreign_records.list_images(first, _NUM_PROBED)
    else:
        entries = tar_files.list_webdataset(first, _NUM_PROBED)
    return [entry.wnid or _wnid_or_published(entry.name) or entry.name for entry in entries]


@functools.cache
def _class_table(dataset: str) -> tuple[str, ...]:
    return tuple(wnid for wnid, _ in datasets.load_class_table(dataset))


def _wnid_in_name(name: str) -> str:
    """Returns the WordNet id in n01440764_18.JPEG or in ..._n01440764.JPEG, or ""."""
    stem = name.partition(".")[0]
    match = _LAST_WNID.search(stem) or _FIRST_WNID.match(stem)
    return match[1] if match else ""


def _wnid_or_published(name: str) -> str:
    """Returns the WordNet id in a name, or that of a validation image by its number, or ""."""
    if wnid := _wnid_in_name(name):
        return wnid
    label = val_ground_truth.published_label(name)
    return "" if label is None else _class_table("ilsvrc2012")[label]


def _name_in_class_folder(name: str) -> str:
    """Returns the file name that an image has in class folders.

    Hugging Face appends the WordNet id. WebDataset changes the extension.
    """
    stem = _LAST_WNID.sub("", name.partition(".")[0])
    return f"{stem}.JPEG" if _ILSVRC_STEM.fullmatch(stem) else name


def open_split(
    layout: Layout,
    dataset: str,
    split: str,
    class_names: Sequence[str] = (),
    devkit: str = "",
) -> image_files.ImageFiles | PackedImages:
    """Opens a split of a recognized data set.

    Args:
      layout: the recognized layout.
      dataset: name of the data set, whose class table defines the labels.
      split: "train", "val" or "test".
      class_names: class names of a trained run, which then define the labels; if empty, those of
        the data set.
      devkit: development kit of ILSVRC 2012, or "" to search for one.

    Raises:
      UsageError: there is no such split, or an optional package is not installed.
      DataError: a file is damaged, or the labels are inconsistent.
    """
    place = layout.splits.get(split)
    if place is None:
        found = ", ".join(layout.splits)
        raise UsageError(f"{layout.root}: no images of the {split} split; found {found}")
    images = _open_place(layout, place, dataset, split, tuple(class_names), devkit)
    logging.info(
        "%s: %s of %d of %s in %s (%s); labels from %s",
        *(split, pluralize(len(images.labels), "image"), len(np.unique(images.labels))),
        *(pluralize(len(images.class_names), "class"), place.kind, place.folder, images.rule),
    )
    return images


def _open_place(
    layout: Layout,
    place: SplitFiles,
    dataset: str,
    split: str,
    class_names: tuple[str, ...],
    devkit: str,
) -> image_files.ImageFiles | PackedImages:
    known = class_names or _class_table(dataset)
    if not known and split != "train" and "train" in layout.splits:
        known = open_split(layout, dataset, "train").class_names
    if place.kind == FOLDERS:
        known = known or tuple(image_folders.list_subfolders(place.folder))
        return image_files.from_folders(place.folder.parent, place.folder.name, known)
    if place.kind in (INNER_FOLDERS, ANNOTATED):
        known = known or tuple(image_folders.list_subfolders(place.folder))
        return _open_tiny_imagenet(place, known)
    if place.kind == FLAT:
        return _open_flat(layout, place, split, known, devkit)
    images = _open_packed(layout, place, dataset, split, devkit)
    if not known or known == images.class_names:
        return images
    labels = manifest.remap_labels(images.labels, images.class_names, known, place.folder)
    return dataclasses.replace(images, labels=labels, class_names=known)


def open_test_set(
    data_dir: str | os.PathLike[str], class_names: Sequence[str]
) -> image_files.ImageFiles | None:
    """Opens a folder that has class folders but no splits, as a set to evaluate a run on.

    ImageNet-A, ImageNet-R and ImageNet-Sketch have a folder for each WordNet id. ImageNet-V2 has
    the folders 0 to 999, which are the numbers of the sorted WordNet ids.

    Args:
      data_dir: the folder.
      class_names: class names of the run by label.

    Returns:
      The images, or None if the folders are not classes of the run.
    """
    folder = pathlib.Path(os.path.realpath(data_dir))
    folders = set(image_folders.list_subfolders(folder)) if folder.is_dir() else set()
    numbers = [str(label) for label in range(len(class_names))]
    is_numbered = tuple(class_names) == _class_table("ilsvrc2012") and folders <= set(numbers)
    if not folders or not (is_numbered or folders <= set(class_names)):
        return None
    names = numbers if is_numbered else class_names
    files = image_files.from_folders(folder.parent, folder.name, names)
    logging.info(
        "%s: %s in %d of %s, by the %s of its folders",
        *(folder, pluralize(len(files.labels), "image"), len(folders)),
        *(pluralize(len(class_names), "class"), "numbers" if is_numbered else "names"),
    )
    return dataclasses.replace(files, class_names=tuple(class_names))


def _open_tiny_imagenet(place: SplitFiles, classes: tuple[str, ...]) -> image_files.ImageFiles:
    """Opens train/CLASS/images/*, or val/images/* with a table of `file class ...` lines."""
    folder, pairs = place.folder, []
    if place.kind == ANNOTATED:
        data = regular_files.read_bytes(folder / _ANNOTATIONS, _MAX_ANNOTATION_BYTES)
        lines = data.decode(errors="replace").splitlines()
        table = dict(line.split()[:2] for line in lines if len(line.split()) >= 2)
        images = image_folders.list_regular_images(folder / "images")
        pairs = [(table[name], f"images/{name}") for name in images if name in table]
        unlabeled = [str(folder / "images" / name) for name in images if name not in table]
    else:
        unlabeled = []
        for name in image_folders.list_subfolders(folder):
            images = image_folders.list_regular_images(folder / name / "images")
            pairs += [(name, f"{name}/images/{image}") for image in images]
    number = {name: label for label, name in enumerate(classes)}
    if unknown := sorted({name for name, _ in pairs} - number.keys()):
        raise DataError(f"{folder}: {unknown[0]} is not one of the {len(classes)} known classes")
    if not pairs:
        raise DataError(f"{folder}: no image in {place.kind}")
    labeled = sorted((number[name], f"{folder.name}/{path}") for name, path in pairs)
    labels = np.array([label for label, _ in labeled], np.int32)
    return image_files.ImageFiles(
        str(folder.parent),
        path_table.from_names([path for _, path in labeled], labels),
        labels,
        classes,
        rule=_ANNOTATIONS if place.kind == ANNOTATED else "class folders",
        unlabeled=tuple(unlabeled),
    )


def _open_flat(
    layout: Layout, place: SplitFiles, split: str, known: tuple[str, ...], devkit: str
) -> image_files.ImageFiles:
    """Opens a folder of images whose names or numbers give their classes."""
    names = image_folders.list_regular_images(place.folder)
    labeled = _label_by_name(names, known or _class_table("ilsvrc2012"), layout.root, devkit)
    order = sorted(
        np.flatnonzero(labeled.labels >= 0).tolist(),
        key=lambda i: (labeled.labels[i], labeled.names[i]),
    )
    if not order:
        raise DataError(f"{place.folder}: no image has a known class")
    labels = labeled.labels[order]
    paths = [f"{place.folder.name}/{names[i]}" for i in order]
    in_class_folders = [
        _path_in_class_folder(split, labeled.classes[labeled.labels[i]], labeled.names[i])
        for i in order
    ]
    return image_files.ImageFiles(
        str(place.folder.parent),
        path_table.from_names(paths, labels),
        labels,
        labeled.classes,
        rule=labeled.rule,
        lines=path_table.from_names(in_class_folders, labels).lines,
        unlabeled=tuple(
            str(place.folder / names[i]) for i in np.flatnonzero(labeled.labels < 0).tolist()
        ),
    )


def _path_in_class_folder(split: str, class_name: str, name: str) -> str:
    return f"{split}/{class_name}/{name}"


def _label_by_name(
    names: Sequence[str], classes: tuple[str, ...], root: pathlib.Path, devkit: str
) -> Labels:
    """Labels images by the WordNet ids in their names, or by their numbers in the val split."""
    number = {wnid: label for label, wnid in enumerate(classes)}
    wnids = [_wnid_in_name(name) for name in names]
    rule = "WordNet ids in the names"
    ground_truth: dict[str, int] = {}
    table = _class_table("ilsvrc2012")
    if not all(wnids):
        ground_truth, rule = val_ground_truth.find(root, devkit, table)
    in_folders = [_name_in_class_folder(name) for name in names]
    labels = np.full(len(names), -1, np.int32)
    for i, (wnid, name) in enumerate(zip(wnids, in_folders, strict=True)):
        if not wnid and name in ground_truth:
            wnid = table[ground_truth[name]]
        if wnid:
            if wnid not in number:
                raise DataError(
                    f"{root}: {names[i]} is of {wnid}, not one of the {len(classes)} known classes"
                )
            labels[i] = number[wnid]
    return Labels(classes, labels, in_folders, rule)


def _open_packed(
    layout: Layout, place: SplitFiles, dataset: str, split: str, devkit: str
) -> PackedImages:
    """Opens a split of tar files, TFRecords or Parquet files."""
    files: Sequence[pathlib.Path] = place.files
    storage = packed_images.TAR
    metadata_names: tuple[str, ...] = ()
    scan: Callable[[pathlib.Path], list[Entry]] = tar_files.list_webdataset
    if place.kind == TAR:
        scan = tar_files.list_images
    elif place.kind == RECORDS:
        feature = foreign_records.list_images(files[0], 1)[1]
        storage = f"{packed_images.RECORD}:{feature}"
        scan = lambda path: foreign_records.list_images(path)[0]  # noqa: E731
    elif place.kind == PARQUET:
        columns = parquet_files.find_columns(files[0])
        storage, metadata_names = f"{packed_images.PARQUET}:{columns.image}", columns.class_names
        scan = functools.partial(_list_parquet_rows, columns=columns)

    def list_parts() -> Iterator[Part]:
        for number, path in enumerate(files):
            yield Part(path.name, number, functools.partial(scan, path))

    parts: Callable[[], Iterable[Part]] = list_parts
    if place.kind == NESTED_TAR:
        parts = functools.partial(_list_nested_parts, files[0])
    elif place.kind == CLASS_TARS:
        files, parts = _list_class_tars(place.folder)
    known = _class_table(dataset)

    def find_labels(entries: Sequence[Entry]) -> Labels:
        return _label_entries(entries, split, known, metadata_names, layout.root, devkit)

    return packed_images.open_indexed(
        layout.root, f"{dataset}-{split}", storage, files, parts, find_labels
    )


def _list_parquet_rows(path: pathlib.Path, columns: parquet_files.Columns) -> list[Entry]:
    return [
        Entry(
            os.path.basename(row.name) or f"{path.name}-{number:06d}",
            "",
            row.number,
            row.offset,
            row.size,
            row.place,
        )
        for number, row in enumerate(parquet_files.list_rows(path, columns))
    ]


def _list_nested_parts(path: pathlib.Path) -> Iterator[Part]:
    """Yields the class tar files in ILSVRC2012_img_train.tar."""
    for member in tar_files.list_members(path):
        name = os.path.basename(member.name)
        if name.endswith(".tar"):
            scan = functools.partial(tar_files.list_images, path, name[:-4], member.offset)
            yield Part(name, 0, scan)


def _list_class_tars(
    folder: pathlib.Path,
) -> tuple[list[pathlib.Path], Callable[[], Iterable[Part]]]:
    """Returns class tar files and the images of other class folders, and their parts.

    A class can exist as both if unpacking was interrupted. Only the tar file is complete then.
    """
    tars = sorted(folder.glob("n*.tar"))
    parts = [
        Part(path.name, number, functools.partial(tar_files.list_images, path, path.stem))
        for number, path in enumerate(tars)
    ]
    files = [*tars]
    for name in image_folders.list_subfolders(folder):
        if folder / f"{name}.tar" in tars:
            continue
        for image in image_folders.list_regular_images(folder / name):
            path = folder / name / image
            scan = functools.partial(_list_single_image, path, name)
            parts.append(Part(f"{name}/{image}", len(files), scan))
            files.append(path)
    return files, lambda: parts


def _list_single_image(path: pathlib.Path, class_name: str) -> list[Entry]:
    return [Entry(path.name, class_name, -1, 0, os.path.getsize(path))]


def _label_entries(
    entries: Sequence[Entry],
    split: str,
    known: tuple[str, ...],
    metadata_names: tuple[str, ...],
    root: pathlib.Path,
    devkit: str,
) -> Labels:
    """Labels the images of tar, TFRecord or Parquet files.

    The name of the class decides, or the WordNet id in the name of the file. Otherwise the number
    of the class does. Numbers start at 1 if they do so where the class is known.

    Args:
      entries: what the files say.
      split: name of the split.
      known: class names of the data set by label, or ().
      metadata_names: class names by number that the files contain, or ().
      root: folder of the data set.
      devkit: see `open_split`.
    """
    names = [_name_in_class_folder(entry.name) for entry in entries]
    wnids = [entry.wnid or _wnid_in_name(entry.name) for entry in entries]
    if metadata_names:
        _require_numbers_below(len(metadata_names), [e.number for e in entries], entries, root)
    if metadata_names and set(metadata_names) <= set(known):  # perhaps in another order
        names_of_numbers = dict(enumerate(metadata_names))
        wnids = [names_of_numbers.get(entry.number, "") for entry in entries]
    numbers = np.array([entry.number for entry in entries], np.int64)
    if not (numbers >= 0).any() and not all(wnids):
        if not known:
            raise DataError(f"{root}: the images of the {split} split have no classes")
        found = _label_by_name([entry.name for entry in entries], known, root, devkit)
        return found._replace(names=_add_class_folders(split, found.classes, found.labels, names))
    classes = known or metadata_names
    if not classes:
        classes = tuple(sorted(set(wnids))) if all(wnids) else ()
    if not classes:
        classes = tuple(map(str, range(int(numbers.max(initial=-1)) + 1)))
    number = {wnid: label for label, wnid in enumerate(classes)}
    by_name = np.array([number.get(wnid, -1) for wnid in wnids], np.int64)
    unknown = [w for w, label in zip(wnids, by_name, strict=True) if w and label < 0]
    if unknown and known:
        raise DataError(
            f"{root}: {unknown[0]} is not one of the {len(classes)} known classes"
            f" ({pluralize(len(set(unknown)), 'such class')} in the {split} split)"
        )
    first, rule = _first_number(numbers, by_name, root, entries, len(classes))
    labels = np.where(by_name >= 0, by_name, np.where(numbers >= 0, numbers - first, -1))
    _require_numbers_below(len(classes), labels, entries, root, first)
    return Labels(
        classes, labels.astype(np.int32), _add_class_folders(split, classes, labels, names), rule
    )


def _require_numbers_below(
    num_classes: int,
    labels: Sequence[int] | np.ndarray,
    entries: Sequence[Entry],
    root: pathlib.Path,
    first: int = 0,
) -> None:
    """Raises DataError if a label is too large for the number of classes."""
    too_large = np.flatnonzero(np.asarray(labels) >= num_classes)
    if too_large.size:
        entry = entries[too_large[0]]
        raise DataError(
            f"{root}: {entry.name} has class number {entry.number}, but there are {num_classes}"
            f" classes, with numbers from {first}"
        )


def _add_class_folders(
    split: str, classes: Sequence[str], labels: np.ndarray, names: Sequence[str]
) -> list[str]:
    return [
        _path_in_class_folder(split, classes[label], name) if label >= 0 else name
        for label, name in zip(labels.tolist(), names, strict=True)
    ]


def _first_number(
    numbers: np.ndarray,
    by_name: np.ndarray,
    root: pathlib.Path,
    entries: Sequence[Entry],
    num_classes: int,
) -> tuple[int, str]:
    """Returns the number of the first class, and the rule that gives the labels.

    Raises:
      DataError: the numbers contradict the class names.
    """
    both = (numbers >= 0) & (by_name >= 0)
    if not both.any():
        if (numbers < 0).all():
            return 0, "class names"
        # Without names, only the range can tell. 0 is "background" where numbers start at 1.
        first = int(numbers.max() == num_classes and numbers[numbers >= 0].min() >= 1)
        return first, f"class numbers from {first}"
    shifts = numbers[both] - by_name[both]
    first = int(shifts[0])
    if (shifts == first).all() and first in (0, 1):
        return first, f"class names, which agree with class numbers from {first}"
    if len(set(zip(numbers[both], by_name[both], strict=True))) > len(set(numbers[both].tolist())):
        which = int(np.flatnonzero(both)[np.argmax(shifts != first)])
        raise DataError(
            f"{root}: inconsistent labels: {entries[which].name} has class number"
            f" {entries[which].number}, but its class name is number {by_name[which]}"
        )
    if (nameless := np.flatnonzero((numbers >= 0) & (by_name < 0))).size:
        raise DataError(
            f"{root}: inconsistent labels: {entries[nameless[0]].name} has a class number and no"
            " class name, and the class numbers have another order than the names"
        )
    return 0, "class names; the class numbers have another order"
