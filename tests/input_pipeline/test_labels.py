"""The class tables are complete, in the standard order, and consistent with each other."""

import re
from pathlib import Path

import pytest

LABELS = Path(__file__).resolve().parents[2] / "input_pipeline" / "labels"
NUM_CLASSES = {"ilsvrc2012": 1000, "mini_imagenet": 100}


def read_table(name: str) -> list[tuple[int, str, str]]:
    """Parses a table strictly, without the tolerance of `datasets.read_class_table`."""
    text = (LABELS / f"{name}.txt").read_text(encoding="utf-8")
    assert text.endswith("\n")
    rows = [line.split("\t") for line in text[:-1].split("\n")]
    assert [row for row in rows if len(row) != 3] == []
    return [(int(index), wnid, names) for index, wnid, names in rows]


@pytest.mark.parametrize("name", NUM_CLASSES)
def test_table_is_complete_and_sorted(name):
    rows = read_table(name)
    wnids = [wnid for _, wnid, _ in rows]
    assert [index for index, _, _ in rows] == list(range(NUM_CLASSES[name]))
    assert wnids == sorted(set(wnids))
    assert [wnid for wnid in wnids if not re.fullmatch(r"n\d{8}", wnid)] == []


@pytest.mark.parametrize("name", NUM_CLASSES)
def test_names_are_clean(name):
    for _, wnid, names in read_table(name):
        parts = names.split(", ")
        assert all(part and part == part.strip() and "," not in part for part in parts), wnid
        assert len(parts) == len(set(parts)), wnid


def test_mini_imagenet_is_a_subset_of_ilsvrc2012():
    ilsvrc = {wnid: names for _, wnid, names in read_table("ilsvrc2012")}
    mini = {wnid: names for _, wnid, names in read_table("mini_imagenet")}
    assert mini == {wnid: ilsvrc.get(wnid) for wnid in mini}


@pytest.mark.parametrize(
    ("table", "index", "wnid", "names"),
    [
        ("ilsvrc2012", 0, "n01440764", "tench, Tinca tinca"),
        ("ilsvrc2012", 1, "n01443537", "goldfish, Carassius auratus"),
        ("ilsvrc2012", 134, "n02012849", "crane"),
        ("ilsvrc2012", 207, "n02099601", "golden retriever"),
        ("ilsvrc2012", 281, "n02123045", "tabby, tabby cat"),
        ("ilsvrc2012", 386, "n02504458", "African elephant, Loxodonta africana"),
        ("ilsvrc2012", 517, "n03126707", "crane"),
        ("ilsvrc2012", 638, "n03710637", "maillot"),
        ("ilsvrc2012", 639, "n03710721", "maillot, tank suit"),
        ("ilsvrc2012", 999, "n15075141", "toilet tissue, toilet paper, bathroom tissue"),
        ("mini_imagenet", 0, "n01532829", "house finch, linnet, Carpodacus mexicanus"),
        ("mini_imagenet", 99, "n13133613", "ear, spike, capitulum"),
    ],
)
def test_known_classes(table, index, wnid, names):
    assert read_table(table)[index] == (index, wnid, names)
