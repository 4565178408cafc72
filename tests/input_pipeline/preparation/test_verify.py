"""What verifying sees beyond single images: copies, changes, and what has gone."""

import hashlib
import shutil
import subprocess

import pytest

from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.preparation import verify
from tests.input_pipeline import encoded_images as images
from tests.input_pipeline.files import put


@pytest.mark.parametrize("words", [("1.jpg 0", "1.jpg 1"), ("1.jpg 0", "1.jpg 0")])
def test_one_image_on_two_lines_of_lists(tmp_path, words):
    """In another split or under another label: it is no less a copy for having one name."""
    put(tmp_path / "1.jpg", images.good_files()["jpeg 4:2:0"])
    put(tmp_path / "train.txt", f"{words[0]}\n".encode())
    put(tmp_path / "val.txt", f"{words[1]}\n".encode())
    lists = {f"{split}_list": str(tmp_path / f"{split}.txt") for split in ("train", "val")}
    put(tmp_path / "names.txt", b"0 a a\n1 b b\n")
    lists["class_names"] = str(tmp_path / "names.txt")
    config = DataConfig(dataset="lists", data_dir=str(tmp_path), **lists)
    report, _ = verify.verify(config, PrepareConfig())
    assert report["duplicates_across_splits"] == 1
    (found,) = report["findings"]
    assert (found["kind"], found["split"], found["of_split"]) == ("duplicate", "val", "train")
    assert ("under label 0, not 1" in found["why"]) == (words[1] == "1.jpg 1")


def test_what_has_come_and_gone_since_the_checksums(tmp_path):
    for name in ("train/a/1.jpg", "train/b/2.jpg"):
        put(tmp_path / name, images.good_files()["jpeg 4:2:0"] + name.encode())
    config = DataConfig(dataset="folder", data_dir=str(tmp_path))
    sums_path = tmp_path / "SHA256SUMS"
    report, sums = verify.verify(config, PrepareConfig(), sums_path)
    assert sums.keys() == {"train/a/1.jpg", "train/b/2.jpg"} and not report["findings"]
    sums_path.write_bytes(verify.format_checksums(sums))
    (tmp_path / "train/b/2.jpg").rename(tmp_path / "train/b/3.jpg")
    report, sums = verify.verify(config, PrepareConfig(), sums_path)
    assert [(f["kind"], f["file"]) for f in report["findings"]] == [("gone", "train/b/2.jpg")]
    assert sums.keys() == {f"train/{name}.jpg" for name in ("a/1", "b/2", "b/3")}


def test_checksums_are_read_as_they_are_written(tmp_path):
    """And `sha256sum` agrees, also about names that hold what its lines are made of."""
    names = ["a.jpg", "two  spaces.jpg", "n\nl.jpg", "back\\slash.jpg", "back\\n.jpg", "\udce9.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode(errors="surrogateescape"))
    sums = {n: hashlib.sha256((tmp_path / n).read_bytes()).hexdigest() for n in names}
    path = tmp_path / "SHA256SUMS"
    path.write_bytes(verify.format_checksums(sums))
    assert verify.read_checksums(path) == sums
    if shutil.which("sha256sum"):
        done = subprocess.run(["sha256sum", "--check", path], cwd=tmp_path, capture_output=True)
        assert done.returncode == 0 and not done.stderr
