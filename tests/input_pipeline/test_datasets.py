"""The registry of data sets and the parser of class tables."""

import pathlib
import re
import typing

import pytest

from input_pipeline import datasets
from input_pipeline.config import DataConfig


def test_dataset_flag_has_the_registered_names():
    ours = ("shapes", "ilsvrc2012", "mini_imagenet", "folder", "lists")
    assert datasets.names()[: len(ours)] == ours
    hints = typing.get_type_hints(DataConfig, include_extras=True)
    assert typing.get_args(hints["dataset"])[-1]["choices"] is datasets.names
    assert DataConfig().dataset in datasets.names()


def test_docs_list_the_defaults_of_each_data_set():
    page = (pathlib.Path(__file__).parents[2] / "docs/recipes.md").read_text()
    (section,) = re.findall(r"^## Defaults of a data set\n(.*?)^## ", page, re.M | re.S)
    head, _, *rows = (
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    )
    assert head[0] == "--dataset" and [row[0] for row in rows] == list(datasets.names())
    for name, *cells in rows:
        spec = datasets.get(name)
        defaults = [getattr(spec, flag.removeprefix("--")) for flag in head[1:]]
        assert [float(cell) for cell in cells] == defaults, name


@pytest.mark.parametrize("name", datasets.names())
def test_every_spec_has_sensible_settings(name):
    spec = datasets.get(name)
    assert spec.image_size >= 32 and spec.batch_size >= 1 and spec.learning_rate > 0
    assert 0 < spec.min_crop_area <= 1
    assert 0 <= spec.warmup_epochs < spec.epochs
    assert len(spec.mean) == len(spec.std) == 3
    assert all(0 < value < 255 for value in (*spec.mean, *spec.std))
    assert set(spec.split_sizes) <= {"train", "val", "test"}
    assert not spec.split_sizes or spec.batch_size <= spec.split_sizes["train"]


@pytest.mark.parametrize(
    ("name", "classes", "sizes"),
    [
        ("ilsvrc2012", 1000, {"train": 1_281_167, "val": 50_000}),
        ("mini_imagenet", 100, {"train": 50_000, "val": 5_000, "test": 5_000}),
        ("shapes", 0, {"train": 2000, "val": 500, "test": 500}),
        ("folder", 0, {}),
        ("lists", 0, {}),
    ],
)
def test_published_sizes(name, classes, sizes):
    spec = datasets.get(name)
    assert spec.split_sizes == sizes
    assert len(datasets.load_class_table(name)) == classes


def test_class_tables_contain_wordnet_ids_and_names():
    table = datasets.load_class_table("ilsvrc2012")
    assert table[0] == ("n01440764", "tench, Tinca tinca")
    assert table[207] == ("n02099601", "golden retriever")
    assert table[999][0] == "n15075141"
    assert datasets.load_class_table("mini_imagenet")[2] == ("n01704323", "triceratops")


def test_unknown_name_is_a_key_error():
    with pytest.raises(KeyError):
        datasets.get("imagenet")


def test_class_table_allows_spaces_tabs_and_missing_names(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\ufeff0\tn1\tred fox, Vulpes\n1 n2 two  words\n2   n3\n", encoding="utf-8")
    expected = (("n1", "red fox, Vulpes"), ("n2", "two  words"), ("n3", "n3"))
    assert datasets.read_class_table(path) == expected
    assert datasets.read_class_table(str(path)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 a\n1 b\n3 c\n", "line 3 has index 3, expected 2"),
        ("1 a\n", "line 1 has index 1, expected 0"),
        ("0 a\n0 b\n", "line 2 has index 0, expected 1"),
        ("0 a\n\n1 b\n", "line 2 is not `index wnid names`: ''"),
        ("0 a\n1\n", "line 2 is not `index wnid names`: '1'"),
        ("index wnid names\n0 a\n", "line 1 is not"),
        ("0 a\n-1 b\n", "line 2 is not"),
        ("0 a\n" + "x" * 10_000, "line 2 is not"),
    ],
)
def test_class_table_error_names_the_line(tmp_path, text, message):
    path = tmp_path / "classes.txt"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        datasets.read_class_table(path)
    assert str(caught.value).startswith(message) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("n01440764", "tench"),
        ("n03710721", "maillot"),
        ("n02012849", "crane"),
        ("n00000000", "n00000000"),
        ("zigzag", "zigzag"),
        ("", ""),
    ],
)
def test_display_name(name, shown):
    assert datasets.display_name(name) == shown
