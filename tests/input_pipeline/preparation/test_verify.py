"""Verification across images: duplicates, changed files and deleted files."""

import hashlib
import os
import shutil
import subprocess

import pytest

from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.preparation import verify
from tests.input_pipeline import encoded_images as images
from tests.input_pipeline import imagenet_layouts
from tests.input_pipeline.files import put


@pytest.mark.parametrize("lines", [("1.jpg 0", "1.jpg 1"), ("1.jpg 0", "1.jpg 0")])
def test_file_listed_in_two_splits_is_a_duplicate(tmp_path, lines):
    """With the same label or another one."""
    put(tmp_path / "1.jpg", images.good_files()["jpeg 4:2:0"])
    put(tmp_path / "train.txt", f"{lines[0]}\n".encode())
    put(tmp_path / "val.txt", f"{lines[1]}\n".encode())
    lists = {f"{split}_list": str(tmp_path / f"{split}.txt") for split in ("train", "val")}
    put(tmp_path / "names.txt", b"0 a a\n1 b b\n")
    lists["class_names"] = str(tmp_path / "names.txt")
    config = DataConfig(dataset="lists", data_dir=str(tmp_path), **lists)
    report, _ = verify.verify(config, PrepareConfig())
    assert report["duplicates_across_splits"] == 1
    (finding,) = report["findings"]
    assert (finding["kind"], finding["split"], finding["of_split"]) == (
        "duplicate",
        "val",
        "train",
    )
    assert ("is of class a, not b" in finding["why"]) == (lines[1] == "1.jpg 1")


def test_moved_and_deleted_files_are_reported_and_a_new_file_gets_a_checksum(tmp_path):
    for name in ("train/a/1.jpg", "train/b/2.jpg"):
        put(tmp_path / name, images.good_files()["jpeg 4:2:0"] + name.encode())
    config = DataConfig(dataset="folder", data_dir=str(tmp_path))
    sums_path = tmp_path / "SHA256SUMS"
    report, sums = verify.verify(config, PrepareConfig(), sums_path)
    assert sums.keys() == {"train/a/1.jpg", "train/b/2.jpg"} and not report["findings"]
    sums_path.write_bytes(verify.format_checksums(sums))
    (tmp_path / "train/b/2.jpg").rename(tmp_path / "train/b/3.jpg")
    report, sums = verify.verify(config, PrepareConfig(), sums_path)
    (finding,) = report["findings"]
    assert (finding["kind"], finding["file"]) == ("moved", "train/b/2.jpg")
    assert finding["why"] == "is train/b/3.jpg now" and not report["bad"]
    assert sums.keys() == {f"train/{name}.jpg" for name in ("a/1", "b/3")}
    (tmp_path / "train/b/3.jpg").write_bytes(images.good_files()["jpeg 4:2:0"])
    (tmp_path / "train/b/3.jpg").rename(tmp_path / "train/b/4.jpg")
    report, sums = verify.verify(config, PrepareConfig(), sums_path)
    assert [(f["kind"], f["file"]) for f in report["findings"]] == [("gone", "train/b/2.jpg")]
    assert sums.keys() == {f"train/{name}.jpg" for name in ("a/1", "b/2", "b/4")}


def test_checksum_file_round_trips_and_matches_sha256sum(tmp_path):
    """Also for names with spaces, line breaks, backslashes and invalid UTF-8."""
    names = ["a.jpg", "two  spaces.jpg", "n\nl.jpg", "back\\slash.jpg", "back\\n.jpg", "\udce9.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode(errors="surrogateescape"))
    sums = {n: hashlib.sha256((tmp_path / n).read_bytes()).hexdigest() for n in names}
    path = tmp_path / "SHA256SUMS"
    path.write_bytes(verify.format_checksums(sums))
    assert verify.read_checksums(path) == sums
    if shutil.which("sha256sum"):
        check = subprocess.run(["sha256sum", "--check", path], cwd=tmp_path, capture_output=True)
        assert check.returncode == 0 and not check.stderr


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_irregular_and_huge_files_are_findings(tmp_path, kind):
    """Reading them would wait for ever, or fill the memory."""
    put(tmp_path / "train/a/1.jpg", images.good_files()["jpeg 4:2:0"])
    path = tmp_path / "train/a/9.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 2**40)
    config = DataConfig(dataset="folder", data_dir=str(tmp_path))
    report, _ = verify.verify(config, PrepareConfig())
    assert [(f["kind"], f["file"]) for f in report["findings"]] == [("missing", "train/a/9.jpg")]


def test_report_names_what_training_misses_and_which_files_are_skipped(tmp_path):
    jpeg = images.good_files()["jpeg 4:2:0"]
    for number, name in enumerate(("train/a/1.jfif", "train/b/2.jpg", "train/c/3.jpg")):
        put(tmp_path / name, jpeg + bytes([number]))
    for name in ("train/a/x.HEIC", "train/a/y.heic", "train/b/z.tif", "train/b/Thumbs"):
        put(tmp_path / name)
    (tmp_path / "train" / "d").mkdir()
    config = DataConfig(dataset="folder", data_dir=str(tmp_path))
    report, _ = verify.verify(config, PrepareConfig())
    assert report["images"] == {"train": 3}
    assert report["skipped"] == {".heic": 2, ".tif": 1, "none": 1}
    empty = "the train split has no image of 1 class: d"
    assert report["missing"] == ["there is no val split", empty]
    put(tmp_path / "val" / "b" / "4.jpg", jpeg + b"4")
    report, _ = verify.verify(config, PrepareConfig())
    gap = "the val split has no image of 2 classes: a, c"
    assert report["missing"] == [empty, gap]


def test_report_compares_with_the_full_data_set(tmp_path):
    put(tmp_path / "train" / "n01440764" / "1.jpg", images.good_files()["jpeg 4:2:0"])
    config = DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path))
    missing = verify.verify(config, PrepareConfig())[0]["missing"]
    assert missing[0] == "there is no val split"
    assert missing[1].startswith("the train split has no image of 999 classes: n01443537, ")
    assert missing[2] == "the train split has 1 images; the full one has 1281167"


def test_images_of_one_name_in_several_shards_are_not_changed(tmp_path):
    """Many WebDatasets number the images of each shard from zero."""
    for shard in range(3):
        files = [("0.jpg", imagenet_layouts._jpeg(shard)), ("0.cls", b"%d" % (shard % 2))]
        put(tmp_path / f"train-{shard}.tar", imagenet_layouts.tar_bytes(files))
    config = DataConfig(dataset="folder", data_dir=str(tmp_path))
    report, checksums = verify.verify(config, PrepareConfig())
    (tmp_path / "sums").write_bytes(verify.format_checksums(checksums))
    again, _ = verify.verify(config, PrepareConfig(), tmp_path / "sums")
    assert len(checksums) == 3
    assert report["findings"] == again["findings"] == []
