"""The label-map doctor: which numbering do labels follow, and which sets does it refuse?"""

import pytest

from input_pipeline import datasets
from input_pipeline.errors import DataError
from input_pipeline.preparation import label_order

WNIDS = [wnid for wnid, _ in datasets.load_class_table("ilsvrc2012")]
KIT_FOX, SETTER = "n02119789", "n02100735"  # 1 and 2 of the development kit


def _rows(numbers):
    return [(f"train/{wnid}/{wnid}_{k}.JPEG", n) for wnid, n in numbers.items() for k in range(2)]


def _sorted(first, step=50):
    return {wnid: n + first for n, wnid in enumerate(WNIDS) if n % step == 0}


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        (_sorted(0), "sorted"),
        (_sorted(1), "background"),
        ({KIT_FOX: 1, SETTER: 2, WNIDS[0]: 700}, "devkit"),
        ({WNIDS[5]: 0, WNIDS[9]: 1, WNIDS[40]: 2}, "own sorted"),
        ({"n90000001": 0, "n90000002": 1}, "own sorted"),
        ({WNIDS[5]: 2, WNIDS[9]: 0, WNIDS[40]: 1}, "own"),
    ],
)
def test_kinds(numbers, kind):
    assert label_order.detect({"train": _rows(numbers), "val": _rows(numbers)}) == kind
    assert kind in label_order.DESCRIPTIONS


def test_a_split_of_the_first_class_alone():
    """Its label is 0 by the set's own order and by that of ILSVRC's thousand."""
    train = {WNIDS[0]: 0, WNIDS[217]: 1, WNIDS[482]: 2}
    splits = {"train": _rows(train), "test": _rows({WNIDS[0]: 0})}
    assert label_order.detect(splits) == "own sorted"


def test_paths_without_wordnet_ids():
    assert label_order.detect({"train": [("cat/1.jpg", 0), ("n123/2.jpg", 1)]}) == "unknown"


def test_the_class_folder_counts_more_than_the_name():
    rows = [(f"{WNIDS[3]}/{WNIDS[8]}_1.JPEG", 3), (f"{WNIDS[8]}_2.JPEG", 8)]
    assert label_order.detect({"train": rows}) == "sorted"


def test_a_class_of_ones_own_may_hold_several_wordnet_ids():
    rows = [
        (f"train/{folder}/{wnid}_1.JPEG", n)
        for n, folder in enumerate(("cat", "dog"))
        for wnid in WNIDS[20 * n : 20 * n + 2]
    ]
    assert label_order.detect({"train": rows}, by_folder=True) == "unknown"
    with pytest.raises(DataError, match="mixture"):
        label_order.detect({"train": rows})
    folders = {"train": [(f"train/{WNIDS[n]}/{WNIDS[5]}.JPEG", n) for n in (0, 50)]}
    assert label_order.detect(folders, by_folder=True) == "sorted"


@pytest.mark.parametrize(
    "splits",
    [
        {"train": _sorted(0), "val": _sorted(1)},
        {"train": _sorted(0), "val": {KIT_FOX: 1, SETTER: 2}},
        {"train": _sorted(0) | {WNIDS[1]: 0}},
        {"train": _sorted(0), "val": {WNIDS[1]: 2, WNIDS[2]: 1}},
    ],
)
def test_mixtures_are_refused(splits):
    with pytest.raises(DataError, match="mixture"):
        label_order.detect({split: _rows(numbers) for split, numbers in splits.items()})


def test_one_class_with_two_labels_is_a_mixture():
    with pytest.raises(DataError, match="n90000001 has label"):
        label_order.detect({"train": [("n90000001/a.jpg", 0), ("n90000001/b.jpg", 1)]})


@pytest.mark.parametrize(
    ("names", "out_of_order"),
    [(("0", "1", "10", "2"), True), (("0", "1", "2"), False), (("a", "b"), False), ((), False)],
)
def test_numeric_folders(names, out_of_order):
    assert label_order.has_misordered_numeric_names(names) == out_of_order
