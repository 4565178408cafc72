"""The fuzzers see each kind of fault, and each damage changes its file."""

import json
import pathlib

import pytest

from tests.fuzz import box, damage
from tests.fuzz.fork_server import ROOT, Outcome

FINE = Outcome(code=2, out="", err="a warning\nerror: --x=1: no\n", exceeded="", seconds=0.1)
TRACEBACK = f'Traceback\n  File "{ROOT}/loops/x.py", line 7, in f\nloops.x.OddError: no\n'


@pytest.mark.parametrize(
    ("changes", "changed", "fault"),
    [
        ({}, [], ""),
        ({"code": 0, "err": ""}, [], ""),
        ({"code": 143, "err": ""}, [], ""),
        ({}, ["work/a12"], "wrote work/aN"),
        ({"err": TRACEBACK}, [], "loops.x.OddError at loops/x.py:7"),
        ({"code": 1}, [], "exit code 1: error: --x=1: no"),
        ({"code": 139, "err": ""}, [], "exit code 139: "),
        ({"err": "no\n"}, [], "exit code 2 with 0 error lines, or more lines"),
        ({"err": "error: a\nerror: b\n"}, [], "exit code 2 with 2 error lines, or more lines"),
        ({"exceeded": "time", "err": TRACEBACK}, [], "too much time in loops/x.py:7"),
    ],
)
def test_fault_is_named(changes, changed, fault):
    assert box.find_fault(FINE._replace(**changes), changed) == fault


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/.index", True),
        ("data/.index/split.txt", True),
        ("data/train/.index/ilsvrc2012-train.npz", True),
        ("data/.index/ilsvrc2012-train.unfinished", True),
        ("data/.index/.tmp-0123", False),
        ("data/.index/other.txt", False),
        ("data/.index/deeper/split.txt", False),
        ("data/.index/.index", False),
        ("runs/.index/split.txt", False),
        ("runs/.index", False),
    ],
)
def test_only_indexes_next_to_images_may_be_written(tmp_path, path, expected):
    for name in ("data/train/cat/1.jpg", "runs/a/config.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert box.is_index(tmp_path, pathlib.PurePath(path)) == expected


@pytest.mark.parametrize(
    ("how", "number", "value", "damaged"),
    [
        ("flip", 3, "", b'{"a\x2a: [12, 3]}\n'),
        ("cut", -3, "", b'{"a": [12, 3'),
        ("write", 0, "xy", b'xya": [12, 3]}\n'),
        ("insert", 1, "\udcff", b'{\xff"a": [12, 3]}\n'),
        ("digits", 0, "", b'{"a": [99, 3]}\n'),
        ("drop line", 5, "", b""),
        ("double line", 0, "", b'{"a": [12, 3]}\n' * 2),
        ("json", 0, "NaN", b"NaN"),
        ("json", 3, "", b'{"a": [12]}'),
        ("replace", 0, "empty", b""),
    ],
)
def test_damage_changes_the_file(tmp_path, how, number, value, damaged):
    (tmp_path / "a.json").write_text('{"a": [12, 3]}\n')
    damage.apply(tmp_path, "*.json", how, number, value)
    assert (tmp_path / "a.json").read_bytes() == damaged


@pytest.mark.parametrize("stand_in", damage.STAND_INS)
def test_stand_in_is_not_the_file(tmp_path, stand_in):
    (tmp_path / "a").write_text("content")
    damage.apply(tmp_path, "a", "replace", 0, stand_in)
    assert not (tmp_path / "a").is_file() or (tmp_path / "a").read_text("latin-1") != "content"


def test_one_json_line_of_several_is_damaged(tmp_path):
    (tmp_path / "a").write_text("".join(f"{json.dumps({'n': n})}\n" for n in range(3)))
    damage.apply(tmp_path, "a", "json", 1 + 3 * 1, "1e999")
    assert (tmp_path / "a").read_text() == '{"n": 0}\n{"n": 1e999}\n{"n": 2}\n'
