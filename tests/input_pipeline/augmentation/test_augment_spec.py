"""Parsing of `--augment` and `--randaugment`: valid values and errors."""

import pytest

from input_pipeline.augmentation import augment_spec, rand_augment
from input_pipeline.augmentation.augment_spec import AugmentSpec
from input_pipeline.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("standard", AugmentSpec("standard", "", ())),
        ("none", AugmentSpec("none", "", ())),
        ("classic", AugmentSpec("classic", "", ("hsv", "lighting"))),
        ("classic,hsv", AugmentSpec("classic", "", ("hsv", "lighting"))),
        ("randaugment", AugmentSpec("standard", "randaugment", ())),
        ("standard,trivialaugment", AugmentSpec("standard", "trivialaugment", ())),
        ("erasing,randaugment", AugmentSpec("standard", "randaugment", ("erasing",))),
        ("lighting", AugmentSpec("standard", "", ("lighting",))),
        ("erasing,classic", AugmentSpec("classic", "", ("hsv", "lighting", "erasing"))),
    ],
)
def test_parse_augment(text, expected):
    assert augment_spec.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one of standard, none, classic"),
        ("rand_augment", "did you mean randaugment"),
        ("standard,", "unknown name ''"),
        ("standard, erasing", "did you mean erasing"),
        ("autoaugment", "did you mean"),
        ("xyz", "one of standard"),
        ("standard,classic", "standard and classic exclude each other"),
        ("randaugment,trivialaugment", "randaugment and trivialaugment exclude each other"),
        ("erasing,erasing", "erasing is given twice"),
        ("none,erasing", "none cannot be combined with other names"),
        ("classic,trivialaugment", "trivialaugment needs the standard crop; remove classic"),
    ],
)
def test_parse_augment_errors(text, message):
    with pytest.raises(UsageError) as caught:
        augment_spec.parse(text)
    assert str(caught.value).startswith(f"--augment={text}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"), [("2,9", (2, 9.0)), ("1,0", (1, 0.0)), ("8,4.5", (8, 4.5))]
)
def test_parse_randaugment(text, expected):
    assert augment_spec.parse_randaugment(text) == expected


@pytest.mark.parametrize(
    "text", ["", "2", "2,", "2,9,1", "0,9", "9,9", "2,-1", "2,10.5", "a,b", "2,nan"]
)
def test_parse_randaugment_errors(text):
    with pytest.raises(UsageError, match="as in 2,9"):
        augment_spec.parse_randaugment(text)


def test_randaugment_has_the_fourteen_operations_of_the_papers():
    papers = "identity shear_x shear_y translate_x translate_y rotate brightness contrast color"
    papers += " sharpness posterize solarize autocontrast equalize"
    assert tuple(rand_augment.OPERATIONS)[:14] == tuple(papers.split())
