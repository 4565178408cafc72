"""Opens the splits of a layout that `layouts` has recognized."""

import collections
import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from absl import logging

from input_pipeline import datasets
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import (
    csv_lists,
    folder_splits,
    foreign_records,
    image_files,
    image_folders,
    layouts,
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

_MAX_ANNOTATION_BYTES = 2**26


def open_split(
    layout: layouts.Layout,
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
    layout: layouts.Layout,
    place: layouts.SplitFiles,
    dataset: str,
    split: str,
    class_names: tuple[str, ...],
    devkit: str,
) -> image_files.ImageFiles | PackedImages:
    known = class_names or datasets.load_wnids(dataset)
    if not known and split != "train" and "train" in layout.splits:
        known = open_split(layout, dataset, "train").class_names
    if place.kind == layouts.FOLDERS:
        known = known or tuple(image_folders.list_subfolders(place.folder))
        return image_files.from_folders(place.folder.parent, place.folder.name, known)
    if place.kind in (layouts.INNER_FOLDERS, layouts.ANNOTATED):
        known = known or tuple(image_folders.list_subfolders(place.folder))
        return _open_tiny_imagenet(place, known)
    if place.kind == layouts.PART_FOLDERS:
        return _open_part_folders(place, split, known)
    if place.kind == layouts.CSV_LISTED:
        return _open_csv_listed(place, split, known)
    if place.kind == layouts.FLAT:
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
    is_numbered = tuple(class_names) == datasets.load_wnids("ilsvrc2012") and folders <= set(
        numbers
    )
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


def _open_part_folders(
    place: layouts.SplitFiles, split: str, known: tuple[str, ...]
) -> image_files.ImageFiles:
    """Opens train.X1/CLASS/*, train.X2/CLASS/* and so on."""
    folders = [
        f"{part.name}/{name}"
        for part in place.files
        for name in image_folders.list_subfolders(part)
    ]
    classes = known or tuple(sorted({folder.partition("/")[2] for folder in folders}))
    images_of_folder = image_files.list_class_folders(place.folder, folders)
    named = [
        (folder.partition("/")[2], f"{folder}/{image}")
        for folder, images in images_of_folder.items()
        for image in images
    ]
    return _from_named_classes(place, split, classes, named)


def _open_csv_listed(
    place: layouts.SplitFiles, split: str, known: tuple[str, ...]
) -> image_files.ImageFiles:
    """Opens the images of CSV files; those of few-shot splits are split by name."""
    rows = [row for path in place.files for row in csv_lists.read(path)]
    if len(place.files) > 1:
        names_of_class = collections.defaultdict(list)
        for image, label in rows:
            names_of_class[label].append(image)
        rows = [
            (image, label)
            for label, names in names_of_class.items()
            for image in folder_splits.split_by_name(names)[split]
        ]
    classes = known or tuple(sorted({label for _, label in rows}))
    named = [(label, f"images/{image}") for image, label in rows]
    images = _from_named_classes(place, split, classes, named)
    if (index := image_files.find_irregular(images.root, images.paths)) is not None:
        raise DataError(f"{images.path(index)}: is a pipe, device or socket; remove its row")
    return images


def _from_named_classes(
    place: layouts.SplitFiles,
    split: str,
    classes: tuple[str, ...],
    named: Sequence[tuple[str, str]],
) -> image_files.ImageFiles:
    """Opens images by (class name, path below the folder), in the order of class folders."""
    image_folders.require_known_classes(place.folder, {name for name, _ in named}, classes)
    number = {name: label for label, name in enumerate(classes)}
    ordered = sorted((number[name], os.path.basename(path), path) for name, path in named)
    if not ordered:
        raise DataError(f"{place.folder}: no image in {place.kind} of the {split} split")
    labels = np.array([label for label, _, _ in ordered], np.int32)
    in_class_folders = [
        _path_in_class_folder(split, classes[label], name) for label, name, _ in ordered
    ]
    return image_files.ImageFiles(
        str(place.folder),
        path_table.from_names([path for _, _, path in ordered], labels),
        labels,
        classes,
        rule="CSV files" if place.kind == layouts.CSV_LISTED else "class folders",
        lines=path_table.from_names(in_class_folders, labels).lines,
    )


def _open_tiny_imagenet(
    place: layouts.SplitFiles, classes: tuple[str, ...]
) -> image_files.ImageFiles:
    """Opens train/CLASS/images/*, or val/images/* with a table of `file class ...` lines."""
    folder, pairs = place.folder, []
    if place.kind == layouts.ANNOTATED:
        data = regular_files.read_bytes(folder / layouts.ANNOTATIONS, _MAX_ANNOTATION_BYTES)
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
    image_folders.require_known_classes(folder, {name for name, _ in pairs}, classes)
    if not pairs:
        raise DataError(f"{folder}: no image in {place.kind}")
    labeled = sorted((number[name], f"{folder.name}/{path}") for name, path in pairs)
    labels = np.array([label for label, _ in labeled], np.int32)
    return image_files.ImageFiles(
        str(folder.parent),
        path_table.from_names([path for _, path in labeled], labels),
        labels,
        classes,
        rule=layouts.ANNOTATIONS if place.kind == layouts.ANNOTATED else "class folders",
        unlabeled=tuple(unlabeled),
    )


def _open_flat(
    layout: layouts.Layout,
    place: layouts.SplitFiles,
    split: str,
    known: tuple[str, ...],
    devkit: str,
) -> image_files.ImageFiles:
    """Opens a folder of images whose names or numbers give their classes."""
    names = image_folders.list_regular_images(place.folder)
    labeled = _label_by_name(names, known or datasets.load_wnids("ilsvrc2012"), layout.root, devkit)
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
    wnids = [layouts.wnid_in_name(name) for name in names]
    rule = "WordNet ids in the names"
    ground_truth: dict[str, int] = {}
    table = datasets.load_wnids("ilsvrc2012")
    if not all(wnids):
        ground_truth, rule = val_ground_truth.find(root, devkit, table)
    in_folders = [layouts.name_in_class_folder(name) for name in names]
    labels = np.full(len(names), -1, np.int32)
    for i, (wnid, name) in enumerate(zip(wnids, in_folders, strict=True)):
        if not wnid and name in ground_truth:
            wnid = table[ground_truth[name]]
        if wnid:
            if wnid not in number:
                image_folders.require_known_classes(f"{root}: {names[i]}", {wnid}, classes)
            labels[i] = number[wnid]
    return Labels(classes, labels, in_folders, rule)


def _open_packed(
    layout: layouts.Layout, place: layouts.SplitFiles, dataset: str, split: str, devkit: str
) -> PackedImages:
    """Opens a split of tar files, TFRecords or Parquet files."""
    files: Sequence[pathlib.Path] = place.files
    storage = packed_images.TAR
    metadata_names: tuple[str, ...] = ()
    scan: Callable[[pathlib.Path], list[Entry]] = tar_files.list_webdataset
    if place.kind == layouts.TAR:
        scan = tar_files.list_images
    elif place.kind == layouts.RECORDS:
        feature = foreign_records.list_images(files[0], 1)[1]
        storage = f"{packed_images.RECORD}:{feature}"
        scan = lambda path: foreign_records.list_images(path)[0]  # noqa: E731
    elif place.kind == layouts.ARRAY_RECORDS:
        feature = layouts.list_array_records(files[0], 1)[1]
        storage = f"{packed_images.ARRAY_RECORD}:{feature}"
        scan = lambda path: layouts.list_array_records(path)[0]  # noqa: E731
    elif place.kind == layouts.PARQUET:
        columns = parquet_files.find_columns(files[0])
        storage, metadata_names = f"{packed_images.PARQUET}:{columns.image}", columns.class_names
        scan = functools.partial(_list_parquet_rows, columns=columns)

    def list_parts() -> Iterator[Part]:
        for number, path in enumerate(files):
            yield Part(path.name, number, functools.partial(scan, path))

    parts: Callable[[], Iterable[Part]] = list_parts
    if place.kind == layouts.NESTED_TAR:
        parts = functools.partial(_list_nested_parts, files[0])
    elif place.kind == layouts.CLASS_TARS:
        files, parts = _list_class_tars(place.folder)
    known = datasets.load_wnids(dataset)

    def find_labels(entries: Sequence[Entry]) -> Labels:
        return _label_entries(entries, split, known, metadata_names, layout.root, devkit)

    label_facts = ""
    if place.kind == layouts.TAR:  # the labels are in other files, which may have changed
        truth, _ = val_ground_truth.find(layout.root, devkit, known)
        label_facts = hashlib.sha256(repr(sorted(truth.items())).encode()).hexdigest()
    return packed_images.open_indexed(
        layout.root, f"{dataset}-{split}", storage, files, parts, find_labels, label_facts
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
    names = [layouts.name_in_class_folder(entry.name) for entry in entries]
    wnids = [entry.wnid or layouts.wnid_in_name(entry.name) for entry in entries]
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
    if known:
        image_folders.require_known_classes(root, {*wnids} - {""}, known)
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
    pairs = set(zip(numbers[both].tolist(), by_name[both].tolist(), strict=True))
    if len(pairs) > len({number for number, _ in pairs}):
        which = int(np.flatnonzero(both)[np.argmax(shifts != first)])
        raise DataError(
            f"{root}: inconsistent labels: {entries[which].name} has class number"
            f" {entries[which].number}, but its class name is number {by_name[which]}"
        )
    ((label, times),) = collections.Counter(label for _, label in pairs).most_common(1)
    if times > 1:
        which = int(np.flatnonzero(by_name == label)[0])
        raise DataError(
            f"{root}: inconsistent labels: the class name of {entries[which].name} has several"
            " class numbers; give each class its own name"
        )
    if (nameless := np.flatnonzero((numbers >= 0) & (by_name < 0))).size:
        raise DataError(
            f"{root}: inconsistent labels: {entries[nameless[0]].name} has a class number and no"
            " class name, and the class numbers have another order than the names"
        )
    return 0, "class names; the class numbers have another order"
