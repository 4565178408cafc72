"""The label-map doctor: which numbering of the classes do the labels of a set follow?

The same thousand classes go by at least three numberings, and a net that was trained by one is
worth nothing on labels of another. Where the paths hold WordNet ids, the labels give it away.
"""

import re

import numpy as np

from input_pipeline import datasets
from input_pipeline.errors import DataError

_WNID = re.compile(r"(?<![0-9A-Za-z])n\d{8}(?!\d)")
# The development kit of ILSVRC numbers from 1 in an order of its own, which begins so.
_DEVKIT_NUMBERS = {"n02119789": 1, "n02100735": 2, "n02110185": 3}

DESCRIPTIONS = {
    "sorted": "the sorted WordNet ids of ILSVRC 2012, from 0",
    "background": "the sorted WordNet ids from 1, with 0 for background: 1001 classes",
    "devkit": "the numbers of the ILSVRC development kit, from 1",
    "own sorted": "the sorted WordNet ids of this set's own classes, from 0",
    "own": "an order of its own, one number for each WordNet id",
    "unknown": "unknown: there are no WordNet ids in the paths",
}


def detect(splits, by_folder=False):
    """Says which numbering the labels of a set follow.

    Args:
      splits: dict from a split to its list of (path, label).
      by_folder: whether an image's folder is its label, whatever its name says: a class of one's
        own may have images of several WordNet ids.

    Returns:
      str, a key of KINDS.

    Raises:
      DataError: a mixture: splits that follow different numberings, or a WordNet id with two
        labels, or a label with two WordNet ids.
    """
    pairs = {split: _collect_wnid_labels(rows, by_folder) for split, rows in splits.items()}
    pairs = {split: found for split, found in pairs.items() if found}
    if not pairs:
        return "unknown"
    everything = sorted(set().union(*pairs.values()))
    # Each split on its own first: this tells a mixture better than two labels of some class.
    kinds = {split: _match_ilsvrc_numbering(found) for split, found in pairs.items()}
    named = {split: kind for split, kind in kinds.items() if kind}
    if len(set(named.values())) > 1:
        said = "; ".join(f"{split} follows {DESCRIPTIONS[kind]}" for split, kind in named.items())
        raise DataError(f"the labels are a mixture: {said}")
    _require_one_to_one(everything)
    if kind := _match_ilsvrc_numbering(everything):
        return kind
    numbers = {wnid: number for number, wnid in enumerate(sorted({w for w, _ in everything}))}
    if all(numbers[wnid] == label for wnid, label in everything):
        return "own sorted"  # the first class has the number of ILSVRC's first one, it may be it
    if named:
        split, kind = next(iter(named.items()))
        raise DataError(
            f"the labels are a mixture: {split} follows {DESCRIPTIONS[kind]}, others do not"
        )
    return "own"


def _collect_wnid_labels(rows, by_folder):
    """The distinct (WordNet id, label) of paths that hold one; of several, the last folder's."""
    found = set()
    for path, label in rows:
        folders, _, name = path.rpartition("/")
        wnids = _WNID.findall(folders)
        if not (wnids or by_folder):
            wnids = _WNID.findall(name.partition("_")[0]) or _WNID.findall(name)
        if wnids:
            found.add((wnids[-1], int(label)))
    return found


def _match_ilsvrc_numbering(pairs):
    """Which numbering of ILSVRC 2012's thousand classes all pairs follow, or None."""
    numbers = {w: n for n, (w, _) in enumerate(datasets.load_class_table("ilsvrc2012"))}
    if all(wnid in numbers for wnid, _ in pairs):
        for kind, first in (("sorted", 0), ("background", 1)):
            if all(numbers[wnid] + first == label for wnid, label in pairs):
                return kind
        known = [(wnid, label) for wnid, label in pairs if wnid in _DEVKIT_NUMBERS]
        in_range = all(1 <= label <= len(numbers) for _, label in pairs)
        if known and in_range and all(_DEVKIT_NUMBERS[wnid] == label for wnid, label in known):
            return "devkit"
    return None


def _require_one_to_one(pairs):
    labels, wnids = {}, {}
    for wnid, label in pairs:
        for table, key, value in ((labels, wnid, label), (wnids, label, wnid)):
            if table.setdefault(key, value) != value:
                raise DataError(
                    f"the labels are a mixture: {wnid} has label {label}, but {key} goes with"
                    f" {table[key]} elsewhere"
                )


def has_misordered_numeric_names(class_names):
    """Whether class folders called 0, 1, ... 10 are labelled by another number than their name.

    Labels are places in the sorted names, and "10" sorts before "2".
    """
    names = list(class_names)
    if not names or not all(name.isdigit() for name in names):
        return False
    return not np.array_equal(np.array(names, np.int64), np.arange(len(names)))
