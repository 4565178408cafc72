"""Tests how `--image` resolves files, folders, globs and lines of stdin."""

import io
import os
import pathlib
import shutil

import pytest

from input_pipeline.errors import UsageError
from loops.tools.predict import image_paths

FILES = ("a.jpg", "b.PNG", "notes.txt", "sub/c.jpeg", "sub/deep/d.webp", "sub/deep/e.md")
ODD = ("one, two.jpg", "[1].jpg", "no_extension", "._a.jpg")


@pytest.fixture
def image_folder(tmp_path, monkeypatch):
    """Makes FILES and ODD in the current folder."""
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
        ("notes.txt", ["notes.txt"]),  # any extension is accepted for a named file
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
def test_find_expands_files_folders_and_globs(image_folder, text, expected):
    assert image_paths.find(text) == expected


def test_folder_of_a_glob_is_no_pattern(image_folder, tmp_path):
    (tmp_path / "x[2]/y").mkdir(parents=True)
    (tmp_path / "x[2]/y/f.jpg").write_bytes(b"")
    for pattern in ("x[2]/y/*.jpg", "x[2]/*/f.jpg", "x[2]/**", f"{tmp_path}/x[2]/y/[f].*"):
        paths = image_paths.find(pattern)
        assert [p.removeprefix(f"{tmp_path}/") for p in paths] == ["x[2]/y/f.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--image is missing"),
        ("nowhere.jpg", "--image=nowhere.jpg: there is no such file"),
        ("a.jpg,,b.PNG", "--image=: there is no such file"),
        ("empty", "--image=empty: the folder contains no image"),
        ("dir.jpg", "--image=dir.jpg: the folder contains no image"),
        ("*.tif", r"--image=\*\.tif: matches no image"),
        ("*.txt", r"--image=\*\.txt: matches no image"),
    ],
)
def test_find_rejects_missing_images(image_folder, text, message):
    with pytest.raises(UsageError, match=message):
        image_paths.find(text)


def set_stdin(monkeypatch, data):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))


def test_stdin_accepts_paths_that_are_not_utf8(image_folder, monkeypatch):
    """For example, file names in Latin-1."""
    name = b"caf\xe9.jpg"
    shutil.copy("a.jpg", os.fsdecode(name))
    set_stdin(monkeypatch, name + b"\n")
    assert image_paths.find("-") == [os.fsdecode(name)]


def test_stdin_has_one_path_per_line(image_folder, monkeypatch):
    set_stdin(monkeypatch, b"a.jpg\n\none, two.jpg\r\nsub\nno_extension")
    expected = ["a.jpg", "one, two.jpg", "sub/c.jpeg", "sub/deep/d.webp", "no_extension"]
    assert image_paths.find("-") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--image=-: stdin contains no path"),
        ("\n\n", "--image=-: stdin contains no path"),
        ("a.jpg\nnowhere.jpg\n", "--image=-, line 2: nowhere.jpg: there is no such file"),
    ],
)
def test_stdin_rejects_missing_images(image_folder, monkeypatch, text, message):
    set_stdin(monkeypatch, text.encode())
    with pytest.raises(UsageError, match=message):
        image_paths.find("-")


def test_closed_stdin(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="--image=-: stdin is closed"):
        image_paths.find("-")


def test_replace_non_utf8_returns_valid_text():
    odd = os.fsdecode(b"caf\xe9.jpg")
    with pytest.raises(UnicodeEncodeError):
        odd.encode()
    assert image_paths.replace_non_utf8(odd) == "caf\N{REPLACEMENT CHARACTER}.jpg"


def test_links_to_folders_are_followed_without_cycles(image_folder, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/2023").symlink_to(tmp_path / "sub")
    (tmp_path / "sub/cycle").symlink_to(tmp_path / "photos")
    expected = ["photos/2023/c.jpeg", "photos/2023/deep/d.webp"]
    assert image_paths.find("photos") == image_paths.find("phot*") == expected
    (tmp_path / "both/y").mkdir(parents=True)
    (tmp_path / "both/y/f.jpg").write_bytes(b"")
    for link, target in (("0", "both/y"), ("1", "sub"), ("y/deep", "sub"), ("z", "sub")):
        (tmp_path / "both" / link).symlink_to(tmp_path / target)
    assert image_paths.find("both") == ["both/1/c.jpeg", "both/1/deep/d.webp", "both/y/f.jpg"]


def test_files_of_a_folder_that_are_left_out_are_counted(image_folder, caplog):
    """Pictures of other formats are said to be such, also by a glob and without any image."""
    hidden = ("sub/.hidden", "sub/.index/split.txt", "sub/@eaDir/thumbnail.jpg")
    for name in (*hidden, "sub/IMG_1.HEIC", "empty/scan.TIF"):
        pathlib.Path(name).parent.mkdir(exist_ok=True)
        pathlib.Path(name).touch()
    pathlib.Path("sub/gone.jpg").symlink_to("nowhere.jpg")
    assert image_paths.find("sub") == ["sub/c.jpeg", "sub/deep/d.webp"]
    what = "2 files are not read (1 .heic, 1 .md): convert .heic to JPEG"
    broken = "1 image left out, not readable, such as sub/gone.jpg"
    assert caplog.messages == [f"sub: {what}", f"sub: {broken}"]
    image_paths.find("s*b")
    assert caplog.messages[2:] == [f"s*b: {what}", f"s*b: {broken}"]
    for name in ("empty", "empty/*"):
        with pytest.raises(UsageError, match=r"; 1 file is not read \(1 \.tif\): convert it to"):
            image_paths.find(name)


def test_sparse_file_that_claims_a_terabyte_is_no_image(image_folder):
    os.truncate("a.jpg", 2**40)
    assert "a.jpg" not in image_paths.find(".")
    with pytest.raises(UsageError, match=r"--image=a\.jpg: has 1099511627776 bytes"):
        image_paths.find("a.jpg")
