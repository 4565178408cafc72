"""Detecting the numbering that labels follow, and refusing inconsistent labels."""

import pytest

from input_pipeline import datasets
from input_pipeline.errors import DataError
from input_pipeline.preparation import label_order

WNIDS = [wnid for wnid, _ in datasets.load_class_table("ilsvrc2012")]
DEVKIT_1, DEVKIT_2 = "n02119789", "n02100735"  # by number in the development kit


def _images(label_of_wnid):
    """Returns (path, label) of two images per class."""
    return [
        (f"train/{wnid}/{wnid}_{k}.JPEG", label)
        for wnid, label in label_of_wnid.items()
        for k in range(2)
    ]


def _sorted_from(first, step=50):
    """Returns labels of every `step`-th class, numbered from `first` in sorted order."""
    return {wnid: n + first for n, wnid in enumerate(WNIDS) if n % step == 0}


@pytest.mark.parametrize(
    ("label_of_wnid", "kind"),
    [
        (_sorted_from(0), "sorted"),
        (_sorted_from(1), "background"),
        ({DEVKIT_1: 1, DEVKIT_2: 2, WNIDS[0]: 700}, "devkit"),
        ({WNIDS[5]: 0, WNIDS[9]: 1, WNIDS[40]: 2}, "own sorted"),
        ({"n90000001": 0, "n90000002": 1}, "own sorted"),
        ({WNIDS[5]: 2, WNIDS[9]: 0, WNIDS[40]: 1}, "own"),
    ],
)
def test_numbering_is_detected(label_of_wnid, kind):
    splits = {"train": _images(label_of_wnid), "val": _images(label_of_wnid)}
    assert label_order.detect(splits) == kind
    assert kind in label_order.DESCRIPTIONS


def test_split_with_only_the_first_class_is_not_inconsistent():
    """Its label is 0 in the order of the data set and in that of ILSVRC."""
    train = {WNIDS[0]: 0, WNIDS[217]: 1, WNIDS[482]: 2}
    splits = {"train": _images(train), "test": _images({WNIDS[0]: 0})}
    assert label_order.detect(splits) == "own sorted"


def test_paths_without_wordnet_ids_give_unknown():
    assert label_order.detect({"train": [("cat/1.jpg", 0), ("n123/2.jpg", 1)]}) == "unknown"


def test_class_folder_takes_precedence_over_file_name():
    images = [(f"{WNIDS[3]}/{WNIDS[8]}_1.JPEG", 3), (f"{WNIDS[8]}_2.JPEG", 8)]
    assert label_order.detect({"train": images}) == "sorted"


def test_user_defined_class_may_contain_several_wordnet_ids():
    images = [
        (f"train/{folder}/{wnid}_1.JPEG", n)
        for n, folder in enumerate(("cat", "dog"))
        for wnid in WNIDS[20 * n : 20 * n + 2]
    ]
    assert label_order.detect({"train": images}, by_folder=True) == "folders"
    with pytest.raises(DataError, match="inconsistent labels"):
        label_order.detect({"train": images})
    folders = {"train": [(f"train/{WNIDS[n]}/{WNIDS[5]}.JPEG", n) for n in (0, 50)]}
    assert label_order.detect(folders, by_folder=True) == "sorted"


@pytest.mark.parametrize(
    "splits",
    [
        {"train": _sorted_from(0), "val": _sorted_from(1)},
        {"train": _sorted_from(0), "val": {DEVKIT_1: 1, DEVKIT_2: 2}},
        {"train": _sorted_from(0) | {WNIDS[1]: 0}},
        {"train": _sorted_from(0), "val": {WNIDS[1]: 2, WNIDS[2]: 1}},
    ],
)
def test_inconsistent_labels_are_refused(splits):
    with pytest.raises(DataError, match="inconsistent labels"):
        label_order.detect({split: _images(labels) for split, labels in splits.items()})


def test_wordnet_id_with_two_labels_is_refused():
    with pytest.raises(DataError, match="n90000001 has label"):
        label_order.detect({"train": [("n90000001/a.jpg", 0), ("n90000001/b.jpg", 1)]})


@pytest.mark.parametrize(
    ("names", "out_of_order"),
    [
        (("0", "1", "10", "2"), True),
        (("0", "1", "2"), False),
        (("00", "01", "02"), False),
        (("a", "b"), False),
        ((), False),
        (("²", "³"), False),
        (("0", "9" * 5000), True),
    ],
)
def test_misordered_numeric_class_folders_are_detected(names, out_of_order):
    assert label_order.has_misordered_numeric_names(names) == out_of_order
