"""JSON is checked against type hints."""

import dataclasses
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from input_pipeline.system import typed_json


class Item(TypedDict):
    """A file."""

    name: Annotated[str, typed_json.is_file_name]
    bytes: Annotated[int, typed_json.at_least(0)]
    note: NotRequired[str]


@dataclasses.dataclass
class Point:
    """A point."""

    x: float
    y: float = 2.0


@pytest.mark.parametrize(
    ("value", "hint", "converted"),
    [
        (3, float, 3.0),
        (None, int | None, None),
        ([1, 2.5], tuple[float, ...], (1.0, 2.5)),
        ([1, "a"], tuple[int, str], (1, "a")),
        ({"a": [1]}, dict[str, list[int]], {"a": [1]}),
        ("b", Literal["a", "b"], "b"),
        ({"name": "a", "bytes": 0, "new": [1]}, Item, {"name": "a", "bytes": 0, "new": [1]}),
        ({"x": 1, "new": 5}, Point, Point(1.0)),
        ([1], tuple[float, ...] | None, (1.0,)),
        ("caf\udce9", str, "caf\udce9"),  # a name that is not UTF-8
        ([{}], Any, [{}]),
    ],
)
def test_fitting_values_are_converted(value, hint, converted):
    result = typed_json.convert(value, hint, "it")
    assert result == converted and type(result) is type(converted)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, int, "it is True, expected int"),
        (1.0, int, "it is 1.0, expected int"),
        (None, float, "it is None, expected float"),
        ("1", int | None, r"it is '1', expected int \| None"),
        ([1.0, "a"], tuple[float, ...], r"it\[1\] is 'a', expected float"),
        ([1.0], tuple[float, float], "it has 1 items, not 2"),
        ({"a": "b"}, dict[str, int], r"it\['a'\] is 'b', expected int"),
        ([1], dict[str, int], r"it is \[1\], expected dict"),
        ("c", Literal["a", "b"], "it is 'c'"),
        ({"name": "a"}, Item, "it has no bytes"),
        ({"name": "../a", "bytes": 1}, Item, "name is '../a'"),
        ({"name": "..", "bytes": 1}, Item, "name is '..'"),
        ({"name": "/dev/zero", "bytes": 1}, Item, "name is '/dev/zero'"),
        ({"name": "a", "bytes": -1}, Item, "bytes is -1, and must be at least 0"),
        ({"y": 1.0}, Point, "it has no x"),
        ([], Item, r"it is \[\], expected Item"),
        (2**63, int, "it is too large"),
        (10**400, float, "it is too large"),
        ("a\0b", str, "not valid text"),
        ("\ud800", str, "not valid text"),
    ],
)
def test_other_values_are_named(value, hint, message):
    with pytest.raises(ValueError, match=message):
        typed_json.convert(value, hint, "it")
