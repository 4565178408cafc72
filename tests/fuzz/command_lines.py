"""Random command lines, made from the program's own table of flags."""

import itertools
import math

from hypothesis import strategies as st

from loops.config.config import all_flags
from loops.config.flag_fields import FlagField
from tests.fuzz.box import Example

_SMALL = {"model": "resnetv2_18", "image_size": "32"}
_DATA = {"dataset": "folder", "data_dir": "folder"}
# Flags with which each mode does its work in seconds.
BASES = {
    "train": _SMALL | _DATA | {"batch_size": "2", "steps": "1", "crops": "1"},
    "eval": {"ckpt": "runs/a", "crops": "1"},
    "predict": {"ckpt": "runs/a", "crops": "1", "image": "folder/val"},
    "import": {
        "weights": "a.weights.h5",
        "source": "h5",
        "model": "resnetv2_18",
        "run_name": "new",
    },
    "export": {"ckpt": "runs/a", "format": "weights_h5", "out": "new.weights.h5"},
    "average": {"ckpt": "runs/a,runs/b", "run_name": "new", "bn_batches": "1"},
    "prepare": _DATA | {"out": "new"},
    "verify": _DATA | {"out": "new"},
    "stats": _DATA | {"out": "new"},
    "data_service": {"data_service": "localhost:46053", "workers": "localhost:46054"},
    "benchmark": _SMALL | {"benchmark": "step", "batch_size": "2"},
    "repro": {"ckpt": "runs/a"},
}
# Valid values of flags with a form of their own. Other flags have choices, bounds or a default.
_FORMS = {
    "augment": ("none", "classic", "randaugment", "trivialaugment", "hsv,lighting", "erasing"),
    "batch_size": ("1", "2", "3", "4"),
    "checkpoint_dir": ("runs", "new"),
    "ckpt": ("runs/a", "runs/b,runs/a", "runs/a/best", "runs/a/step-00000001"),
    "class_names": ("classes.txt",),
    "data_dir": ("folder", "shards", "prepared_lists", "data/shapes", "shards/"),
    "data_service": ("localhost:46053",),
    "image": ("folder/val", "folder/*/*/*_00000001.*", "folder/val,folder/test"),
    "image_size": ("32", "33", "48", "64"),
    "image_size_schedule": ("0:32", "0:32,0.5:48"),
    "init_from": ("runs/a", "runs/b/step-00000002"),
    "keep_every": ("1", "0.5epochs"),
    "logits": ("logits.npz", "logits.npz,logits.npz"),
    "members": ("1", "1,2"),
    "profile": ("0,1", "1,2"),
    "randaugment": ("1,3", "0,0"),
    "real_labels": ("real.json",),
    "run_name": ("new", "a", "n e w"),
    "save_logits": ("new.npz",),
    "split_csv": ("csv",),
    "test_list": ("test.txt",),
    "test_size": ("32", "48,32"),
    "top_k": ("1", "1,2,3", "7"),
    "train_list": ("train.txt",),
    "val_list": ("val.txt",),
    "weights": ("a.weights.h5", "a.safetensors"),
    "workers": ("localhost:46054", "localhost:46054,localhost:46055"),
}
_NUMBERS = (0, 1, 2, 3, 7, 32, 0.1, 0.5, 0.99, 1e-9)
# Values that are wrong for most flags: numbers, texts, and paths of the wrong kind.
_ODD = (
    *("", " ", "nan", "inf", "-inf", "-1", "0", "1e-320", "1e308", "9" * 12, "9" * 30, "0x10"),
    *("x", "é☃", "\udcff", "[", "*", "**", "{", "~", "%s", "a\nb", ",", "1,,2", ":", "1:2", "-"),
    *("a" * 300, "..", "missing/file", "work", "loop", "zero", "folder", "runs/a", "runs"),
    *("classes.txt", "logits.npz", "runs/a/config.json", "runs/a/step-00000002", "new/deep/er"),
)
# What is not a flag of the program.
_STRAYS = ("train", "-", "--", "-h", "--flagfile=recipe.flags", "--flagfile=zero", "--undefok=x")
_STRAYS += ("--flagfile=loop", "--unknown=1", "--help=1", "--mode", "--nosteps", "-x=1", "---")


def examples() -> st.SearchStrategy[Example]:
    """Returns command lines: a mode with its base, and up to eight more flags of the mode.

    Many leave out a flag of the base, or have an odd value, a flag of another mode or a stray word.
    """
    # The others run until they are stopped.
    modes = [mode for mode in BASES if mode not in ("benchmark", "data_service")] * 4
    return st.sampled_from([*modes, "benchmark", "data_service"]).flatmap(_examples_of_mode)


def _examples_of_mode(mode: str) -> st.SearchStrategy[Example]:
    names = [name for name, flag in all_flags().items() if _is_used(flag, mode)]
    valid = {name: st.sampled_from(_valid_words(flag)) for name, flag in all_flags().items()}
    odd_value = st.builds("--{}={}".format, st.sampled_from(names), st.sampled_from(_ODD))
    foreign = st.sampled_from(sorted(valid)).flatmap(valid.get)
    return st.builds(
        _assemble,
        st.just(mode),
        st.sampled_from(["", "", "", *BASES[mode]]),
        st.lists(st.sampled_from(names), max_size=8, unique=True).flatmap(
            lambda chosen: st.tuples(*map(valid.get, chosen))
        ),
        st.lists(st.one_of(odd_value, odd_value, foreign, st.sampled_from(_STRAYS)), max_size=2),
    )


def _assemble(mode: str, left_out: str, *more: list[str]) -> Example:
    base = [f"--{name}={value}" for name, value in BASES[mode].items() if name != left_out]
    words = [f"--mode={mode}", *base, *itertools.chain(*more)]
    return Example(tuple({word.partition("=")[0]: word for word in words}.values()))


def _is_used(flag: FlagField, mode: str) -> bool:
    return bool(flag.benchmarks) if mode == "benchmark" else mode in flag.modes


def _valid_words(flag: FlagField) -> list[str]:
    if flag.type is bool:
        return [f"--{flag.name}", f"--no{flag.name}"]
    values = _FORMS.get(flag.name) or flag.choices
    if not values and flag.type is str:
        values = (flag.default or "", flag.example)
    if not values:
        low, high = flag.minimum or 0, math.inf if flag.maximum is None else flag.maximum
        below = math.inf if flag.below is None else flag.below
        numbers = {flag.type(number) for number in (low, *_NUMBERS)}
        values = sorted(n for n in numbers if low <= n <= high and n < below)
    return [f"--{flag.name}={value}" for value in values]
