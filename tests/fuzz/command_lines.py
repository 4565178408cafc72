"""Random command lines, made from the program's own table of flags."""

import functools
import itertools
import math
from typing import Any

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
    "import": _SMALL | {"weights": "a.weights.h5", "source": "h5", "run_name": "new"},
    "export": {"ckpt": "runs/a", "format": "weights_h5", "out": "new.weights.h5"},
    "average": {"ckpt": "runs/a,runs/b", "run_name": "new", "bn_batches": "1"},
    "prepare": _DATA | {"out": "new"},
    "verify": _DATA | {"out": "new"},
    "stats": _DATA | {"out": "new"},
    "data_service": {"data_service": "localhost:46053", "workers": "localhost:46054"},
    "benchmark": _SMALL | {"benchmark": "step", "batch_size": "2"},
    "repro": {"ckpt": "runs/a"},
    "recipe": {"ckpt": "runs/a"},
    "preview": {**_DATA, "image_size": "32", "report": "new.html"},
}
# Mistakes that the modes notice after most checks and before the work of seconds.
_LATE_MISTAKES = {
    **dict.fromkeys(("train", "eval", "average", "repro", "stats", "verify"), "--data_dir=no"),
    "predict": "--image=no",
    "export": "--out=folder",
    "benchmark": "--json=no/result.json",
}
# Valid values of texts that have a form, separated by spaces.
_FORMS = {
    "augment": "none classic randaugment trivialaugment hsv,lighting erasing mixup(0.3) "
    "crop(0.2,1,0.7,1.4),flip(0),vflip,randaugment(1,3,0.5,0.5) grayscale(probability=1),cutmix",
    "checkpoint_dir": "runs new",
    "ckpt": "runs/a runs/b,runs/a runs/a/best runs/a/step-00000001",
    "class_names": "classes.txt",
    "data_dir": "folder shards prepared_lists data/shapes",
    "data_service": "localhost:46053",
    "features": "features.npz",
    "image": "folder/val folder/*/*/*_1.* folder/val,folder/test",
    "image_size": "32 33 48 64",
    "image_size_schedule": "0:32 0:32,0.5:48",
    "init_from": "runs/a runs/b/step-00000002",
    "keep_every": "1 0.5epochs",
    "logits": "logits.npz logits.npz,logits.npz",
    "milestones": "1 0.5,1",
    "mean": "120,110,100 127.5,127.5,127.5",
    "members": "1 1,2",
    "profile": "0,1 1,2",
    "randaugment": "1,3 0,0",
    "recipe": "short step90 recipe.txt runs/a ./no.txt",
    "real_labels": "real.json",
    "run_name": "new a é",
    "save_logits": "new.npz",
    "split_csv": "csv",
    "std": "60,60,60 127.5,127.5,127.5",
    "test_list": "test.txt",
    "test_size": "32 48,32",
    "top_k": "1 1,2,3 7",
    "train_list": "train.txt",
    "val_list": "val.txt",
    "weights": "a.weights.h5 a.safetensors weights",
    "workers": "localhost:46054 localhost:46054,localhost:46055",
}
_NUMBERS = (0, 1, 2, 3, 7, 0.1, 0.5, 0.99, 1e-9)
# Values that may be wrong: numbers, texts, and paths of the wrong kind.
_ODD_NUMBERS = ("nan", "inf", "-inf", "-1", "0", "1e-320", "1e308", "9" * 9, "9" * 30, "0x10", "")
_ODD_TEXTS = (*_ODD_NUMBERS, " ", "x", "é☃", "\udcff", "[", "*", "**", "{", "~", "%s", "a\nb", ",")
_ODD_TEXTS += ("1,,2", ":", "1:2", "1,2", "-", "a" * 300, "..", "no/file", "loop", "zero", "folder")
_ODD_TEXTS += ("runs/a", "runs", "classes.txt", "logits.npz", "runs/a/config.json", "a/b/c")
_STRAYS = ("train", "-", "--", "-h", "--flagfile=words.txt", "--flagfile=loop", "--undefok=x")
_STRAYS += ("--unknown=1", "--help=1", "--mode", "--mode=x", "--nosteps", "-x=1", "---")


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Draws a command line: a mode, the flags of its base, and more of its flags.

    These are up to three at random, or a row of a table in which each pair of flags occurs. One
    example in two has a word that may be wrong. Some lack a flag of the base. Most of the slow
    modes end with a late mistake, so that all together take minutes.
    """
    mode = draw(st.sampled_from(_weighted_modes()))
    random_names, rows, words_of_name, odd_words = _tables(mode)
    names = draw(st.one_of(random_names, rows, rows))
    words = [f"--{name}={value}" for name, value in (("mode", mode), *BASES[mode].items())]
    words += [draw(words_of_name[name]) for name in names]
    words += draw(odd_words)
    if mode in _LATE_MISTAKES and draw(st.integers(0, 3)):
        words.append(_LATE_MISTAKES[mode])
    elif not draw(st.integers(0, 7)):
        del words[draw(st.integers(0, len(BASES[mode])))]
    return Example(tuple({word.partition("=")[0]: word for word in words}.values()))


@functools.cache
def _weighted_modes() -> list[str]:
    """Returns each mode as often as it has rows of pairs. Data sets have few, so they get more."""
    return [mode for mode in BASES for _ in range(20 + len(pairwise_rows(_list_used(mode))))]


@functools.cache
def _tables(mode: str) -> tuple[Any, ...]:
    """Returns strategies for the flags of a mode: names, rows of names, valid words, odd words."""
    flags = all_flags()
    used = _list_used(mode)
    valid = {name: st.sampled_from(_valid_words(flag)) for name, flag in flags.items()}
    odd = st.one_of(
        st.sampled_from([word for name in used for word in _odd_words(flags[name])]),
        st.sampled_from([word for flag in flags.values() for word in _valid_words(flag)]),
        st.sampled_from(_STRAYS),
    )
    return (
        st.lists(st.sampled_from(used), max_size=3, unique=True),
        st.sampled_from(pairwise_rows(used) or [used]),
        valid,
        st.one_of(st.just([]), st.lists(odd, min_size=1, max_size=1)),
    )


def pairwise_rows(names: list[str]) -> list[list[str]]:
    """Returns rows of at most eight names; each pair of names is in at least one row."""
    missing, rows = set(itertools.combinations(names, 2)), []
    while missing:
        row = list(min(missing))
        while len(row) < min(8, len(names)):
            gains = {n: sum((a, n) in missing or (n, a) in missing for a in row) for n in names}
            row.append(max(gains.keys() - {*row}, key=lambda name: (gains[name], name)))
        missing -= {pair for pair in missing if {*pair} <= {*row}}
        rows.append(row)
    return rows


def _list_used(mode: str) -> list[str]:
    """Returns the names of the flags that a mode uses, except --mode."""
    is_benchmark = mode == "benchmark"
    used = [
        f.name for f in all_flags().values() if (f.benchmarks and is_benchmark) or mode in f.modes
    ]
    return [name for name in used if name != "mode"]


def _valid_words(flag: FlagField) -> list[str]:
    if flag.type is bool:
        return [f"--{flag.name}", f"--no{flag.name}"]
    values = _FORMS.get(flag.name, "").split() or flag.choices
    if not values and flag.type is str:
        values = (flag.default or "", flag.example)
    if not values:
        low, high = flag.minimum or 0, math.inf if flag.maximum is None else flag.maximum
        below = math.inf if flag.below is None else flag.below
        numbers = {flag.type(number) for number in (low, *_NUMBERS)}
        values = sorted(n for n in numbers if low <= n <= high and n < below)
    return [f"--{flag.name}={value}" for value in values]


def _odd_words(flag: FlagField) -> list[str]:
    if flag.choices or flag.type is bool:
        values = _ODD_NUMBERS[-1:]
    else:
        values = _ODD_TEXTS if flag.type is str else (*_ODD_NUMBERS, flag.maximum)
    return [f"--{flag.name}={value}" for value in values]
