"""Preparing raw data sets: converted files, refused folders, full disks and resuming."""

import dataclasses
import errno
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.decoding import decode
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import prepare, reencode, verify
from input_pipeline.sources import manifest, source
from input_pipeline.system import progress
from tests.input_pipeline import encoded_images as images
from tests.input_pipeline.files import put

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_unusual_file_names_are_kept(tmp_path):
    """Spaces, tabs and bytes that are not UTF-8 are kept. A line break is refused."""
    names = [
        b"a b.jpg",
        b"tab\there.jpg",
        "\u00e9t\u00e9 \u732b.jpg".encode(),
        b"\xff.jpg",
        b"x 3.jpg",
    ]
    data = images.good_files()["jpeg 4:2:0"]
    for name in names:
        put(tmp_path / "raw dir" / "train" / "class one" / os.fsdecode(name), data)
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw dir"))
    for storage in ("lists", "tfrecord"):
        prepare.prepare(config, PrepareConfig(), tmp_path / storage, storage)
        prepared = dataclasses.replace(config, data_dir=str(tmp_path / storage))
        opened = source.open_split(prepared, "train")
        assert opened.class_names == ("class one",)
        described = {os.fsencode(opened.describe(i)) for i in range(len(names))}
        assert all(any(name in text for text in described) for name in names)
        assert all(opened.read(tf.constant(i, tf.int64))[0] == data for i in range(len(names)))
    put(tmp_path / "raw dir" / "train" / "class one" / "two\nlines.jpg", data)
    with pytest.raises(DataError, match="the name contains a line break"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")


def test_broken_symlink_is_a_missing_image(tmp_path):
    put(tmp_path / "train" / "a" / "1.jpg", images.good_files()["jpeg 4:2:0"])
    (tmp_path / "train" / "a" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "train" / "a" / "3.jpg").symlink_to(tmp_path / "train" / "a" / "1.jpg")
    (tmp_path / "train" / "a" / "folder.jpg").mkdir()
    (tmp_path / "train" / "a" / "loop.jpg").symlink_to("loop.jpg")
    config = DataConfig(dataset="folder", data_dir=str(tmp_path))
    assert source.open_split(config, "train").num_examples == 4
    report, _ = verify.verify(config, PrepareConfig())
    kinds = {finding["file"]: finding["kind"] for finding in report["findings"]}
    assert kinds.pop("train/a/loop.jpg") in ("missing", "unreadable")
    assert kinds == {"train/a/2.jpg": "missing", "train/a/3.jpg": "duplicate"}
    with pytest.raises(DataError, match=r"2\.jpg"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")


def test_symlink_to_itself_is_named(tmp_path):
    put(tmp_path / "raw/train/a/1.jpg", images.good_files()["jpeg 4:2:0"])
    loop = tmp_path / "raw/train/a/2.jpg"
    loop.symlink_to(loop)
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    with pytest.raises(DataError, match=r"2\.jpg: Too many levels of symbolic links"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")


def test_full_disk_is_a_usage_error_and_prepare_resumes(tmp_path, tiny_folder):
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            _PREPARE_ON_FULL_DISK,
            str(tiny_folder),
            str(tmp_path / "out"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert child.stdout.startswith(f"UsageError --out={tmp_path / 'out'}: "), child.stderr[-2000:]
    config = DataConfig(dataset="folder", data_dir=str(tiny_folder))
    prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")


def test_full_disk_at_the_first_file_and_prepare_resumes(tmp_path, tiny_folder, monkeypatch):
    config = DataConfig(dataset="folder", data_dir=str(tiny_folder))

    def raise_disk_full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", raise_disk_full)
        with pytest.raises(UsageError, match="No space left on device"):
            prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")
    prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")
    assert manifest.exists(tmp_path / "out")


_PREPARE_ON_FULL_DISK = """
import resource, sys
from input_pipeline.preparation import prepare
from input_pipeline.config import DataConfig, PrepareConfig
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
config = DataConfig(dataset="folder", data_dir=sys.argv[1])
try:
    prepare.prepare(config, PrepareConfig(), sys.argv[2], "tfrecord")
except Exception as error:
    print(type(error).__name__, error)
"""


def _make_mismatched_set(root):
    """Writes a PNG named .JPEG, a CMYK JPEG, a large and a small JPEG, and a correct PNG."""
    good = images.good_files()
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))
    files = {
        "png.JPEG": good["png"],
        "cmyk.JPEG": good["jpeg cmyk"],
        "large.JPEG": images.encoded(large, "JPEG", quality=95),
        "small.JPEG": good["jpeg 4:2:0"],
        "correct.png": good["png"],
    }
    for name, data in files.items():
        put(root / "train" / "a" / name, data)
    return files


@pytest.mark.parametrize(("size", "fits"), [((65_500, 1), True), ((1, 65_501), False)])
def test_image_that_no_jpeg_file_can_hold_is_named(size, fits):
    _, png = cv2.imencode(".png", np.zeros((*size, 3), np.uint8))
    if fits:
        data, _ = reencode.prepare_image("a.jpg", png.tobytes(), 0, 90, "ignore")
        assert reencode.detect_format(data) == "JPEG"
        return
    with pytest.raises(DataError, match=r"^a\.jpg: 65501 x 1 px is too large for a JPEG file"):
        reencode.prepare_image("a.jpg", png.tobytes(), 0, 90, "ignore")


@pytest.mark.parametrize("short_side", [0, 72])
def test_mismatched_files_are_converted_and_reported(tmp_path, short_side):
    files = _make_mismatched_set(tmp_path / "raw")
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    settings = PrepareConfig(short_side=short_side)
    metadata = prepare.prepare(config, settings, tmp_path / "out", "tfrecord")
    was = {c["file"].rpartition("/")[2]: c["was"] for c in metadata["conversions"]}
    assert was == {"png.JPEG": "PNG named .JPEG", "cmyk.JPEG": "CMYK JPEG"}
    config = dataclasses.replace(config, data_dir=str(tmp_path / "out"))
    split = source.open_split(config, "train")
    stored = {
        split.describe(i).rpartition("/")[2][:-1]: split.read(tf.constant(i, tf.int64))[0].numpy()
        for i in range(split.num_examples)
    }
    assert set(stored) == set(files)
    for name, data in stored.items():
        before = decode.decode_image(tf.constant(files[name])).numpy()
        after = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        if name in was:
            assert (
                reencode.detect_format(data) == "JPEG" and reencode.count_jpeg_components(data) == 3
            )
        elif not short_side or min(before.shape[:2]) <= short_side:
            assert data == files[name]
        expected = min(short_side or 10**9, min(before.shape[:2]))
        assert min(after.shape[:2]) == expected, name
    if short_side:
        large = Image.open(io.BytesIO(files["large.JPEG"]))
        expected = np.asarray(large.resize((96, 72), Image.BOX))
        after = np.asarray(Image.open(io.BytesIO(stored["large.JPEG"])))
        assert after.shape == (72, 96, 3)
        assert np.abs(after.astype(float) - expected).mean() < 25  # re-encoded noise


def test_lists_name_original_and_converted_files(tmp_path):
    files = _make_mismatched_set(tmp_path / "raw")
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    metadata = prepare.prepare(config, PrepareConfig(), tmp_path / "out", "lists")
    assert len(metadata["conversions"]) == 2
    opened = source.open_split(dataclasses.replace(config, data_dir=str(tmp_path / "out")), "train")
    for i in range(opened.num_examples):
        data = opened.read(tf.constant(i, tf.int64))[0].numpy()
        assert not reencode.find_format_mismatch(opened.describe(i), data)
    assert opened.num_examples == len(files)


def test_repeated_file_in_list_is_converted_once(tmp_path):
    """Lists repeat files to balance classes. Two threads must not write the same file."""
    put(tmp_path / "set" / "a.jpg", images.good_files()["png"])
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text("a.jpg 0\n" * 300)
    lists = {f"{split}_list": str(tmp_path / f"{split}.txt") for split in ("train", "val")}
    config = DataConfig(dataset="lists", data_dir=str(tmp_path / "set"), **lists)
    metadata = prepare.prepare(config, PrepareConfig(), tmp_path / "out", "lists")
    assert [c["file"] for c in metadata["conversions"]] == ["a.jpg"]
    opened = source.open_split(dataclasses.replace(config, data_dir=str(tmp_path / "out")), "val")
    assert opened.num_examples == 300
    assert reencode.detect_format(opened.read(tf.constant(299, tf.int64))[0].numpy()) == "JPEG"


def test_converted_files_are_distinct_and_inside_out_folder(tmp_path):
    """Names in a list may be paths outside of data_dir, and files may share a stem."""
    good = images.good_files()
    photos = tmp_path / "photos"
    put(photos / "p.jpg", good["png"])
    put(photos / "sub" / "p.jpg", good["jpeg cmyk"])
    put(photos / "sub" / "p.png", good["jpeg 4:2:0"])
    (tmp_path / "set").mkdir()
    names = [str(photos / "p.jpg"), "../photos/sub/p.jpg", "../photos/sub/p.png"]
    train_list = tmp_path / "train.txt"
    train_list.write_text("".join(f"{name} {n}\n" for n, name in enumerate(names)))
    config = DataConfig(dataset="lists", data_dir=str(tmp_path / "set"), train_list=str(train_list))
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    out = tmp_path / "out"
    metadata = prepare.prepare(config, PrepareConfig(), out, "lists")
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before
    converted = [pathlib.Path(c["now"]) for c in metadata["conversions"]]
    assert len(set(converted)) == 3 and {path.parent for path in converted} == {out / "converted"}
    assert {name for name in os.listdir(out / "converted")} == {path.name for path in converted}
    opened = source.open_split(dataclasses.replace(config, data_dir=str(out)), "train")
    for n, kind in enumerate(("png", "jpeg cmyk", "jpeg 4:2:0")):
        data, label = opened.read(tf.constant(n, tf.int64))
        difference = (
            decode.decode_image(data).numpy() - decode.decode_image(tf.constant(good[kind])).numpy()
        )
        assert int(label) == n and np.abs(difference.astype(np.int8)).mean() < 10


def test_out_folder_with_invalid_utf8(tmp_path):
    put(tmp_path / "raw" / "train" / "a" / "1.jpg", images.good_files()["jpeg 4:2:0"])
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    out = tmp_path / "p\udce9t"
    prepare.prepare(config, PrepareConfig(), out, "tfrecord")
    report, _ = verify.verify(dataclasses.replace(config, data_dir=str(out)), PrepareConfig())
    assert report["bad"] == 0 and report["images"] == {"train": 1}


def test_reencoding_refuses_an_image_that_does_not_decode(tmp_path):
    put(tmp_path / "raw" / "train" / "a" / "bad.JPEG", images.good_files()["jpeg 4:2:0"][:300])
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    with pytest.raises(DataError, match=r"a/bad\.JPEG does not decode: (?!Graph)\w"):
        prepare.prepare(config, PrepareConfig(short_side=10), tmp_path / "out", "tfrecord")


def test_non_empty_out_folder_is_refused(tmp_path, tiny_folder):
    config = DataConfig(dataset="folder", data_dir=str(tiny_folder))
    put(tmp_path / "out" / "x")
    with pytest.raises(UsageError, match=r"--out=.*not an empty folder"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")
    prepare.prepare(config, PrepareConfig(), tmp_path / "two", "tfrecord")
    with pytest.raises(UsageError, match="already contains a prepared data set"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "two", "tfrecord")


def test_out_folder_next_to_class_folders_is_refused(tmp_path, tiny_folder):
    """It would be read as a class. Next to the split folders it is accepted."""
    shutil.copytree(tiny_folder, tmp_path / "raw")
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    (tmp_path / "link").symlink_to(tmp_path / "raw" / "train")
    train = tmp_path / "raw" / "train"
    for out in (train / "out", train / "out" / "v1", tmp_path / "link" / "out"):
        with pytest.raises(UsageError, match="would be read as a class folder"):
            prepare.prepare(config, PrepareConfig(), out, "lists")
    prepare.prepare(config, PrepareConfig(), tmp_path / "raw" / "out", "lists")
    classes = dataclasses.replace(config, data_dir=str(tmp_path / "raw" / "train"))
    with pytest.raises(UsageError, match="would be read as a class folder"):
        prepare.prepare(classes, PrepareConfig(), tmp_path / "raw" / "train" / "out", "lists")
    assert sorted(p.name for p in (tmp_path / "raw" / "train").iterdir()) == [
        *("disc", "grid", "stripes")
    ]


def test_out_folder_behind_symlink(tmp_path, tiny_folder):
    """Lists work through the link and through the real path."""
    (tmp_path / "far" / "away" / "disk").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away" / "disk")
    config = DataConfig(dataset="folder", data_dir=str(tiny_folder))
    prepare.prepare(config, PrepareConfig(), tmp_path / "link" / "out", "lists")
    for parent in (tmp_path / "link", tmp_path / "far" / "away" / "disk"):
        opened = source.open_split(
            dataclasses.replace(config, data_dir=str(parent / "out")), "train"
        )
        assert opened.read(tf.constant(3, tf.int64))[0].numpy()[:2] == b"\xff\xd8"


def test_refused_prepare_leaves_no_folder(tmp_path):
    (tmp_path / "raw" / "train" / "a").mkdir(parents=True)
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    with pytest.raises(DataError, match="no labeled image"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--out=.*file: cannot write to this folder"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "file", "tfrecord")


class _RecordingBar(progress.NoProgress):
    """Records the counts."""

    def __init__(self, total, done=0):
        super().__init__(total, done)
        self.total, self.initial, self.done = total, done, done

    def advance(self, images):
        self.done += images


class _InterruptingBar(progress.NoProgress):
    """Raises KeyboardInterrupt after ten images: more than four shards of `_SMALL_SHARDS`."""

    def __init__(self, total, done=0):
        super().__init__(total, done)
        self._left = 10

    def advance(self, images):
        self._left -= images
        if self._left <= 0:
            raise KeyboardInterrupt


_SMALL_SHARDS = PrepareConfig(shard_megabytes=0.002)  # one or two images in a shard


_PREPARE_SLOWLY = """
import sys, time
from input_pipeline.preparation import prepare
from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.system import progress
class SlowBar(progress.NoProgress):
    def advance(self, images):
        print(images, flush=True)
        time.sleep(0.1)
config = DataConfig(dataset="folder", data_dir=sys.argv[1])
settings = PrepareConfig(shard_megabytes=0.002)
prepare.prepare(config, settings, sys.argv[2], "tfrecord", SlowBar)
"""


def test_killed_prepare_resumes_and_keeps_finished_shards(tmp_path, tiny_folder):
    out = tmp_path / "out"
    command = [sys.executable, "-c", _PREPARE_SLOWLY, str(tiny_folder), str(out)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for _ in range(12):  # images
        child.stdout.readline()
    config = DataConfig(dataset="folder", data_dir=str(tiny_folder))
    with pytest.raises(UsageError, match=r"--out=.*: another process is writing to this folder"):
        prepare.prepare(config, _SMALL_SHARDS, out, "tfrecord")
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (out / ".lock").exists()  # the process is dead, so nothing holds it
    assert not manifest.exists(out)
    kept = [p for p in out.glob("*.tfrecord") if (out / ".unfinished" / f"{p.name}.json").exists()]
    (out / ".tmp-1-train-00009").write_bytes(b"left by a kill during a write")
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(kept) >= 3
    time.sleep(0.01)
    with pytest.raises(UsageError, match="unfinished data set with other images or flags"):
        prepare.prepare(config, PrepareConfig(shard_megabytes=0.004), out, "tfrecord")
    bars = []
    metadata = prepare.prepare(
        config,
        _SMALL_SHARDS,
        out,
        "tfrecord",
        lambda *counts: bars.append(_RecordingBar(*counts)) or bars[-1],
    )
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    records = {
        shard["name"]: shard["records"]
        for s in metadata["splits"].values()
        for shard in s["shards"]
    }
    checking, writing = bars  # one checks existing shards, one counts written images
    assert (checking.initial, checking.done) == (0, checking.total)
    assert writing.initial == sum(records[path.name] for path in kept)
    assert writing.done == writing.total == sum(records.values())
    uninterrupted = prepare.prepare(config, _SMALL_SHARDS, tmp_path / "at once", "tfrecord")
    assert {**metadata, "root": ""} == {**uninterrupted, "root": ""}
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("size", ["another", "the same"])
def test_resumed_prepare_rewrites_shards_of_a_replaced_file(tmp_path, tiny_folder, size):
    """A file of another size moves the bounds of the shards, so they contain other images."""
    folder, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(tiny_folder, folder)
    config = DataConfig(dataset="folder", data_dir=str(folder))
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(config, _SMALL_SHARDS, out, "tfrecord", _InterruptingBar)
    assert len(list(out.glob("*.tfrecord"))) >= 4
    replaced = sorted((folder / "train").glob("*/*"))[2]
    if size == "another":
        replaced.write_bytes(images.encoded(images.picture(), "JPEG", quality=95))
    else:  # JPEG readers stop at the end of the image
        other = images.encoded(images.picture().resize((8, 8)), "JPEG")
        replaced.write_bytes(other.ljust(replaced.stat().st_size, b"\0"))
    metadata = prepare.prepare(config, _SMALL_SHARDS, out, "tfrecord")
    uninterrupted = prepare.prepare(config, _SMALL_SHARDS, tmp_path / "at once", "tfrecord")
    assert {**metadata, "root": ""} == {**uninterrupted, "root": ""}
