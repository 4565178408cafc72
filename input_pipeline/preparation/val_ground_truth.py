"""Reads the labels of the flat validation folder of ILSVRC 2012.

The development kit numbers the classes from 1 in a separate order. This project uses the sorted
WordNet ids, numbered from 0. Any of three files can provide the labels.
"""

import pathlib
from collections.abc import Sequence

from input_pipeline.errors import DataError, UsageError
from input_pipeline.system import regular_files

_IMAGE_NAME = "ILSVRC2012_val_{:08d}.JPEG"
_CLASS_NUMBERS_FILE = "ILSVRC2012_validation_ground_truth.txt"
_SYNSET_FILES = ("imagenet_2012_validation_synset_labels.txt", "validation_synset_labels.txt")
_LABELS_FILE = "ilsvrc2012_val_ground_truth.txt"
_DEVKIT_CLASSES_FILE = "devkit_classes.txt"
_MAX_BYTES = 2**26  # the files of the kit have less than 5 MB
_MAX_DIGITS = 9
_MAP_CLSLOC_FILE = "map_clsloc.txt"


def read(folder: pathlib.Path, wnids: Sequence[str]) -> dict[str, int]:
    """Finds and reads the ground truth in a folder or its development kit.

    The first existing file of these is used:
      ilsvrc2012_val_ground_truth.txt: `ILSVRC2012_val_00000001.JPEG label` lines, with labels from
        0 by sorted WordNet id.
      *validation_synset_labels.txt: the WordNet id of each image, in order.
      ILSVRC2012_validation_ground_truth.txt: the kit's class number of each image, in order. It
        needs a table of the class numbers, see `read_devkit_classes`.

    Args:
      folder: folder to search.
      wnids: WordNet ids by label.

    Returns:
      dict from file name to label.

    Raises:
      UsageError: no such file exists.
      DataError: a file is malformed.
    """
    for name, reader in {
        _LABELS_FILE: _read_labels,
        **dict.fromkeys(_SYNSET_FILES, _read_synsets),
        _CLASS_NUMBERS_FILE: _read_class_numbers,
    }.items():
        # The kit is in subfolders: ILSVRC2012_devkit_t12/data. Image folders are not searched.
        for path in (
            folder / name,
            folder / "data" / name,
            *sorted(folder.glob(f"*devkit*/**/{name}")),
        ):
            if path.is_file():
                return reader(path, {wnid: label for label, wnid in enumerate(wnids)})
    raise UsageError(
        f"{folder}: contains no {_CLASS_NUMBERS_FILE} for the flat val folder; set --devkit to the"
        " folder of the development kit"
    )


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
        is_number = label.isdecimal() and len(label) <= _MAX_DIGITS
        if not name or not is_number or int(label) >= len(labels):
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
            if any(len(row) < 2 or not row[number_column].isdecimal() for row in rows):
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
