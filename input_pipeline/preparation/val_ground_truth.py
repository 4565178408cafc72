"""Labels of the flat validation folder of ILSVRC 2012.

The development kit numbers the classes from 1 in an order of its own; every tool here uses the
sorted WordNet ids from 0. Three files say which image is what, and any of them will do.
"""

import pathlib

from input_pipeline.errors import DataError, UsageError

_IMAGE_NAME = "ILSVRC2012_val_{:08d}.JPEG"
_CLASS_NUMBERS_FILE = "ILSVRC2012_validation_ground_truth.txt"
_SYNSET_FILES = ("imagenet_2012_validation_synset_labels.txt", "validation_synset_labels.txt")
_LABELS_FILE = "ilsvrc2012_val_ground_truth.txt"
_DEVKIT_CLASSES_FILE = "devkit_classes.txt"
_MAP_CLSLOC_FILE = "map_clsloc.txt"


def read(folder, wnids):
    """Finds and reads the ground truth, in the folder or in those inside of it.

    Taken is the first of: a list of `ILSVRC2012_val_00000001.JPEG label` lines (labels from 0, by
    sorted WordNet id) called ilsvrc2012_val_ground_truth.txt; a WordNet id for each image in order
    (…validation_synset_labels.txt); the kit's own ILSVRC2012_validation_ground_truth.txt with, for
    its numbers, map_clsloc.txt (`wnid number name`, in later kits), devkit_classes.txt (`number
    wnid`) or meta.mat.

    Args:
      folder: pathlib.Path.
      wnids: the WordNet ids by label.

    Returns:
      dict from file name to label.

    Raises:
      UsageError: none of these files is there.
      DataError: one does not say what it should.
    """
    for name, reader in {
        _LABELS_FILE: _read_labels,
        **dict.fromkeys(_SYNSET_FILES, _read_synsets),
        _CLASS_NUMBERS_FILE: _read_class_numbers,
    }.items():
        # The kit is lower down: ILSVRC2012_devkit_t12/data. Image folders are not searched.
        for path in (
            folder / name,
            folder / "data" / name,
            *sorted(folder.glob(f"*devkit*/**/{name}")),
        ):
            if path.is_file():
                return reader(path, {wnid: label for label, wnid in enumerate(wnids)})
    raise UsageError(
        f"{folder}: no {_CLASS_NUMBERS_FILE} for the flat val folder; name the folder of the"
        " development kit by"
        " --devkit"
    )


def _read_lines(path):
    # What is not UTF-8 is not a line of the right form either, and is named as such.
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return text.removesuffix("\n").split("\n")


def _read_labels(path, labels):
    found = {}
    for number, line in enumerate(_read_lines(path), 1):
        name, _, label = line.rstrip().rpartition(" ")
        if not name or not label.isdigit() or int(label) >= len(labels):
            raise DataError(f"{path}, line {number}: not `image label`: {line[:80]!r}")
        found[pathlib.PurePath(name).name] = int(label)
    return found


def _read_synsets(path, labels):
    found = {}
    for number, line in enumerate(_read_lines(path), 1):
        if line.strip() not in labels:
            raise DataError(f"{path}, line {number}: not a WordNet id of the set: {line[:80]!r}")
        found[_IMAGE_NAME.format(number)] = labels[line.strip()]
    return found


def _read_class_numbers(path, labels):
    wnids = read_devkit_classes(path.parent)
    found = {}
    for number, line in enumerate(_read_lines(path), 1):
        wnid = wnids.get(line.strip())
        if wnid not in labels:
            raise DataError(f"{path}, line {number}: not a number of a class: {line[:80]!r}")
        found[_IMAGE_NAME.format(number)] = labels[wnid]
    return found


def read_devkit_classes(folder):
    """The kit's numbers, as str, and the WordNet ids that they stand for.

    Raises:
      UsageError: none of the files that say so can be read.
    """
    for name, number_at in ((_DEVKIT_CLASSES_FILE, 0), (_MAP_CLSLOC_FILE, 1)):
        if (folder / name).is_file():
            rows = [line.split() for line in _read_lines(folder / name)]
            if any(len(row) < 2 or not row[number_at].isdigit() for row in rows):
                raise DataError(f"{folder / name}: not lines of a number and a WordNet id")
            return {row[number_at]: row[1 - number_at] for row in rows}
    path = folder / "meta.mat"
    if not path.is_file():
        raise UsageError(
            f"{folder}: neither meta.mat nor {_DEVKIT_CLASSES_FILE} says what the numbers mean"
        )
    from scipy import io  # half a second, and seldom wanted

    try:
        synsets = io.loadmat(str(path), squeeze_me=True, struct_as_record=False)["synsets"]
        leaves = [s for s in synsets if int(s.num_children) == 0]
        return {str(int(s.ILSVRC2012_ID)): str(s.WNID) for s in leaves}
    except Exception as error:  # every part of the format has errors of its own
        raise DataError(f"{path}: not that of a development kit ({error})") from None
