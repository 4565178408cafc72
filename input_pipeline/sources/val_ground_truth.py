"""Finds the labels of the 50,000 validation images of ILSVRC 2012, which have none in their names.

The published labels are part of this repository. A development kit, Kaggle's table or another
known file next to the images takes precedence, and is compared with the published labels.

The development kit numbers the classes from 1 in a separate order. This project uses the sorted
WordNet ids, numbered from 0.
"""

import contextlib
import csv
import functools
import gzip
import io
import lzma
import pathlib
import re
import tempfile
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from input_pipeline import datasets
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import tar_files
from input_pipeline.system import regular_files
from input_pipeline.text import is_number

_IMAGE_NAME = "ILSVRC2012_val_{:08d}.JPEG"
_CLASS_NUMBERS_FILE = "ILSVRC2012_validation_ground_truth.txt"
_SYNSET_FILES = ("imagenet_2012_validation_synset_labels.txt", "validation_synset_labels.txt")
_LABELS_FILE = "ilsvrc2012_val_ground_truth.txt"
_SOLUTION_FILE = "LOC_val_solution.csv"
_DEVKIT_CLASSES_FILE = "devkit_classes.txt"
_MAP_CLSLOC_FILE = "map_clsloc.txt"
_MAX_BYTES = 2**26  # the files of the kit have less than 5 MB
_MAX_DIGITS = 9
_PACKED_KIT = "*devkit*.tar.gz"
# Kaggle's table lies three folders above the images: ILSVRC/Data/CLS-LOC.
_NUM_PARENTS = 3


@functools.cache
def read_published() -> np.ndarray:
    """Returns the published labels, int32 [50000], of the images with the numbers 1 to 50,000."""
    data = lzma.decompress((datasets.LABELS_DIR / "ilsvrc2012_val.xz").read_bytes())
    return np.frombuffer(data, "<u2").astype(np.int32)


def published_label(name: str) -> int | None:
    """Returns the published label of a validation image, from 0 by sorted WordNet id.

    Args:
      name: a file name or stem such as ILSVRC2012_val_00000293.JPEG.

    Returns:
      The label, or None if this is not the name of a validation image.
    """
    match = re.match(r"ILSVRC2012_val_(\d{8})(?!\d)", name)
    number = int(match[1]) if match else 0
    published = read_published()
    return int(published[number - 1]) if 1 <= number <= len(published) else None


def find(root: pathlib.Path, devkit: str, wnids: Sequence[str]) -> tuple[dict[str, int], str]:
    """Finds the labels of a flat val folder.

    Args:
      root: folder of the data set. It and the folders above it are searched.
      devkit: development kit, packed or unpacked, or "" to search for one.
      wnids: WordNet ids by label.

    Returns:
      (dict from file name to label, what they come from).

    Raises:
      UsageError: `--devkit` was given and has no labels.
      DataError: a file is malformed.
    """
    published = {_IMAGE_NAME.format(n): int(k) for n, k in enumerate(read_published(), 1)}
    kit = pathlib.Path(devkit)
    folder, found = (kit, read(kit, wnids)) if devkit else search(root, wnids)
    if folder is None:
        return published, "the published ground truth"
    _warn_of_differences(found, published, folder)
    return found, f"the ground truth in {folder}"


def search(root: pathlib.Path, wnids: Sequence[str]) -> tuple[pathlib.Path | None, dict[str, int]]:
    """Searches a folder, and the folders above it, for labels of a flat val folder.

    Returns:
      (the folder or None, dict from file name to label).

    Raises:
      DataError: a file is malformed.
    """
    for folder in (root, *root.resolve().parents[:_NUM_PARENTS]):
        with contextlib.suppress(UsageError):
            return folder, read(folder, wnids)
    return None, {}


def _warn_of_differences(
    found: Mapping[str, int], published: Mapping[str, int], folder: pathlib.Path
) -> None:
    different = [name for name, label in found.items() if published.get(name, label) != label]
    if different:
        name = different[0]
        logging.warning(
            "%s: %d of %d labels differ from the published ones, which are not used; for example,"
            " %s has label %d, published %d",
            *(folder, len(different), len(found), name, found[name], published[name]),
        )


def read(folder: pathlib.Path, wnids: Sequence[str]) -> dict[str, int]:
    """Finds and reads the ground truth in a folder or its development kit.

    The first existing file of these is used:
      ilsvrc2012_val_ground_truth.txt: `ILSVRC2012_val_00000001.JPEG label` lines, with labels from
        0 by sorted WordNet id.
      *validation_synset_labels.txt: the WordNet id of each image, in order.
      LOC_val_solution.csv of Kaggle: `ImageId,PredictionString` rows; the prediction begins with
        the WordNet id.
      ILSVRC2012_validation_ground_truth.txt: the kit's class number of each image, in order. It
        needs a table of the class numbers, see `read_devkit_classes`. The kit may be packed.

    Args:
      folder: folder to search, or a packed development kit.
      wnids: WordNet ids by label.

    Returns:
      dict from file name to label.

    Raises:
      UsageError: no such file exists.
      DataError: a file is malformed.
    """
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    for name, reader in {
        _LABELS_FILE: _read_labels,
        **dict.fromkeys(_SYNSET_FILES, _read_synsets),
        _SOLUTION_FILE: _read_solution,
        _CLASS_NUMBERS_FILE: _read_class_numbers,
    }.items():
        # The kit is in subfolders: ILSVRC2012_devkit_t12/data. Image folders are not searched.
        for path in (
            folder / name,
            folder / "data" / name,
            *sorted(folder.glob(f"*devkit*/**/{name}")),
        ):
            if path.is_file():
                return reader(path, labels)
    for kit in [folder] if folder.is_file() else sorted(folder.glob(_PACKED_KIT)):
        return _read_packed_kit(kit, labels)
    raise UsageError(
        f"{folder}: contains no {_CLASS_NUMBERS_FILE} for the flat val folder; set --devkit to the"
        " folder of the development kit"
    )


def _read_packed_kit(path: pathlib.Path, labels: dict[str, int]) -> dict[str, int]:
    """Reads the ground truth of a development kit that is a .tar.gz file."""
    wanted = (_CLASS_NUMBERS_FILE, "meta.mat", _MAP_CLSLOC_FILE, _DEVKIT_CLASSES_FILE)
    with tempfile.TemporaryDirectory() as folder:
        unpacked = pathlib.Path(folder, "kit.tar")
        data = _decompress(path)
        unpacked.write_bytes(data)
        try:
            members = tar_files.list_members(unpacked)
        except DataError as error:
            raise DataError(str(error).replace(str(unpacked), str(path))) from None
        for member in members:
            name = pathlib.PurePath(member.name).name
            if name in wanted:
                content = data[member.offset : member.offset + member.size]
                pathlib.Path(folder, name).write_bytes(content)
        if not (ground_truth := pathlib.Path(folder, _CLASS_NUMBERS_FILE)).is_file():
            raise DataError(f"{path}: contains no {_CLASS_NUMBERS_FILE}")
        return _read_class_numbers(ground_truth, labels)


def _decompress(path: pathlib.Path) -> bytes:
    """Returns the content of a .tar.gz file, of which no more than the limit is unpacked."""
    try:
        with regular_files.open_regular(path, _MAX_BYTES) as file, gzip.open(file) as unpacked:
            data = unpacked.read(_MAX_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: is not a complete tar file ({reason})") from None
    if len(data) > _MAX_BYTES:
        raise DataError(f"{path}: has more than {_MAX_BYTES} bytes; unpack the development kit")
    return data


def _read_lines(path: pathlib.Path) -> list[str]:
    # Replaces bytes that are not UTF-8. Such a line is then reported as malformed.
    try:
        data = regular_files.read_bytes(path, _MAX_BYTES)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    text = data.decode("utf-8-sig", "replace")
    return text.removesuffix("\n").split("\n")


def _read_labels(path: pathlib.Path, labels: dict[str, int]) -> dict[str, int]:
    label_of_image = {}
    for number, line in enumerate(_read_lines(path), 1):
        name, _, label = line.rstrip().rpartition(" ")
        is_label = is_number(label) and len(label) <= _MAX_DIGITS
        if not name or not is_label or int(label) >= len(labels):
            raise DataError(f"{path}, line {number}: is not `image label`: {line[:80]!r}")
        label_of_image[pathlib.PurePath(name).name] = int(label)
    return label_of_image


def _read_synsets(path: pathlib.Path, labels: dict[str, int]) -> dict[str, int]:
    label_of_image = {}
    for number, line in enumerate(_read_lines(path), 1):
        if line.strip() not in labels:
            raise DataError(f"{path}, line {number}: is not a known WordNet id: {line[:80]!r}")
        label_of_image[_IMAGE_NAME.format(number)] = labels[line.strip()]
    return label_of_image


def _read_solution(path: pathlib.Path, labels: dict[str, int]) -> dict[str, int]:
    label_of_image = {}
    try:
        rows = list(csv.reader(io.StringIO("\n".join(_read_lines(path)))))
    except csv.Error as error:
        raise DataError(f"{path}: is not a CSV file ({error})") from None
    for number, row in enumerate(rows, 1):
        wnid = row[1].split(" ")[0] if len(row) == 2 else ""
        if wnid in labels:
            label_of_image[f"{row[0]}.JPEG"] = labels[wnid]
        elif number > 1:  # the first row is the header
            raise DataError(
                f"{path}, line {number}: is not `ImageId,PredictionString` with a known WordNet"
                f" id: {','.join(row)[:80]!r}"
            )
    return label_of_image


def _read_class_numbers(path: pathlib.Path, labels: dict[str, int]) -> dict[str, int]:
    wnids = read_devkit_classes(path.parent)
    label_of_image = {}
    for number, line in enumerate(_read_lines(path), 1):
        wnid = wnids.get(line.strip())
        if wnid not in labels:
            raise DataError(f"{path}, line {number}: is not a class number: {line[:80]!r}")
        label_of_image[_IMAGE_NAME.format(number)] = labels[wnid]
    return label_of_image


def read_devkit_classes(folder: pathlib.Path) -> dict[str, str]:
    """Reads the development kit's table of class numbers.

    It is devkit_classes.txt (`number wnid` lines), map_clsloc.txt of later kits (`wnid number name`
    lines), or meta.mat.

    Returns:
      dict from the class number, as str, to the WordNet id.

    Raises:
      UsageError: no such file exists.
      DataError: the file is malformed.
    """
    for name, number_column in ((_DEVKIT_CLASSES_FILE, 0), (_MAP_CLSLOC_FILE, 1)):
        if (folder / name).is_file():
            rows = [line.split() for line in _read_lines(folder / name)]
            if any(len(row) < 2 or not is_number(row[number_column]) for row in rows):
                raise DataError(
                    f"{folder / name}: contains a line without a class number and a WordNet id"
                )
            return {row[number_column]: row[1 - number_column] for row in rows}
    path = folder / "meta.mat"
    if not path.is_file():
        raise UsageError(
            f"{folder}: contains neither meta.mat nor {_DEVKIT_CLASSES_FILE}, which define the"
            " class numbers"
        )
    from scipy import io  # imported late, because it takes half a second and is rarely needed

    try:
        with regular_files.open_regular(path, _MAX_BYTES) as file:
            synsets = io.loadmat(file, squeeze_me=True, struct_as_record=False)["synsets"]
        leaves = [s for s in synsets if int(s.num_children) == 0]
        return {str(int(s.ILSVRC2012_ID)): str(s.WNID) for s in leaves}
    except Exception as error:  # SciPy raises many types for malformed files
        raise DataError(f"{path}: is not the meta.mat of a development kit ({error})") from None
