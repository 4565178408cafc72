"""Parsing of `--augment` and `--randaugment`: valid values and errors."""

import pathlib

import pytest

from input_pipeline import augment_spec
from input_pipeline.augmentation import batch_augment, image_augment, rand_augment
from input_pipeline.config import DataConfig
from input_pipeline.errors import UsageError

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLASSIC = ("classic", "flip", "hsv", "lighting")


def read(text, **flags):
    return augment_spec.read(DataConfig(augment=text, **{"min_crop_area": 0.08, **flags}))


@pytest.mark.parametrize(
    ("text", "window", "names"),
    [
        ("standard", "standard", ("crop", "flip")),
        ("none", "none", ("none",)),
        ("classic", "classic", CLASSIC),
        ("classic,hsv", "classic", CLASSIC),
        ("randaugment", "standard", ("crop", "flip", "randaugment")),
        ("standard,trivialaugment", "standard", ("crop", "flip", "trivialaugment")),
        ("erasing,randaugment", "standard", ("crop", "flip", "randaugment", "erasing")),
        ("lighting", "standard", ("crop", "flip", "lighting")),
        ("erasing,classic", "classic", (*CLASSIC, "erasing")),
        ("none,cutmix", "none", ("none", "cutmix")),
        ("flip(0)", "standard", ("crop", "flip")),
    ],
)
def test_parse_augment(text, window, names):
    spec = read(text)
    assert spec.window == window
    assert tuple(name for name in spec.arguments if name != "standard") == names


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("crop(0.35,1,0.75,1.33)", "crop", (0.35, 1.0, 0.75, 1.33)),
        ("crop()", "crop", (0.08, 1.0, 3 / 4, 4 / 3)),
        ("flip( probability = 0.25 )", "flip", (0.25,)),
        ("standard,randaugment(2,10)", "randaugment", (2, 10, 0, 1, 0.3, 0.45, 30, 0.9, 4, 128)),
        ("randaugment(1,rotation=5)", "randaugment", (1, 9, 0, 1, 0.3, 0.45, 5, 0.9, 4, 128)),
        ("erasing(0.1)", "erasing", (0.1, 0.02, 1 / 3, 1 / 0.3)),
        ("erasing(max_area=0.5,probability=1)", "erasing", (1, 0.02, 0.5, 1 / 0.3)),
        ("classic(1,1,256,256)", "classic", (1, 1, 256, 256)),
        ("mixup", "mixup", (0.2,)),
        ("mixup(0.4)", "mixup", (0.4,)),
        ("cutmix", "cutmix", (1.0,)),
    ],
)
def test_arguments_in_names(text, name, expected):
    arguments = read(text)[name]
    assert tuple(arguments[key] for key in augment_spec.AUGMENTATIONS[name].arguments) == expected


def test_flags_set_what_names_do_not_set():
    flags = {"mixup": 0.4, "cutmix": 0.5, "randaugment": "3,7", "min_crop_area": 0.5}
    spec = read("randaugment(magnitude=2),cutmix(0.1)", **flags)
    assert spec["mixup"] == {"alpha": 0.4} and spec["cutmix"] == {"alpha": 0.1}
    assert spec["crop"]["min_area"] == 0.5
    assert (spec["randaugment"]["operations"], spec["randaugment"]["magnitude"]) == (3, 2)


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
        ("erasing,erasing(1)", "erasing is given twice"),
        ("none,erasing", "none cannot be combined with other names"),
        ("classic,trivialaugment", "trivialaugment needs the standard crop; remove classic"),
        ("classic,crop(1)", "crop needs the standard crop; remove classic"),
        ("erasing(0.1", "cannot be read from 'erasing(0.1' on"),
        ("erasing(0.1))", "cannot be read from"),
        ("erasing(0.1)hsv", "cannot be read from"),
        ("erasing((1))", "cannot be read from"),
        ("erasing(probabilty=1)", "erasing: unknown argument 'probabilty'; did you mean prob"),
        ("erasing(1,0,1,4,5)", "too many; it takes probability, min_area, max_area, max_aspect"),
        ("standard(1)", "standard: '1' is one argument too many; it takes no arguments"),
        ("none(a=1)", "none: unknown argument 'a'; it takes no arguments"),
        ("erasing(x)", "erasing: probability=x: is not a number"),
        ("erasing(1,)", "erasing: min_area=: is not a number"),
        ("erasing(1.1)", "erasing: probability=1.1: must be a number from 0 to 1"),
        ("erasing(nan)", "must be a number from 0 to 1"),
        ("erasing(0.1,probability=0.2)", "erasing: probability is given twice"),
        ("erasing(min_area=0.1,0.2)", "'0.2' follows a named argument; name it, too"),
        ("erasing(min_area=0.4)", "erasing: min_area=0.4 is above max_area=0.333333"),
        ("crop(max_area=0.05)", "crop: min_area=0.08 is above max_area=0.05"),
        ("randaugment(0)", "randaugment: operations=0: must be a whole number from 1 to 8"),
        ("randaugment(1.5)", "operations=1.5: must be a whole number"),
        ("mixup(0)", "mixup: alpha=0: must be a number above 0 to 1e+06"),
    ],
)
def test_parse_augment_errors(text, message):
    with pytest.raises(UsageError) as caught:
        read(text)
    assert str(caught.value).startswith(f"--augment={text}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("crop(0.5)", "min_crop_area"),
        ("randaugment(2)", "randaugment"),
        ("randaugment(magnitude=3)", "randaugment"),
        ("mixup", "mixup"),
        ("none,cutmix(1)", "cutmix"),
    ],
)
def test_a_name_and_a_flag_must_not_set_the_same(text, flag):
    with pytest.raises(UsageError, match=f"^--{flag} and --augment=.* drop one of them$"):
        augment_spec.check_flags(text, {flag, "augment"})
    augment_spec.check_flags(text, {"augment"})
    without = augment_spec.remove_arguments(text, {flag})
    augment_spec.check_flags(without, {flag, "augment"})


def test_functions_of_files_are_read_without_their_code():
    """Flags, windows and refusals of other names do not need it."""
    own = "own.py:f@0123456789ab"
    spec = read(f"mixup(0.1),{own}(2,a=3),hsv")
    assert tuple(spec.arguments) == ("crop", "flip", "hsv", "mixup")
    assert spec.functions == {own: ["2", "a=3"]}
    assert read(f"none,{own}").window == "none"
    augment_spec.check_flags(own, {"mixup", "augment"})
    assert augment_spec.remove_arguments(f"{own}(2,a=3),mixup", {"mixup"}) == f"{own}(2,a=3)"
    with pytest.raises(UsageError, match="two functions are called f; rename one"):
        read(f"{own},other.py:f@0123456789ab(1)")
    with pytest.raises(UsageError, match=r"^--augment=own\.py:f,hvs: unknown name"):
        read(f"{own},hvs")


def test_names_without_such_arguments_may_be_combined_with_flags():
    text = "crop(max_area=0.9),randaugment(probability=0.5)"
    augment_spec.check_flags(text, {"min_crop_area", "randaugment", "mixup", "cutmix"})
    assert augment_spec.remove_arguments("mixup,crop(0.2,0.9)", {"min_crop_area", "mixup"}) == (
        "crop(max_area=0.9)"
    )
    assert augment_spec.remove_arguments("mixup(1)", {"mixup"}) == "standard"


def test_every_name_has_its_code():
    assert tuple(image_augment.CROP_FUNCTIONS) == augment_spec.WINDOWS
    assert tuple(image_augment.IMAGE_STAGES) == augment_spec.names("image")
    stages = {**batch_augment.PIXEL_STAGES, **batch_augment.NORMALIZED_STAGES}
    assert tuple(stages) == augment_spec.names("batch")
    ranges = rand_augment.Ranges._fields
    for name in augment_spec.POLICIES:
        assert tuple(augment_spec.defaults(name))[-len(ranges) :] == ranges


def test_the_page_has_the_table_of_augmentations():
    assert augment_spec.format_table() in (ROOT / "docs" / "augmentation.md").read_text()


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
