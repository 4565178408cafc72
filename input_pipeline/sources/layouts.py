"""Recognizes the layouts in which people have ImageNet and similar data sets.

A layout is recognized by the names of its folders and files. Some have no class folders: flat
folders, tar files, TFRecords and Parquet. Their images get the names and the order that they have
in class folders, so every layout of a data set gives the same labels and batches.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

from absl import logging

from input_pipeline import datasets
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import (
    array_records,
    csv_lists,
    foreign_records,
    image_folders,
    manifest,
    packed_images,
    parquet_files,
    tar_files,
    val_ground_truth,
)

FOLDERS = "class folders"
INNER_FOLDERS = "the folders `images` of class folders"
PART_FOLDERS = "the parts of class folders"
CSV_LISTED = "a folder `images` with CSV files"
FLAT = "a flat folder"
ANNOTATED = "a folder with val_annotations.txt"
CLASS_TARS = "class tar files"
NESTED_TAR = "a tar file of class tar files"
TAR = "a tar file"
WEBDATASET = "WebDataset tar files"
RECORDS = "TFRecord files"
PARQUET = "Parquet files"
ARRAY_RECORDS = "ArrayRecord files"

SPLIT_NAMES = {
    "train": ("train", "ilsvrc2012_img_train", "training"),
    "val": ("val", "ilsvrc2012_img_val", "validation", "valid"),
    "test": ("test", "testing"),
}
SPLIT_ALIASES = frozenset(alias for names in SPLIT_NAMES.values() for alias in names)
ILSVRC_TARS = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
# Folders below the one that a user names, where the splits can be: of Kaggle, Hugging Face, TFDS.
_INNER_FOLDERS = (
    *("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC"),
    *("data", "[0-9]*.[0-9]*.[0-9]*", "imagenet2012/[0-9]*.[0-9]*.[0-9]*"),
)
_SHARDS = {
    WEBDATASET: re.compile(r"\.tar$"),
    PARQUET: re.compile(r"\.parquet$"),
    ARRAY_RECORDS: re.compile(r"\.array_record(-\d+-of-\d+)?$"),
    RECORDS: re.compile(r"\.tfrec(ord)?s?$|\.tfrecord-\d+-of-\d+$|^[^.]*-\d{5}-of-\d{5}$"),
}
# What is recognized but cannot be read in place: names of files, what they are, and what to do.
_UNREADABLE = (
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
        r"^(train_data_batch_\d+|train_data|val_data)\.npz$",
        "arrays of downsampled ImageNet, which are no image files",
        "prepare the full images with --mode=prepare --short_side=64",
    ),
    (
        r"\.(lmdb|mdb|h5|hdf5)$",
        "a database",
        "write its images to class folders, DIR/train/CLASS/NAME.jpg, and name that folder",
    ),
)
_COMPRESSED = re.compile(r"(?!.*devkit)(?:(train|val|test)_images)?.*\.(tar\.gz|tgz)")
_ILSVRC_STEM = re.compile(r"n\d{8}_\d+|ILSVRC2012_(val|test)_\d{8}")
_LAST_WNID = re.compile(r"_(n\d{8})$")
_FIRST_WNID = re.compile(r"(n\d{8})_")
_NUM_PROBED = 100
ANNOTATIONS = "val_annotations.txt"


@dataclasses.dataclass(frozen=True)
class SplitFiles:
    """Where the images of a split are.

    Attributes:
      kind: one of the constants of this module.
      folder: folder of the split or of its files.
      files: the files, or the folders of PART_FOLDERS; not of FOLDERS or FLAT.
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
    candidates = _list_candidates(folder)
    for root in candidates:
        if splits := _find_splits(root):
            return Layout(_guess_dataset(root, splits), root, splits)
    for root in candidates:
        if archives := _list_compressed(root):
            raise UsageError(
                f"--data_dir={data_dir}: {archives[0].name} is a compressed tar file, which allows"
                f" no random access; run --mode=prepare --data_dir={data_dir} --out=DIR, then"
                " give --data_dir=DIR"
            )
        for name in sorted(_list_names(root)):
            for pattern, what, remedy in _UNREADABLE:
                if re.search(pattern, name):
                    raise UsageError(f"--data_dir={data_dir}: {name} is one of {what}; {remedy}")
    return None


def find_whole(data_dir: str | os.PathLike[str]) -> tuple[pathlib.Path, str, SplitFiles] | None:
    """Returns the data set that a folder is one split of: its folder, the split and its images.

    Returns None for a folder that is no split of another, or that contains splits itself.
    """
    folder = pathlib.Path(os.path.abspath(data_dir))
    if folder.name.lower() not in SPLIT_ALIASES or recognize(folder) is not None:
        return None
    layout = recognize(folder.parent)
    splits = layout.splits.items() if layout and len(layout.splits) > 1 else ()
    return next(((folder.parent, split, p) for split, p in splits if p.folder == folder), None)


def find_compressed(data_dir: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Returns the compressed tar files of a data set that has nothing else to read.

    A folder with subfolders has: they may be classes.
    """
    folder = pathlib.Path(data_dir)
    if not data_dir or not folder.is_dir() or manifest.exists(folder):
        return []
    candidates = _list_candidates(folder)
    if any(map(_find_splits, candidates)):
        return []
    return next(filter(None, map(_list_compressed, candidates)), [])


def split_of_compressed(name: str) -> str:
    """Returns the split of the images in one of Hugging Face's compressed tar files, or ""."""
    match = _COMPRESSED.fullmatch(name)
    return (match[1] or "") if match else ""


def _list_compressed(root: pathlib.Path) -> list[pathlib.Path]:
    with os.scandir(root) as entries:
        folders = [entry.name for entry in entries if entry.is_dir()]
        if not all(name.startswith(".") or "devkit" in name for name in folders):
            return []
    return [root / name for name in sorted(_list_names(root)) if _COMPRESSED.fullmatch(name)]


def _list_candidates(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders that may contain the splits."""
    inner = [path for name in _INNER_FOLDERS for path in sorted(folder.glob(name), reverse=True)]
    return [folder, *(path for path in inner if path.is_dir())]


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
        parts = [n for n in names if re.fullmatch(rf"({'|'.join(aliases)})\.x\d*", n.lower())]
        if place is None and parts:  # ImageNet-100 of Kaggle
            place = SplitFiles(PART_FOLDERS, root, tuple(root / name for name in parts))
        if split == "test" and place is not None and not _has_labels(place):
            _warn_of_unlabeled(place.files[0])
            continue
        if place is not None:
            splits[split] = place
    return splits or _find_csv_splits(root, names)


def _find_csv_splits(root: pathlib.Path, names: Sequence[str]) -> dict[str, SplitFiles]:
    """Finds train.csv, val.csv and test.csv of the images in a folder `images`.

    The CSV files of Ravi and Larochelle (2017) have disjoint classes, for few-shot learning. For
    classification, their images are pooled and split by name.
    """
    paths = {split: root / f"{split}.csv" for split in SPLIT_NAMES if f"{split}.csv" in names}
    if "images" not in names:
        return {}
    for split, path in list(paths.items()):
        if not csv_lists.has_labels(path):
            _warn_of_unlabeled(paths.pop(split))
    if not paths:
        return {}
    classes = [{label for _, label in csv_lists.read(path)} for path in paths.values()]
    if len(classes) > 1 and len(set().union(*classes)) == sum(map(len, classes)):
        return {split: SplitFiles(CSV_LISTED, root, (*paths.values(),)) for split in SPLIT_NAMES}
    return {split: SplitFiles(CSV_LISTED, root, (path,)) for split, path in paths.items()}


@functools.cache  # once, although a layout is recognized several times
def _warn_of_unlabeled(path: pathlib.Path) -> None:
    logging.warning("%s: no image in it has a label; it is left out", path)


def _has_labels(place: SplitFiles) -> bool:
    """Returns whether the images of a test split have labels. Published ones often have none."""
    if place.kind not in _SHARDS:
        return True
    try:
        entries = _probe(place)
    except parquet_files.NoColumnsError:
        return False
    except DataError:  # a damaged file, which is reported when it is opened
        return True
    return any(_wnid_or_published(e.name) or _class_name(e) or e.number >= 0 for e in entries)


def _probe(place: SplitFiles) -> Sequence[packed_images.Entry | parquet_files.Row]:
    """Returns the first images of tar, TFRecord or Parquet files; of tar files, labeled ones."""
    first = place.files[0]
    if place.kind == PARQUET:
        columns = parquet_files.find_columns(first)
        return [*parquet_files.list_rows(first, columns, _NUM_PROBED)]
    if place.kind == RECORDS:
        return foreign_records.list_images(first, _NUM_PROBED)[0]
    if place.kind == ARRAY_RECORDS:
        return list_array_records(first, _NUM_PROBED)[0]
    return tar_files.list_webdataset(first, _NUM_PROBED)


def _class_name(entry: packed_images.Entry | parquet_files.Row) -> str:
    return entry.wnid if isinstance(entry, packed_images.Entry) else ""


def _find_in_folder(split: str, folder: pathlib.Path) -> SplitFiles | None:
    """Finds out what the folder of a split contains."""
    probed = _list_names(folder, _NUM_PROBED)
    if any(re.fullmatch(r"n\d{8}\.tar", name) for name in probed):
        return SplitFiles(CLASS_TARS, folder)
    folders = [name for name in probed if (folder / name).is_dir()]
    if folders == ["images"]:  # the test images of Tiny ImageNet have no labels
        return SplitFiles(ANNOTATED, folder) if (folder / ANNOTATIONS).exists() else None
    if folders:
        has_inner = (folder / folders[0] / "images").is_dir()
        return SplitFiles(INNER_FOLDERS if has_inner else FOLDERS, folder)
    if place := _find_files(split, folder, probed, is_of_split=True):
        return place
    if any(map(_wnid_or_published, probed)):
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
    if ILSVRC_TARS.get(split) in names:
        kind = NESTED_TAR if split == "train" else TAR
        return SplitFiles(kind, folder, (folder / ILSVRC_TARS[split],))
    word = re.compile(rf"(^|[-_.])({'|'.join(SPLIT_NAMES[split])})([-_.]|$)", re.IGNORECASE)
    for kind, pattern in _SHARDS.items():
        if any(pattern.search(name) for name in names):
            shards = [
                folder / name
                for name in sorted(_list_names(folder))
                if pattern.search(name) and (is_of_split or word.search(name))
            ]
            shards = [path for path in shards if path.name not in ILSVRC_TARS.values()]
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
    is_complete = place.kind in (FOLDERS, INNER_FOLDERS, PART_FOLDERS, CSV_LISTED, ANNOTATED)
    for dataset in ("ilsvrc2012", "mini_imagenet"):
        if names == set(datasets.load_wnids(dataset)):
            return dataset
    if names and not is_complete and names <= set(datasets.load_wnids("ilsvrc2012")):
        return "ilsvrc2012"
    return "folder"


def _peek_classes(place: SplitFiles) -> Iterable[str]:
    """Returns names of classes of a split: all of class folders, some of other kinds."""
    if place.kind in (FOLDERS, INNER_FOLDERS):
        return image_folders.list_subfolders(place.folder)
    if place.kind == PART_FOLDERS:
        return [name for part in place.files for name in image_folders.list_subfolders(part)]
    if place.kind == CSV_LISTED:
        return {label for path in place.files for _, label in csv_lists.read(path)}
    if place.kind == ANNOTATED:
        return ()
    first = place.files[0]
    if place.kind in (RECORDS, ARRAY_RECORDS) and first.name.startswith("imagenet2012-"):
        return datasets.load_wnids("ilsvrc2012")
    entries = _probe(place)
    found = [_class_name(e) or _wnid_or_published(e.name) or e.name for e in entries]
    names = parquet_files.find_columns(first).class_names if place.kind == PARQUET else ()
    if not names:
        return found
    # Hugging Face numbers the classes of ImageNet by their English names.
    table = datasets.load_class_table("ilsvrc2012")
    if len(names) == len(table):
        pairs = zip(names, (english for _, english in table), strict=True)
        equal = [a.partition(",")[0].lower() == b.partition(",")[0].lower() for a, b in pairs]
        if 2 * sum(equal) > len(names) or all(_wnid_or_published(e.name) for e in entries):
            return datasets.load_wnids("ilsvrc2012")
    return names


def list_array_records(
    path: pathlib.Path, limit: int | None = None
) -> tuple[list[packed_images.Entry], str]:
    """Returns the images of an ArrayRecord file, and the feature that holds them."""
    records = array_records.list_records(path, foreign_records.IMAGE_FEATURES, limit)
    entries, image_features = [], set()
    for number, (features, image, size) in enumerate(records):
        image_features.add(image)
        place = packed_images.NOT_ALONE
        entries.append(foreign_records.make_entry(features, path, number, number, size, place))
    if len(image_features) > 1:
        raise DataError(f"{path}: records have different features: {', '.join(image_features)}")
    return entries, "".join(image_features)


def wnid_in_name(name: str) -> str:
    """Returns the WordNet id in n01440764_18.JPEG or in ..._n01440764.JPEG, or ""."""
    stem = name.partition(".")[0]
    match = _LAST_WNID.search(stem) or _FIRST_WNID.match(stem)
    return match[1] if match else ""


def _wnid_or_published(name: str) -> str:
    """Returns the WordNet id in a name, or that of a validation image by its number, or ""."""
    if wnid := wnid_in_name(name):
        return wnid
    label = val_ground_truth.published_label(name)
    return "" if label is None else datasets.load_wnids("ilsvrc2012")[label]


def name_in_class_folder(name: str) -> str:
    """Returns the file name that an image has in class folders.

    Hugging Face appends the WordNet id. WebDataset changes the extension.
    """
    stem = _LAST_WNID.sub("", name.partition(".")[0])
    return f"{stem}.JPEG" if _ILSVRC_STEM.fullmatch(stem) else name
