"""Raw layouts, what becomes of them, and what a killed run leaves behind."""

import dataclasses
import errno
import hashlib
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline import (
    datasets,
    decode,
    ground_truth,
    manifest,
    prepare,
    raw_layouts,
    raw_set,
    reencode,
    silent,
    source,
    verify,
)
from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.errors import DataError, UsageError
from tests.input_pipeline import encoded_images as images

ROOT = pathlib.Path(__file__).resolve().parents[2]
WNIDS = tuple(wnid for wnid, _ in datasets.class_table("ilsvrc2012"))


def _put(path, data=b"image"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _names(raw, split):
    return [(item.name, item.label) for item in raw.splits[split]]


def test_split_by_name_is_500_50_50_and_a_function_of_the_names():
    names = [f"n0153282900000{i:03d}.jpg" for i in range(600)]
    split = raw_set.split_by_name(names)
    assert {k: len(v) for k, v in split.items()} == {"train": 500, "val": 50, "test": 50}
    assert sorted(name for part in split.values() for name in part) == names
    assert raw_set.split_by_name(names[::-1]) == split
    order = sorted(names, key=lambda n: hashlib.sha256(n.encode()).hexdigest())
    assert split["val"] == sorted(order[500:550])


def test_class_tar_files_and_a_flat_val_folder(tmp_path):
    for wnid in WNIDS[3:5]:
        (tmp_path / "train").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / "train" / f"{wnid}.tar", "w") as tar:
            for number in (10, 2):
                data = f"{wnid} {number}".encode()
                member = tarfile.TarInfo(f"{wnid}_{number}.JPEG")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    for number in (1, 2, 3):
        _put(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    kit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    _put(kit / "ILSVRC2012_validation_ground_truth.txt", b"2\n1\n")
    _put(kit / "devkit_classes.txt", f"1 {WNIDS[7]}\n2 {WNIDS[9]}\n".encode())
    raw = raw_layouts.find(
        DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path)), PrepareConfig()
    )
    assert raw.classes == WNIDS
    assert [label for _, label in _names(raw, "train")] == [3, 3, 4, 4]
    assert [item.read().decode() for item in raw.splits["train"]] == [
        f"{wnid} {n}" for wnid in WNIDS[3:5] for n in (10, 2)
    ]
    assert _names(raw, "val") == [
        ("val/ILSVRC2012_val_00000002.JPEG", 7),
        ("val/ILSVRC2012_val_00000001.JPEG", 9),
    ]
    assert [pathlib.Path(p).name for p in raw.unlabelled] == ["ILSVRC2012_val_00000003.JPEG"]


@pytest.mark.parametrize("data", [b"", b"no tar file", "cut"])
def test_a_class_tar_file_that_is_not_whole(tmp_path, data):
    path = tmp_path / "train" / f"{WNIDS[3]}.tar"
    if data == "cut":
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w") as tar:
            member = tarfile.TarInfo("a.JPEG")
            member.size = 3000
            tar.addfile(member, io.BytesIO(bytes(3000)))
            tar.addfile(tarfile.TarInfo("b.JPEG"))
        data = whole.getvalue()[:2000]
    _put(path, data)
    config = DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path))
    with pytest.raises(DataError, match=rf"{WNIDS[3]}\.tar: not a whole tar file"):
        raw_layouts.find(config, PrepareConfig())


@pytest.mark.parametrize("end", [b"\n", b""])
def test_the_last_line_of_ground_truth(tmp_path, end):
    _put(tmp_path / "ILSVRC2012_validation_ground_truth.txt", b"2\n1" + end)
    _put(tmp_path / "devkit_classes.txt", f"1 {WNIDS[7]}\n2 {WNIDS[9]}".encode() + end)
    found = ground_truth.read(tmp_path, WNIDS)
    assert found == {"ILSVRC2012_val_00000001.JPEG": 9, "ILSVRC2012_val_00000002.JPEG": 7}


def test_ground_truth_that_is_not_utf8(tmp_path):
    _put(tmp_path / "ILSVRC2012_validation_ground_truth.txt", b"2\n\xe9\n")
    _put(tmp_path / "devkit_classes.txt", f"1 {WNIDS[7]}\n2 {WNIDS[9]}\n".encode())
    with pytest.raises(DataError, match="line 2: not a number of a class"):
        ground_truth.read(tmp_path, WNIDS)


def test_a_flat_val_folder_without_ground_truth(tmp_path):
    _put(tmp_path / "train" / WNIDS[0] / "a.JPEG")
    _put(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    config = DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path))
    with pytest.raises(UsageError, match="--devkit"):
        raw_layouts.find(config, PrepareConfig())


def test_the_kits_own_table(tmp_path):
    io_ = pytest.importorskip("scipy.io")
    rows = np.array(
        [(1, WNIDS[7], 0), (2, WNIDS[9], 0), (1001, "n00001740", 5)],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")],
    )
    io_.savemat(tmp_path / "meta.mat", {"synsets": rows})
    assert ground_truth.devkit_classes(tmp_path) == {"1": WNIDS[7], "2": WNIDS[9]}


def test_mini_imagenet_from_its_csvs(tmp_path):
    wnid = datasets.class_table("mini_imagenet")[4][0]
    # As strings 100 sorts before 18 and 9; by number it is the third.
    for number in (100, 18, 9):
        _put(tmp_path / "train" / wnid / f"{wnid}_{number}.JPEG", str(number).encode())
    for name in ("train", "val", "test"):
        lines = f"{wnid}00000003.jpg,{wnid}\n{wnid}00000001.jpg,{wnid}\n" if name == "val" else ""
        _put(tmp_path / "csv" / f"{name}.csv", f"filename,label\n{lines}".encode())
    config = DataConfig(dataset="mini_imagenet", data_dir=str(tmp_path))
    raw = raw_layouts.find(config, PrepareConfig(split_csv=str(tmp_path / "csv")))
    read = {item.read() for items in raw.splits.values() for item in items}
    assert read == {b"100", b"9"}
    assert {item.label for items in raw.splits.values() for item in items} == {4}


def test_csv_files_with_a_byte_order_mark_and_of_another_form(tmp_path):
    wnid = datasets.class_table("mini_imagenet")[4][0]
    _put(tmp_path / "train" / wnid / f"{wnid}_9.JPEG", b"9")
    for name in ("train", "val", "test"):
        _put(tmp_path / "csv" / f"{name}.csv", b"\xef\xbb\xbffilename,label\n")
    row = f"{wnid}00000001.jpg,{wnid}\n".encode()
    config = DataConfig(dataset="mini_imagenet", data_dir=str(tmp_path))
    settings = PrepareConfig(split_csv=str(tmp_path / "csv"))
    _put(tmp_path / "csv" / "test.csv", b"\xef\xbb\xbffilename,label\n" + row)
    assert len(raw_layouts.find(config, settings).splits["train"]) == 1
    for bad in (b"image,class\n" + row, b"filename,label\n" + f"x.jpg,{wnid}\n".encode()):
        _put(tmp_path / "csv" / "test.csv", bad)
        with pytest.raises(DataError, match=r"test\.csv: not lines of `filename,label`"):
            raw_layouts.find(config, settings)


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
        _put(tmp_path / "raw dir" / "train" / "class one" / os.fsdecode(name), data)
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw dir"))
    for storage in ("lists", "tfrecord"):
        prepare.prepare(config, PrepareConfig(), tmp_path / storage, storage)
        prepared = dataclasses.replace(config, data_dir=str(tmp_path / storage))
        opened = source.open_split(prepared, "train")
        assert opened.class_names == ("class one",)
        described = {os.fsencode(opened.describe(i)) for i in range(len(names))}
        assert all(any(name in one for one in described) for name in names)
        assert all(opened.read(tf.constant(i, tf.int64))[0] == data for i in range(len(names)))
    _put(tmp_path / "raw dir" / "train" / "class one" / "two\nlines.jpg", data)
    with pytest.raises(DataError, match="a line break in a file's name"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")


def test_a_link_to_nowhere_is_a_missing_image(tmp_path):
    _put(tmp_path / "train" / "a" / "1.jpg", images.good_files()["jpeg 4:2:0"])
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
        patch.setattr(manifest, "write_whole", full)
        with pytest.raises(UsageError, match="No space left on device"):
            prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")
    prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")
    assert manifest.exists(tmp_path / "out")


@pytest.mark.parametrize("words", [("1.jpg 0", "1.jpg 1"), ("1.jpg 0", "1.jpg 0")])
def test_one_image_on_two_lines_of_lists(tmp_path, words):
    """In another split or under another label: it is no less a copy for having one name."""
    _put(tmp_path / "1.jpg", images.good_files()["jpeg 4:2:0"])
    _put(tmp_path / "train.txt", f"{words[0]}\n".encode())
    _put(tmp_path / "val.txt", f"{words[1]}\n".encode())
    lists = {f"{split}_list": str(tmp_path / f"{split}.txt") for split in ("train", "val")}
    _put(tmp_path / "names.txt", b"0 a a\n1 b b\n")
    lists["class_names"] = str(tmp_path / "names.txt")
    config = DataConfig(dataset="lists", data_dir=str(tmp_path), **lists)
    report, _ = verify.verify(config, PrepareConfig())
    assert report["duplicates_across_splits"] == 1
    (found,) = report["findings"]
    assert (found["kind"], found["split"], found["of_split"]) == ("duplicate", "val", "train")
    assert ("under label 0, not 1" in found["why"]) == (words[1] == "1.jpg 1")


def test_what_has_come_and_gone_since_the_checksums(tmp_path):
    for name in ("train/a/1.jpg", "train/b/2.jpg"):
        _put(tmp_path / name, images.good_files()["jpeg 4:2:0"] + name.encode())
    config = DataConfig(dataset="folder", data_dir=str(tmp_path))
    sums_path = tmp_path / "SHA256SUMS"
    report, sums = verify.verify(config, PrepareConfig(), sums_path)
    assert sums.keys() == {"train/a/1.jpg", "train/b/2.jpg"} and not report["findings"]
    sums_path.write_bytes(verify.checksum_lines(sums))
    (tmp_path / "train/b/2.jpg").rename(tmp_path / "train/b/3.jpg")
    report, sums = verify.verify(config, PrepareConfig(), sums_path)
    assert [(f["kind"], f["file"]) for f in report["findings"]] == [("gone", "train/b/2.jpg")]
    assert sums.keys() == {f"train/{name}.jpg" for name in ("a/1", "b/2", "b/3")}


def test_splits_with_classes_of_their_own(tmp_path):
    """Those of few-shot learning; in a folder of one's own it is a mistake to be told of."""
    table = [wnid for wnid, _ in datasets.class_table("mini_imagenet")]
    for split, names in (("train", table[:64]), ("val", table[64:80]), ("test", table[80:])):
        for name in names:
            for number in range(12):
                _put(tmp_path / split / name / f"{number}.jpg")
    raw = raw_layouts.find(DataConfig(dataset="mini_imagenet", data_dir=str(tmp_path)), PREPARE)
    assert raw.classes == tuple(table)
    assert {label for _, label in _names(raw, "train")} == set(range(100))
    every = [name for split in raw.splits for name, _ in _names(raw, split)]
    assert len(every) == len(set(every)) == 1200
    with pytest.raises(DataError, match=table[64]):
        raw_layouts.find(DataConfig(dataset="folder", data_dir=str(tmp_path)), PREPARE)


PREPARE = PrepareConfig()


def test_class_folders_alone_are_split(tmp_path):
    for name in ("cat", "dog"):
        for number in range(24):
            _put(tmp_path / name / f"{number}.jpg")
    raw = raw_layouts.find(DataConfig(dataset="folder", data_dir=str(tmp_path)), PREPARE)
    assert raw.classes == ("cat", "dog")
    of_class = {s: [label for _, label in _names(raw, s)].count(1) for s in raw.splits}
    assert of_class == {"train": 20, "val": 2, "test": 2}


_FULL = """
import resource, sys
from input_pipeline import prepare
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
        _put(root / "train" / "a" / name, data)
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
        before = decode.decode(tf.constant(files[name])).numpy()
        after = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        if name in was:
            assert reencode.format_of(data) == "JPEG" and reencode.jpeg_components(data) == 3
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
        assert not reencode.foreign(opened.describe(i), data)
    assert opened.num_examples == len(files)


def test_what_is_converted_stays_apart_and_inside_of_out(tmp_path):
    """Names in a list may be paths to anywhere, and two files may share a stem."""
    good = images.good_files()
    photos = tmp_path / "photos"
    _put(photos / "p.jpg", good["png"])
    _put(photos / "sub" / "p.jpg", good["jpeg cmyk"])
    _put(photos / "sub" / "p.png", good["jpeg 4:2:0"])
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
        difference = decode.decode(data).numpy() - decode.decode(tf.constant(good[kind])).numpy()
        assert int(label) == n and np.abs(difference.astype(np.int8)).mean() < 10


def test_a_folder_that_is_not_utf8(tmp_path):
    _put(tmp_path / "raw" / "train" / "a" / "1.jpg", images.good_files()["jpeg 4:2:0"])
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    out = tmp_path / "p\udce9t"
    prepare.prepare(config, PrepareConfig(), out, "tfrecord")
    report, _ = verify.verify(dataclasses.replace(config, data_dir=str(out)), PrepareConfig())
    assert report["bad"] == 0 and report["images"] == {"train": 1}


def test_an_image_that_does_not_decode_stops_a_reencoding(tmp_path):
    _put(tmp_path / "raw" / "train" / "a" / "bad.JPEG", images.good_files()["jpeg 4:2:0"][:300])
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"))
    with pytest.raises(DataError, match=r"a/bad\.JPEG does not decode"):
        prepare.prepare(config, PrepareConfig(short_side=10), tmp_path / "out", "tfrecord")


def test_other_contents_of_out_are_refused(tmp_path, tiny_folder):
    config = DataConfig(dataset="folder", data_dir=str(tiny_folder))
    _put(tmp_path / "out" / "x")
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


class _Bar(silent.Silent):
    """Remembers what was counted."""

    def __init__(self, total, done=0):
        super().__init__(total, done)
        self.total, self.first_done, self.done = total, done, done

    def advance(self, images):
        self.done += images


_CHILD = """
import sys, time
from input_pipeline import prepare, shard_writer
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
        lambda *counts: bars.append(_Bar(*counts)) or bars[0],
    )
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    records = {
        shard["name"]: shard["records"] for s in facts["splits"].values() for shard in s["shards"]
    }
    assert bars[0].first_done == sum(records[path.name] for path in kept)
    assert bars[0].done == bars[0].total == sum(records.values())
    whole = prepare.prepare(
        config, PrepareConfig(shard_megabytes=1), tmp_path / "at once", "tfrecord"
    )
    assert {**facts, "root": ""} == {**whole, "root": ""}
    assert not list(out.glob(".*"))


def test_a_file_that_was_replaced_between_two_calls(tmp_path, tiny_folder, monkeypatch):
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
    replaced.write_bytes(images.encoded(images.picture(), "JPEG", quality=95))
    facts = prepare.prepare(config, PREPARE_1, out, "tfrecord")
    whole = prepare.prepare(config, PREPARE_1, tmp_path / "at once", "tfrecord")
    assert {**facts, "root": ""} == {**whole, "root": ""}


PREPARE_1 = PrepareConfig(shard_megabytes=1)


def test_checksums_are_read_as_they_are_written(tmp_path):
    """And `sha256sum` agrees, also about names that hold what its lines are made of."""
    names = ["a.jpg", "two  spaces.jpg", "n\nl.jpg", "back\\slash.jpg", "back\\n.jpg", "\udce9.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode(errors="surrogateescape"))
    sums = {n: hashlib.sha256((tmp_path / n).read_bytes()).hexdigest() for n in names}
    path = tmp_path / "SHA256SUMS"
    path.write_bytes(verify.checksum_lines(sums))
    assert verify.checksums_in(path) == sums
    if shutil.which("sha256sum"):
        done = subprocess.run(["sha256sum", "--check", path], cwd=tmp_path, capture_output=True)
        assert done.returncode == 0 and not done.stderr
