"""Paths on the command line: `~`, lists, and what is no local path."""

import re

import pytest

from loops.config import local_paths
from loops.config.config import all_flags, select_flags
from tests.command_line import leaf, parse, refusal

PATHS = (
    *("data_dir", "train_list", "val_list", "test_list", "class_names", "devkit", "split_csv"),
    *(
        "classes",
        "report",
        "features",
        "csv",
        "json",
        "real_labels",
        "save_logits",
        "out",
        "weights",
    ),
    *("checkpoint_dir", "init_from"),
)
LISTS = ("ckpt", "image", "logits", "test_sets")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flags_that_name_paths():
    assert select_flags(is_path=True) == {*PATHS}
    assert select_flags(is_path_list=True) == {*LISTS}
    texts = {name: flag.help for name, flag in all_flags().items() if flag.type is str}
    mention = {name for name, text in texts.items() if re.search(r"\b[Ff](ile|older)s?\b", text)}
    assert mention - {*PATHS, *LISTS} == {
        "dataset",
        "mode",
        "recipe",  # expanded where it is read
        "run_name",
        "source",
    }  # a new flag that names a path?


@pytest.mark.parametrize("name", [*PATHS, *LISTS])
def test_home_is_expanded_in_every_flag(home, name):
    assert leaf(parse(f"--{name}=~/x"), name) == f"{home}/x"
    assert leaf(parse(f"--{name}=~root/x"), name) == "/root/x"
    assert leaf(parse(f"--{name}=a~/x"), name) == "a~/x"


@pytest.mark.parametrize("name", LISTS)
def test_home_is_expanded_in_every_path_of_a_list(home, name):
    assert leaf(parse(f"--{name}=~/x,y,~/z*"), name) == f"{home}/x,y,{home}/z*"


@pytest.mark.parametrize(
    "path",
    [
        *("gs://x/y", "s3://x", "hdfs://host/x", "https://host/x.jpg", "file:///x", "ram://x"),
        *("host:/x", "me@host:/x", "C:\\x", "d:/x", "\\\\host\\x", "dbfs:/x"),
        *("", " ", "~no-such-user/x", "$DATA", "$DATA/x", "a/${DATA}/x", "$UNSET/x", "a\0b"),
    ],
)
def test_what_is_no_local_path_is_refused(home, path):
    for name in ("checkpoint_dir", "json", "ckpt"):
        assert refusal(parse, f"--{name}={path}").startswith(f"--{name}")
    assert refusal(parse, f"--ckpt=x,{path}").startswith("--ckpt")
    assert [*home.iterdir()] == []


def test_odd_names_of_local_paths_are_kept(home):
    for name in ("$DATA", "$x[1]", "a,b", "~no-such-user"):
        (home / name).mkdir()
        for path in (name, f"{name}/new", f"./{name}"):
            if not path.startswith("~no-such-user/"):
                assert leaf(parse(f"--ckpt={path}"), "ckpt") == path
    for path in ("./a:/b", "a:b", "10%", "5$", "a b", "ä", "-", "a@b"):
        assert leaf(parse(f"--ckpt={path}"), "ckpt") == path
    assert leaf(parse("--ckpt=~/a,b"), "ckpt") == f"{home}/a,b"


def test_list_is_split_at_commas_but_not_in_names(home):
    (home / "a,b").mkdir()
    assert local_paths.split("a,b") == ["a,b"]
    assert local_paths.split("a,b/best") == ["a,b/best"]
    assert local_paths.split("a,c") == ["a", "c"]
    assert local_paths.split("x/a,x/c/best") == ["x/a", "x/c/best"]
    assert local_paths.split("") == [""]
