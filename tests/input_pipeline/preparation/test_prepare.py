"""What becomes of raw data sets, and what a killed run leaves behind."""

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

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.decoding import decode
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import prepare, reencode, verify
from input_pipeline.sources import manifest, source
from input_pipeline.system import atomic_files, progress
from tests.input_pipeline import encoded_images as images
from tests.input_pipeline.files import put

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_names_of_files_that_lists_find_hard(tmp_path):
    """Spaces, tabs and bytes that are no UTF-8 are kept; a line break no list could hold."""
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
        assert all(any(name in one for one in described) for name in names)
        assert all(opened.read(tf.constant(i, tf.int64))[0] == data for i in range(len(names)))
    put(tmp_path / "raw dir" / "train" / "class one" / "two\nlines.jpg", data)
    with pytest.raises(DataError, match="a line break in a file's name"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")


def test_a_link_to_nowhere_is_a_missing_image(tmp_path):
    put(tmp_path / "train" / "a" / "1.jpg", images.good_files()["jpeg 4:2:0"])
    (tmp_path / "train" / "a" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "train" / "a" / "3.jpg").symlink_to(tmp_path / "train" / "a" / "1.jpg")
    (tmp_path / "train" / "a" / "folder.jpg").mkdir()
    (tmp_path / "train" / "a" / "loop.jpg").symlink_to("loop.jpg")
    config = DataConfig(dataset="folder", data_dir=str(tmp_path))
    assert source.open_split(config, "train").num_examples == 4
    report, _ = verify.verify(config, PrepareConfig())
    found = {finding["file"]: finding["kind"] for finding in report["findings"]}
    assert found.pop("train/a/loop.jpg") in ("missing", "unreadable")
    assert found == {"train/a/2.jpg": "missing", "train/a/3.jpg": "duplicate"}
    with pytest.raises(DataError, match=r"2\.jpg"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")


def test_a_disk_that_is_full(tmp_path, tiny_folder):
    """The end is one line, and the same command goes on."""
    child = subprocess.run(
        [sys.executable, "-c", _FULL, str(tiny_folder), str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert child.stdout.startswith(f"UsageError --out={tmp_path / 'out'}: "), child.stderr[-2000:]
    config = DataConfig(dataset="folder", data_dir=str(tiny_folder))
    prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")


def test_a_folder_in_which_nothing_has_begun(tmp_path, tiny_folder, monkeypatch):
    """A disk that is full at the very first file, and the same command when there is room."""
    config = DataConfig(dataset="folder", data_dir=str(tiny_folder))

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(atomic_files, "write_bytes", full)
        with pytest.raises(UsageError, match="No space left on device"):
            prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")
    prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")
    assert manifest.exists(tmp_path / "out")


_FULL = """
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


def _foreign_set(root):
    """A PNG named .JPEG, a CMYK JPEG, a large and a small JPEG, and an honest PNG."""
    good = images.good_files()
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))
    files = {
        "png.JPEG": good["png"],
        "cmyk.JPEG": good["jpeg cmyk"],
        "large.JPEG": images.encoded(large, "JPEG", quality=95),
        "small.JPEG": good["jpeg 4:2:0"],
        "honest.png": good["png"],
    }
    for name, data in files.items():
        put(root / "train" / "a" / name, data)
    return files


@pytest.mark.parametrize("short_side", [0, 72])
def test_foreign_files_are_converted_and_listed(tmp_path, short_side):
    files = _foreign_set(tmp_path / "raw")
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    settings = PrepareConfig(short_side=short_side)
    facts = prepare.prepare(config, settings, tmp_path / "out", "tfrecord")
    was = {c["file"].rpartition("/")[2]: c["was"] for c in facts["conversions"]}
    assert was == {"png.JPEG": "PNG named .JPEG", "cmyk.JPEG": "CMYK JPEG"}
    config = dataclasses.replace(config, data_dir=str(tmp_path / "out"))
    split = source.open_split(config, "train")
    stored = {
        split.describe(i).rpartition("/")[2][:-1]: split.read(tf.constant(i, tf.int64))[0].numpy()
        for i in range(split.num_examples)
    }
    assert set(stored) == set(files)
    height = min(Image.open(io.BytesIO(files["small.JPEG"])).size)
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
        assert min(after.shape[:2]) == expected, (name, height)
    if short_side:
        wanted = np.asarray(Image.open(io.BytesIO(files["large.JPEG"])).resize((96, 72), Image.BOX))
        after = np.asarray(Image.open(io.BytesIO(stored["large.JPEG"])))
        assert after.shape == (72, 96, 3)
        assert np.abs(after.astype(float) - wanted).mean() < 25  # noise, re-encoded


def test_lists_point_at_the_files_and_at_their_conversions(tmp_path):
    files = _foreign_set(tmp_path / "raw")
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    facts = prepare.prepare(config, PrepareConfig(), tmp_path / "out", "lists")
    assert len(facts["conversions"]) == 2
    opened = source.open_split(dataclasses.replace(config, data_dir=str(tmp_path / "out")), "train")
    for i in range(opened.num_examples):
        data = opened.read(tf.constant(i, tf.int64))[0].numpy()
        assert not reencode.find_format_mismatch(opened.describe(i), data)
    assert opened.num_examples == len(files)


def test_a_list_that_names_a_file_often_converts_it_once(tmp_path):
    """As one that balances its classes does; threads would write one file at the same time."""
    put(tmp_path / "set" / "a.jpg", images.good_files()["png"])
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text("a.jpg 0\n" * 300)
    lists = {f"{split}_list": str(tmp_path / f"{split}.txt") for split in ("train", "val")}
    config = DataConfig(dataset="lists", data_dir=str(tmp_path / "set"), **lists)
    facts = prepare.prepare(config, PrepareConfig(), tmp_path / "out", "lists")
    assert [c["file"] for c in facts["conversions"]] == ["a.jpg"]
    opened = source.open_split(dataclasses.replace(config, data_dir=str(tmp_path / "out")), "val")
    assert opened.num_examples == 300
    assert reencode.detect_format(opened.read(tf.constant(299, tf.int64))[0].numpy()) == "JPEG"


def test_what_is_converted_stays_apart_and_inside_of_out(tmp_path):
    """Names in a list may be paths to anywhere, and two files may share a stem."""
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
    facts = prepare.prepare(config, PrepareConfig(), out, "lists")
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before
    made = [pathlib.Path(c["now"]) for c in facts["conversions"]]
    assert len(set(made)) == 3 and {path.parent for path in made} == {out / "converted"}
    assert {name for name in os.listdir(out / "converted")} == {path.name for path in made}
    opened = source.open_split(dataclasses.replace(config, data_dir=str(out)), "train")
    for n, kind in enumerate(("png", "jpeg cmyk", "jpeg 4:2:0")):
        data, label = opened.read(tf.constant(n, tf.int64))
        difference = (
            decode.decode_image(data).numpy() - decode.decode_image(tf.constant(good[kind])).numpy()
        )
        assert int(label) == n and np.abs(difference.astype(np.int8)).mean() < 10


def test_a_folder_that_is_not_utf8(tmp_path):
    put(tmp_path / "raw" / "train" / "a" / "1.jpg", images.good_files()["jpeg 4:2:0"])
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    out = tmp_path / "p\udce9t"
    prepare.prepare(config, PrepareConfig(), out, "tfrecord")
    report, _ = verify.verify(dataclasses.replace(config, data_dir=str(out)), PrepareConfig())
    assert report["bad"] == 0 and report["images"] == {"train": 1}


def test_an_image_that_does_not_decode_stops_a_reencoding(tmp_path):
    put(tmp_path / "raw" / "train" / "a" / "bad.JPEG", images.good_files()["jpeg 4:2:0"][:300])
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    with pytest.raises(DataError, match=r"a/bad\.JPEG does not decode: (?!Graph)\w"):
        prepare.prepare(config, PrepareConfig(short_side=10), tmp_path / "out", "tfrecord")


def test_other_contents_of_out_are_refused(tmp_path, tiny_folder):
    config = DataConfig(dataset="folder", data_dir=str(tiny_folder))
    put(tmp_path / "out" / "x")
    with pytest.raises(UsageError, match=r"--out=.*not an empty folder"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")
    prepare.prepare(config, PrepareConfig(), tmp_path / "two", "tfrecord")
    with pytest.raises(UsageError, match="holds a prepared set already"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "two", "tfrecord")


def test_out_inside_of_the_raw_set(tmp_path, tiny_folder):
    """Beside the splits is fine; among the classes it would be one."""
    shutil.copytree(tiny_folder, tmp_path / "raw")
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    (tmp_path / "link").symlink_to(tmp_path / "raw" / "train")
    for out in (tmp_path / "raw" / "train" / "out", tmp_path / "link" / "out"):
        with pytest.raises(UsageError, match="lies among the class folders"):
            prepare.prepare(config, PrepareConfig(), out, "lists")
    prepare.prepare(config, PrepareConfig(), tmp_path / "raw" / "out", "lists")
    classes = dataclasses.replace(config, data_dir=str(tmp_path / "raw" / "train"))
    with pytest.raises(UsageError, match="lies among the class folders"):
        prepare.prepare(classes, PrepareConfig(), tmp_path / "raw" / "train" / "out", "lists")
    assert sorted(p.name for p in (tmp_path / "raw" / "train").iterdir()) == [
        *("disc", "grid", "stripes")
    ]


def test_out_behind_a_link(tmp_path, tiny_folder):
    """Lists find their images from where the link leads."""
    (tmp_path / "far" / "away" / "disk").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away" / "disk")
    config = DataConfig(dataset="folder", data_dir=str(tiny_folder))
    prepare.prepare(config, PrepareConfig(), tmp_path / "link" / "out", "lists")
    for home in (tmp_path / "link", tmp_path / "far" / "away" / "disk"):
        opened = source.open_split(dataclasses.replace(config, data_dir=str(home / "out")), "train")
        assert opened.read(tf.constant(3, tf.int64))[0].numpy()[:2] == b"\xff\xd8"


def test_a_refused_command_leaves_nothing(tmp_path):
    (tmp_path / "raw" / "train" / "a").mkdir(parents=True)
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    with pytest.raises(DataError, match="no labelled image"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--out=.*file: nothing can be written there"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "file", "tfrecord")


class _Bar(progress.NoProgress):
    """Remembers what was counted."""

    def __init__(self, total, done=0):
        super().__init__(total, done)
        self.total, self.first_done, self.done = total, done, done

    def advance(self, images):
        self.done += images


_CHILD = """
import sys, time
from input_pipeline.preparation import prepare, shard_writer
from input_pipeline.config import DataConfig, PrepareConfig
shard_writer._MEGABYTE = 2000
write = shard_writer.tfrecord.write_shard
def slowly(path, records):
    facts = write(path, records)
    print(path.name, flush=True)
    time.sleep(0.3)
    return facts
shard_writer.tfrecord.write_shard = slowly
config = DataConfig(dataset="folder", data_dir=sys.argv[1])
prepare.prepare(config, PrepareConfig(shard_megabytes=1), sys.argv[2], "tfrecord")
"""


def test_a_killed_run_is_continued_and_finished_shards_are_kept(tmp_path, tiny_folder, monkeypatch):
    out = tmp_path / "out"
    command = [sys.executable, "-c", _CHILD, str(tiny_folder), str(out)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for _ in range(4):
        child.stdout.readline()
    config = DataConfig(dataset="folder", data_dir=str(tiny_folder))
    with pytest.raises(UsageError, match=r"--out=.*: another process writes there"):
        prepare.prepare(config, PrepareConfig(shard_megabytes=1), out, "tfrecord")
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (out / ".lock").exists()  # and is no lock any more
    assert not manifest.exists(out)
    kept = [p for p in out.glob("*.tfrecord") if (out / ".unfinished" / f"{p.name}.json").exists()]
    (out / ".tmp-1-train-00009").write_bytes(b"what a kill inside of a write leaves")
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(kept) >= 3
    time.sleep(0.01)
    monkeypatch.setattr(prepare.shard_writer, "_MEGABYTE", 2000)
    with pytest.raises(UsageError, match="beginning of another set"):
        prepare.prepare(config, PrepareConfig(shard_megabytes=2), out, "tfrecord")
    bars = []
    facts = prepare.prepare(
        config,
        PrepareConfig(shard_megabytes=1),
        out,
        "tfrecord",
        lambda *counts: bars.append(_Bar(*counts)) or bars[-1],
    )
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    records = {
        shard["name"]: shard["records"] for s in facts["splits"].values() for shard in s["shards"]
    }
    looking, writing = bars  # at the shards that are there, at what is written
    assert (looking.first_done, looking.done) == (0, looking.total)
    assert writing.first_done == sum(records[path.name] for path in kept)
    assert writing.done == writing.total == sum(records.values())
    whole = prepare.prepare(
        config, PrepareConfig(shard_megabytes=1), tmp_path / "at once", "tfrecord"
    )
    assert {**facts, "root": ""} == {**whole, "root": ""}
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("size", ["another", "the same"])
def test_a_file_that_was_replaced_between_two_calls(tmp_path, tiny_folder, monkeypatch, size):
    """A larger one moves the borders of shards: none is kept that stands for other images now."""
    folder, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(tiny_folder, folder)
    monkeypatch.setattr(prepare.shard_writer, "_MEGABYTE", 2000)
    config = DataConfig(dataset="folder", data_dir=str(folder))
    write, written = prepare.shard_writer.tfrecord.write_shard, []

    def stops(path, records):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(path.name)
        return write(path, records)

    with monkeypatch.context() as patch:
        patch.setattr(prepare.shard_writer.tfrecord, "write_shard", stops)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare(config, PREPARE_1, out, "tfrecord")
    replaced = sorted((folder / "train").glob("*/*"))[2]
    if size == "another":
        replaced.write_bytes(images.encoded(images.picture(), "JPEG", quality=95))
    else:  # JPEG readers stop at the end of the image
        other = images.encoded(images.picture().resize((8, 8)), "JPEG")
        replaced.write_bytes(other.ljust(replaced.stat().st_size, b"\0"))
    facts = prepare.prepare(config, PREPARE_1, out, "tfrecord")
    whole = prepare.prepare(config, PREPARE_1, tmp_path / "at once", "tfrecord")
    assert {**facts, "root": ""} == {**whole, "root": ""}


PREPARE_1 = PrepareConfig(shard_megabytes=1)
