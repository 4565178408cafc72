"""Detects which numbering of the classes the labels of a data set follow.

The ImageNet classes have at least three common numberings. A model that was trained with one is
useless on labels of another. WordNet ids in the paths reveal the numbering.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from input_pipeline import datasets
from input_pipeline.errors import DataError
from input_pipeline.text import is_number

_WNID = re.compile(r"(?<![0-9A-Za-z])n\d{8}(?!\d)")
# The first classes of the ILSVRC development kit, which has a separate order that starts at 1.
_DEVKIT_NUMBERS = {"n02119789": 1, "n02100735": 2, "n02110185": 3}

DESCRIPTIONS = {
    "sorted": "the sorted WordNet ids of ILSVRC 2012, from 0",
    "background": "the sorted WordNet ids from 1, with 0 for background: 1001 classes",
    "devkit": "the numbers of the ILSVRC development kit, from 1",
    "own sorted": "the sorted WordNet ids of this data set's classes, from 0",
    "own": "a custom order with one number per WordNet id",
    "folders": "the names of the folders, sorted, from 0",
    "unknown": "unknown: the paths contain no WordNet ids",
}


def detect(splits: Mapping[str, Iterable[tuple[str, int]]], by_folder: bool = False) -> str:
    """Returns which numbering the labels of a data set follow.

    Args:
      splits: (path, label) of each image, by split.
      by_folder: whether the folder of an image alone decides its class. A user-defined class may
        contain files named after several WordNet ids.

    Returns:
      A key of DESCRIPTIONS.

    Raises:
      DataError: the labels are inconsistent. Splits follow different numberings, a WordNet id has
        two labels, or a label has two WordNet ids.
    """
    pairs_of_split = {
        split: _collect_wnid_labels(images, by_folder) for split, images in splits.items()
    }
    pairs_of_split = {split: pairs for split, pairs in pairs_of_split.items() if pairs}
    if not pairs_of_split:
        return "folders" if by_folder else "unknown"
    all_pairs = sorted(set().union(*pairs_of_split.values()))
    # Check each split separately first, because this gives the more helpful message.
    kinds = {split: _match_ilsvrc_numbering(pairs) for split, pairs in pairs_of_split.items()}
    matched = {split: kind for split, kind in kinds.items() if kind}
    if len(set(matched.values())) > 1:
        numberings = "; ".join(
            f"{split} follows {DESCRIPTIONS[kind]}" for split, kind in matched.items()
        )
        raise DataError(f"inconsistent labels: {numberings}")
    _require_one_to_one(all_pairs)
    if kind := _match_ilsvrc_numbering(all_pairs):
        return kind
    wnids = sorted({wnid for wnid, _ in all_pairs})
    number_of_wnid = {wnid: number for number, wnid in enumerate(wnids)}
    # Before the check below: a split with only ILSVRC's first class matches both numberings.
    if all(number_of_wnid[wnid] == label for wnid, label in all_pairs):
        return "own sorted"
    if matched:
        split, kind = next(iter(matched.items()))
        raise DataError(
            f"inconsistent labels: {split} follows {DESCRIPTIONS[kind]}, but other splits do not"
        )
    return "own"


def _collect_wnid_labels(
    images: Iterable[tuple[str, int]], by_folder: bool
) -> set[tuple[str, int]]:
    """Returns the distinct (WordNet id, label) of paths that contain an id.

    The last folder with an id takes precedence over the file name.
    """
    pairs = set()
    for path, label in images:
        folders, _, name = path.rpartition("/")
        wnids = _WNID.findall(folders)
        if not (wnids or by_folder):
            wnids = _WNID.findall(name.partition("_")[0]) or _WNID.findall(name)
        if wnids:
            pairs.add((wnids[-1], int(label)))
    return pairs


def _match_ilsvrc_numbering(pairs: Collection[tuple[str, int]]) -> str | None:
    """Returns the ILSVRC 2012 numbering that all (WordNet id, label) pairs follow, or None."""
    table = datasets.load_class_table("ilsvrc2012")
    number_of_wnid = {wnid: number for number, (wnid, _) in enumerate(table)}
    if all(wnid in number_of_wnid for wnid, _ in pairs):
        for kind, first in (("sorted", 0), ("background", 1)):
            if all(number_of_wnid[wnid] + first == label for wnid, label in pairs):
                return kind
        known = [(wnid, label) for wnid, label in pairs if wnid in _DEVKIT_NUMBERS]
        in_range = all(1 <= label <= len(number_of_wnid) for _, label in pairs)
        if known and in_range and all(_DEVKIT_NUMBERS[wnid] == label for wnid, label in known):
            return "devkit"
    return None


def _require_one_to_one(pairs: Iterable[tuple[str, int]]) -> None:
    """Raises DataError if a WordNet id has two labels, or a label has two WordNet ids."""
    label_of_wnid, wnid_of_label = {}, {}
    for wnid, label in pairs:
        for table, key, value in ((label_of_wnid, wnid, label), (wnid_of_label, label, wnid)):
            if table.setdefault(key, value) != value:
                raise DataError(
                    f"inconsistent labels: {wnid} has label {label}, but elsewhere {key} belongs to"
                    f" {table[key]}"
                )


def has_misordered_numeric_names(class_names: Iterable[str]) -> bool:
    """Returns whether class folders are named 0, 1, ..., 10 but their labels differ.

    Labels follow the sorted names, and "10" sorts before "2".
    """
    names = list(class_names)
    if not names or not all(map(is_number, names)):
        return False
    return [name.lstrip("0") or "0" for name in names] != [str(k) for k in range(len(names))]
