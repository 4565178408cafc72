"""What `--image` names: files, folders, globs and lines of stdin."""

import io
import os
import shutil

import pytest

from input_pipeline.errors import UsageError
from loops.tools.predict import image_paths

FILES = ("a.jpg", "b.PNG", "notes.txt", "sub/c.jpeg", "sub/deep/d.webp", "sub/deep/e.md")
ODD = ("one, two.jpg", "[1].jpg", "no_extension", "._a.jpg")


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in (*FILES, *ODD):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dir.jpg").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.jpg", ["a.jpg"]),
        ("notes.txt", ["notes.txt"]),  # named, so tried: content decides what it is
        ("b.PNG,a.jpg,b.PNG", ["b.PNG", "a.jpg", "b.PNG"]),
        ("sub", ["sub/c.jpeg", "sub/deep/d.webp"]),
        (".", ["[1].jpg", "a.jpg", "b.PNG", "one, two.jpg", "sub/c.jpeg", "sub/deep/d.webp"]),
        ("a.jpg,sub/deep", ["a.jpg", "sub/deep/d.webp"]),
        ("*.jpg", ["[1].jpg", "a.jpg", "one, two.jpg"]),
        ("?.*,sub", ["a.jpg", "b.PNG", "sub/c.jpeg", "sub/deep/d.webp"]),
        ("sub/*", ["sub/c.jpeg", "sub/deep/d.webp"]),
        ("**/*.[jw]*", ["[1].jpg", "a.jpg", "one, two.jpg", "sub/c.jpeg", "sub/deep/d.webp"]),
        ("**", ["[1].jpg", "a.jpg", "b.PNG", "one, two.jpg", "sub/c.jpeg", "sub/deep/d.webp"]),
        ("[1].jpg", ["[1].jpg"]),
        ("one, two.jpg", ["one, two.jpg"]),
    ],
)
def test_found(here, text, expected):
    assert image_paths.find(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "--image is missing"),
        ("nowhere.jpg", "--image=nowhere.jpg: there is no such file"),
        ("a.jpg,,b.PNG", "--image=: there is no such file"),
        ("empty", "--image=empty: no image in this folder"),
        ("dir.jpg", "--image=dir.jpg: no image in this folder"),
        ("*.tif", r"--image=\*\.tif: no image matches"),
        ("*.txt", r"--image=\*\.txt: no image matches"),
    ],
)
def test_refused(here, text, words):
    with pytest.raises(UsageError, match=words):
        image_paths.find(text)


def send(monkeypatch, data):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))


def test_a_line_of_stdin_need_not_be_utf_8(here, monkeypatch):
    """In a folder of Latin-1 times: only the system knows what these bytes are called."""
    name = b"caf\xe9.jpg"
    shutil.copy("a.jpg", os.fsdecode(name))
    send(monkeypatch, name + b"\n")
    assert image_paths.find("-") == [os.fsdecode(name)]


def test_lines_of_stdin(here, monkeypatch):
    send(monkeypatch, b"a.jpg\n\none, two.jpg\r\nsub\nno_extension")
    expected = ["a.jpg", "one, two.jpg", "sub/c.jpeg", "sub/deep/d.webp", "no_extension"]
    assert image_paths.find("-") == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "--image=-: stdin names no file"),
        ("\n\n", "--image=-: stdin names no file"),
        ("a.jpg\nnowhere.jpg\n", "--image=-, line 2: nowhere.jpg: there is no such file"),
    ],
)
def test_refused_lines(here, monkeypatch, text, words):
    send(monkeypatch, text.encode())
    with pytest.raises(UsageError, match=words):
        image_paths.find("-")


def test_paths_that_are_no_text():
    odd = os.fsdecode(b"caf\xe9.jpg")
    with pytest.raises(UnicodeEncodeError):
        odd.encode()
    assert image_paths.replace_non_utf8(odd) == "caf\N{REPLACEMENT CHARACTER}.jpg"


def test_linked_folders_are_entered_and_rings_are_not(here, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/2023").symlink_to(tmp_path / "sub")
    (tmp_path / "sub/ring").symlink_to(tmp_path / "photos")
    expected = ["photos/2023/c.jpeg", "photos/2023/deep/d.webp"]
    assert image_paths.find("photos") == image_paths.find("phot*") == expected
    (tmp_path / "both/y").mkdir(parents=True)
    (tmp_path / "both/y/f.jpg").write_bytes(b"")
    for link, target in (("0", "both/y"), ("1", "sub"), ("y/deep", "sub"), ("z", "sub")):
        (tmp_path / "both" / link).symlink_to(tmp_path / target)
    assert image_paths.find("both") == ["both/1/c.jpeg", "both/1/deep/d.webp", "both/y/f.jpg"]
