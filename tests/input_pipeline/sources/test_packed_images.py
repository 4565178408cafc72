"""Indexing tar files, TFRecords and Parquet files: interruptions, damaged files, labels."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import prepare
from input_pipeline.sources import (
    foreign_records,
    layouts,
    packed_images,
    source,
    tar_files,
)
from input_pipeline.sources.packed_images import Entry, Labels, Part
from tests.input_pipeline import imagenet_layouts
from tests.input_pipeline.files import put

ILSVRC = DataConfig(dataset="ilsvrc2012")


def _open(folder, split="train", dataset="ilsvrc2012"):
    config = dataclasses.replace(ILSVRC, data_dir=str(folder), dataset=dataset)
    return source.open_split(config, split)


def _label_all_zero(entries):
    labels = np.zeros(len(entries), np.int32)
    return Labels(("a",), labels, [entry.name for entry in entries], "zero")


def test_interrupted_indexing_continues_after_the_last_finished_part(tmp_path):
    """The last line is incomplete, as after kill -9."""
    put(tmp_path / "x.tar", b"12345")
    scanned = []

    def scan(number):
        scanned.append(number)
        if number == 3 and len(scanned) == 4:
            raise KeyboardInterrupt
        return [Entry(f"{number}.jpg", "", -1, number, 1)]

    def list_parts():
        return [Part(str(n), 0, lambda n=n: scan(n)) for n in range(5)]

    arguments = (tmp_path, "train", packed_images.TAR, [tmp_path / "x.tar"], list_parts)
    with pytest.raises(KeyboardInterrupt):
        packed_images.open_indexed(*arguments, _label_all_zero)
    unfinished = tmp_path / ".index" / "train.unfinished"
    unfinished.write_bytes(unfinished.read_bytes()[:-5])  # of part 2
    images = packed_images.open_indexed(*arguments, _label_all_zero)
    assert scanned == [0, 1, 2, 3, 2, 3, 4]
    assert [*images.names] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert images.rows["offset"].tolist() == [0, 1, 2, 3, 4]
    assert [p.name for p in unfinished.parent.iterdir()] == ["train.npz"]
    packed_images.open_indexed(*arguments, _label_all_zero)
    assert len(scanned) == 7
    put(tmp_path / "x.tar", b"123456")  # a changed file is indexed again
    packed_images.open_indexed(*arguments, _label_all_zero)
    assert scanned[7:] == [0, 1, 2, 3, 4]


def test_tar_file_is_not_copied_into_memory(tmp_path):
    folder = imagenet_layouts.make("three_tars", tmp_path)
    os.truncate(folder / "ILSVRC2012_img_train.tar", 10**9)  # adds a hole

    def read_memory():
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) * 1024

    before = read_memory()
    split = _open(folder)
    data, _ = split.read(tf.constant(23))
    assert data.numpy() == imagenet_layouts.TRAIN[23][2]
    assert read_memory() - before < 100e6


def test_tar_file_that_is_cut_while_it_is_read_ends_the_process_with_one_line(tmp_path):
    """A mapped file that is cut would end the process with a signal."""
    folder = imagenet_layouts.make("three_tars", tmp_path)
    path = folder / "ILSVRC2012_img_train.tar"
    os.truncate(path, 60_000_000)  # adds zeros
    program = f"""
import os
import tensorflow as tf
from input_pipeline.config import DataConfig
from input_pipeline.sources import source
train = source.open_split(DataConfig(dataset="ilsvrc2012", data_dir={str(folder)!r}), "train")
for number, _ in enumerate(tf.data.Dataset.range(24).repeat(9).map(train.read, 2)):
    if number == 2:
        os.truncate({str(path)!r}, 0)
"""
    root = pathlib.Path(__file__).parents[3]
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    message = f"error: {path}: was cut, or its disk failed; copy it again"
    assert (ended.stderr.splitlines()[-1], ended.returncode) == (message, 3)


def test_read_only_data_set_is_indexed_in_the_cache_folder(tmp_path, monkeypatch, caplog):
    folder = imagenet_layouts.make("webdataset", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder.chmod(0o555)
    before = sorted(folder.iterdir())
    assert _open(folder).num_examples == 24
    assert sorted(folder.iterdir()) == before
    (index,) = (tmp_path / "cache").rglob("*.npz")
    assert str(index) in caplog.text
    folder.chmod(0o755)
    # An index that is in the data set is used, also if that has become read-only.
    index.unlink()
    assert _open(folder).num_examples == 24
    (folder / ".index").chmod(0o555)
    caplog.clear()
    assert _open(folder).num_examples == 24
    assert "indexing" not in caplog.text
    (folder / ".index").chmod(0o755)


@pytest.mark.parametrize(
    ("layout", "name", "keep"),
    [
        ("three_tars", "ILSVRC2012_img_train.tar", 0.8),
        ("three_tars", "ILSVRC2012_img_val.tar", 0.5),
        ("half_unpacked", "train/n01443537.tar", 0.5),
        ("half_unpacked", "train/n01443537.tar", 0.0),
        ("webdataset", "imagenet1k-train-0001.tar", 0.5),
        ("tfds", "5.1.0/imagenet2012-train.tfrecord-00001-of-00002", 0.7),
        ("tensorflow_models", "train-00000-of-00002", 0.7),
        ("parquet", "data/train-00001-of-00003.parquet", 0.7),
    ],
)
def test_truncated_file_is_named(tmp_path, layout, name, keep):
    if layout == "parquet":
        pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    folder = imagenet_layouts.make(layout, tmp_path)
    path = folder / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    split = "val" if "val" in name else "train"
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}\b") as caught:
        _open(folder, split)
    assert "\n" not in str(caught.value)


def test_tar_file_cut_between_two_images_is_refused(tmp_path):
    """Only the empty blocks at its end are missing then."""
    images = [(name, data) for _, name, data in imagenet_layouts.TRAIN[:2]]
    data = imagenet_layouts.tar_bytes(images)
    end = tar_files.list_members(_put(tmp_path / "a.tar", data))[1].offset - 512
    with pytest.raises(DataError, match=r"b\.tar: is not a complete tar file \(its end is missing"):
        tar_files.list_members(_put(tmp_path / "b.tar", data[:end]))


def test_shards_without_an_image_are_a_data_error(tmp_path):
    put(tmp_path / "train-0000.tar", imagenet_layouts.tar_bytes([("README", b"no image")]))
    with pytest.raises(DataError, match="no labeled image in the folder-train split"):
        _open(tmp_path, dataset="folder")


def _put(path, data):
    put(path, data)
    return path


@pytest.mark.parametrize("layout", ["tfds", "tensorflow_models"])
def test_missing_shard_is_named(tmp_path, layout):
    folder = imagenet_layouts.make(layout, tmp_path)
    (shard,) = folder.rglob("*train*00001-of-00002")
    shard.unlink()
    with pytest.raises(DataError, match=rf"{re.escape(str(shard))}: is missing; 1 of 2 shards"):
        layouts.recognize(folder)


def _flip_bit(path, position):
    """Changes a byte, and keeps the time of the file, as a failing disk does."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_damaged_record_fails_when_it_is_read(tmp_path):
    """TensorFlow checks the checksum. The index of the other records stays valid."""
    folder = imagenet_layouts.make("tensorflow_models", tmp_path)
    path = folder / "train-00000-of-00002"
    split = _open(folder)
    _flip_bit(path, path.read_bytes().find(b"\xff\xd9"))  # where the first photograph ends
    bad = []
    for index in range(24):
        try:
            split.read(tf.constant(index))
        except tf.errors.DataLossError:
            bad.append(split.describe(index))
    assert len(bad) == 1
    assert bad[0].startswith(f"{path} (train/")
    config = dataclasses.replace(ILSVRC, data_dir=str(folder))
    with pytest.raises(DataError, match=rf"^{path}: is damaged at byte \d+ \(.*corrupted record"):
        prepare.prepare(config, PrepareConfig(), tmp_path / "out", "tfrecord")


def test_damaged_names_of_features_are_found_by_the_checksum(tmp_path):
    folder = imagenet_layouts.make("tensorflow_models", tmp_path)
    path = folder / "train-00000-of-00002"
    _flip_bit(path, path.read_bytes().find(b"image/encoded"))
    with pytest.raises(DataError, match=rf"^{path}: record 0 is damaged \(.*corrupted record"):
        _open(folder)


def _write_generic_records(folder, numbers, wnids=None):
    rows = [
        {"image/encoded": b"image", "image/class/label": number, "image/filename": b"%d.jpg" % i}
        for i, number in enumerate(numbers)
    ]
    for row, wnid in zip(rows, wnids or (), strict=False):
        row["image/class/synset"] = wnid.encode()
    imagenet_layouts.write_records(folder / "train-00000-of-00001", rows)


@pytest.mark.parametrize(("first", "rule"), [(0, "from 0"), (1, "from 1")])
def test_class_numbers_without_names(tmp_path, first, rule, caplog):
    """Numbers 1 to 1000 start at 1. If 0 occurs, they start at 0."""
    _write_generic_records(tmp_path, range(first, first + 1000))
    split = _open(tmp_path)
    assert sorted(split.labels.tolist()) == list(range(1000))
    assert f"labels from class numbers {rule}" in caplog.text


def test_class_numbers_that_contradict_class_names_are_refused(tmp_path):
    wnids = imagenet_layouts.WNIDS
    _write_generic_records(tmp_path, (1, 2, 2), (wnids[0], wnids[1], wnids[2]))
    with pytest.raises(DataError, match=r"inconsistent labels: 2\.jpg has class number 2, but its"):
        _open(tmp_path)


def test_number_without_a_name_is_refused_if_numbers_have_another_order(tmp_path):
    wnids = imagenet_layouts.WNIDS
    _write_generic_records(tmp_path, (2, 0, 1), (wnids[0], wnids[1], ""))
    with pytest.raises(DataError, match=r"2\.jpg has a class number and no class name"):
        _open(tmp_path)


def test_own_classes_are_numbered_by_the_files(tmp_path):
    """A data set without WordNet ids has its class numbers as class names."""
    _write_generic_records(tmp_path, (2, 0, 1, 2))
    assert layouts.recognize(tmp_path).dataset == "folder"
    split = _open(tmp_path, dataset="folder")
    assert split.class_names == ("0", "1", "2")
    assert split.labels.tolist() == [0, 1, 2, 2]


def test_records_that_are_no_images_are_refused(tmp_path):
    imagenet_layouts.write_records(tmp_path / "a", [{"label": 3}])
    with pytest.raises(DataError, match=r"a: record 0 is not an example with an image"):
        foreign_records.list_images(tmp_path / "a")
    with tf.io.TFRecordWriter(str(tmp_path / "b")) as writer:
        writer.write(b"\xff" * 99)
    with pytest.raises(DataError, match=r"b: record 0 is not an example with an image"):
        foreign_records.list_images(tmp_path / "b")


def test_data_service_reads_records_but_no_tar_files(tmp_path):
    for layout, reads in (("tfds", True), ("webdataset", False)):
        folder = imagenet_layouts.make(layout, tmp_path)
        config = dataclasses.replace(ILSVRC, data_dir=str(folder), data_service="host:1")
        if reads:
            assert source.open_split(config, "train").num_examples == 24
        else:
            with pytest.raises(UsageError, match=r"--data_service=host:1: .* --mode=prepare"):
                source.open_split(config, "train")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("train_500_0.50_90.beton", "class folders"),
        ("train.rec", "im2rec"),
        ("mini-imagenet-cache-train.pkl", "timm/mini-imagenet"),
        ("train_data_batch_1", "--short_side=64"),
        ("train_data_batch_1.npz", "--short_side=64"),
        ("train.h5", "class folders"),
    ],
)
def test_known_files_that_cannot_be_read_are_named_with_a_remedy(tmp_path, name, remedy):
    put(tmp_path / name)
    with pytest.raises(UsageError, match=rf"{pathlib.Path(name).name} is one of .*{remedy}"):
        layouts.recognize(tmp_path)


def test_unfinished_prepared_data_set_is_not_read(tmp_path):
    imagenet_layouts.make("tensorflow_models", tmp_path)
    folder = tmp_path / "tensorflow_models"
    (folder / ".unfinished").mkdir()
    with pytest.raises(UsageError, match="unfinished prepared data set; run the same"):
        layouts.recognize(folder)


def test_sparse_and_endless_members_of_tar_files_are_refused(tmp_path):
    member = tarfile.TarInfo("a.jpg")
    member.type = tarfile.GNUTYPE_SPARSE
    put(tmp_path / "sparse.tar", member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match=r"sparse\.tar: a\.jpg is sparse"):
        tar_files.list_members(tmp_path / "sparse.tar")
    member = tarfile.TarInfo("a.jpg")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12  # a size of -1, in base 256
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 256 + sum(header[156:512]))
    put(tmp_path / "negative.tar", bytes(header) + bytes(1024))
    with pytest.raises(DataError, match=r"negative\.tar"):
        tar_files.list_members(tmp_path / "negative.tar")


def _index_of(folder):
    return folder / ".index" / "ilsvrc2012-train.npz"


def _write_index(path, change):
    """Writes an index again after a change of its arrays, with its old facts."""
    with np.load(path) as stored:
        arrays = {name: stored[name].copy() for name in stored.files}
    change(arrays)
    np.savez(path, **arrays)


def _set(column, value):
    def change(arrays):
        arrays["rows"][column][3] = value

    return change


def _replace_details(old, new):
    def change(arrays):
        text = arrays["details"].tobytes().replace(old, new)
        arrays["details"] = np.frombuffer(text, np.uint8)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("file", 3),
        _set("file", -1),
        _set("label", 1000),
        _set("label", -1),
        _set("offset", -1),
        _set("offset", 2**62),
        _set("size", -1),
        _set("size", 2**62),
        lambda arrays: arrays["starts"].__setitem__(0, -1),
        lambda arrays: arrays["ends"].__setitem__(0, 2**40),
        lambda arrays: arrays.update(ends=arrays["ends"][:5]),
        lambda arrays: arrays.update(rows=arrays["rows"]["place"]),
        lambda arrays: arrays.pop("lines"),
        _replace_details(b'"classes": [', b'"classes": [5, '),
        _replace_details(b'"rule"', b'"ruse"'),
        _replace_details(b'{"facts"', b"[" * 100_000),
    ],
)
def test_wrong_index_of_a_stranger_is_made_again(tmp_path, change, caplog):
    folder = imagenet_layouts.make("webdataset", tmp_path)
    right = _open(folder)
    path = _index_of(folder)
    _write_index(path, change)
    images = _open(folder)
    assert "the files are indexed again" in caplog.text
    assert images.fingerprint == right.fingerprint
    assert images.labels.tolist() == right.labels.tolist()
    caplog.clear()
    assert _open(folder).num_examples == 24 and "indexed" not in caplog.text


@pytest.mark.parametrize("kind", ["pipe", "device", "compressed", "huge header", "link"])
def test_index_that_is_no_file_of_arrays_is_made_again(tmp_path, kind):
    folder = imagenet_layouts.make("webdataset", tmp_path)
    _open(folder)
    path = _index_of(folder)
    with np.load(path) as stored:
        arrays = dict(stored)
    path.unlink()
    put(tmp_path / "precious", b"precious")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link":
        path.symlink_to(tmp_path / "precious")
    elif kind == "compressed":
        np.savez_compressed(path, **arrays)
    else:
        np.savez(path, **arrays)
        old, new = b"(24,), }          ", b"(24000000000,), } "
        assert len(old) == len(new) and old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new))
    assert _open(folder).num_examples == 24
    assert path.is_file() and not path.is_symlink()
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_nothing_is_written_through_links(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = imagenet_layouts.make("webdataset", tmp_path)
    put(tmp_path / "precious", b"precious")
    put(folder / ".index" / "x")
    (folder / ".index" / "ilsvrc2012-train.unfinished").symlink_to(tmp_path / "precious")
    assert _open(folder).num_examples == 24
    assert (tmp_path / "precious").read_bytes() == b"precious"
    (folder / ".index").rename(tmp_path / "elsewhere")
    (folder / ".index").symlink_to(tmp_path / "elsewhere")
    _index_of(folder).unlink()
    assert _open(folder).num_examples == 24
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["x"]
    assert list((tmp_path / "cache").rglob("*.npz"))


@pytest.mark.parametrize(
    "line",
    [
        "5",
        "[" * 100_000,
        '["0", [5]]',
        '["0", [["a.jpg", "", -1, 0, 1, 5]]]',
        '["0", [[1, "", -1, 0, 1, [0, 0, 0]]]]',
        '["0", [["a.jpg", "", -1, 0.5, 1, [0, 0, 0]]]]',
        '["0", [["a.jpg", "", -1, 1e999, 1, [0, 0, 0]]]]',
        '["0", [["\\ud800", "", -1, 0, 1, [0, 0, 0]]]]',
        '["0", [["a.jpg", "", -1, 0, 1, [0, 0, 99999999999]]]]',
    ],
)
def test_wrong_unfinished_index_of_a_stranger_is_not_used(tmp_path, line):
    put(tmp_path / "x.tar", b"12345")

    def scan():
        (unfinished,) = (tmp_path / ".index").glob("*.unfinished")
        states.append(unfinished.read_bytes())
        if len(states) == 1:
            raise KeyboardInterrupt
        return [Entry("0.jpg", "", -1, 2, 1)]

    states = []
    arguments = (
        *(tmp_path, "train", packed_images.TAR, [tmp_path / "x.tar"]),
        *(lambda: [Part("0", 0, scan)], _label_all_zero),
    )
    with pytest.raises(KeyboardInterrupt):
        packed_images.open_indexed(*arguments)
    put(tmp_path / ".index" / "train.unfinished", states[0] + line.encode() + b"\n")
    images = packed_images.open_indexed(*arguments)
    assert images.rows["offset"].tolist() == [2]


@pytest.mark.parametrize(("offset", "size"), [(4, 2), (-1, 2), (0, -1), (0, 2**40)])
def test_image_outside_of_its_file_is_a_data_error(tmp_path, offset, size):
    put(tmp_path / "x.tar", b"12345")
    part = Part("0", 0, lambda: [Entry("0.jpg", "", -1, offset, size)])
    arguments = (tmp_path, "train", packed_images.TAR, [tmp_path / "x.tar"], lambda: [part])
    with pytest.raises(DataError, match=r"x\.tar: 0\.jpg has .* not inside the file"):
        packed_images.open_indexed(*arguments, _label_all_zero)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cls", b"1" * 4000, "has class number 1111"),
        ("cls", b"2000000000", "has class number 2000000000"),
        ("cls", b"-2", "has class number -2"),
        ("json", b'{"label": 1e999}', "has no class number"),
        ("json", b"[" * 100_000, "has no class number"),
        ("json", b'{"label": 0, "wnid": "\\ud800"}', "which is not valid text"),
        ("json", b'{"label": 0, "wnid": "a\\u0000"}', "which is not valid text"),
        ("json", b'{"label": 0, "wnid": "%s"}' % (b"a" * 5000), "class name of 5000 characters"),
    ],
)
def test_wrong_class_of_a_webdataset_is_a_data_error(tmp_path, name, content, message):
    files = [("1.jpg", b"image"), (f"1.{name}", content)]
    put(tmp_path / "train-0000.tar", imagenet_layouts.tar_bytes(files))
    with pytest.raises(DataError, match=message) as caught:
        _open(tmp_path, dataset="folder")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 6000


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 2_000_000])
def test_wrong_class_number_of_a_record_is_a_data_error(tmp_path, number):
    _write_generic_records(tmp_path, [number])
    with pytest.raises(DataError, match=f"has class number {number}"):
        _open(tmp_path, dataset="folder")


def test_record_of_many_fields_or_bytes_is_refused(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a")) as writer:
        writer.write(bytes([8, 1]) * 200_000)
    with pytest.raises(DataError, match=r"a: record 0 is not .*too many fields"):
        foreign_records.list_images(tmp_path / "a")
    (tmp_path / "b").write_bytes((2**40).to_bytes(8, "little"))
    os.truncate(tmp_path / "b", 2**41)
    with pytest.raises(DataError, match=r"b: record 0 claims 1099511627776 bytes"):
        foreign_records.list_images(tmp_path / "b")


def test_header_that_claims_a_hole_of_a_tar_file_is_refused(tmp_path):
    member = tarfile.TarInfo("a.jpg")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2**40
    put(tmp_path / "a.tar", member.tobuf(tarfile.GNU_FORMAT))
    os.truncate(tmp_path / "a.tar", 2**41)
    with pytest.raises(DataError, match=r"a\.tar: is not .*a header claims 1099511627776 bytes"):
        tar_files.list_members(tmp_path / "a.tar")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("three_tars", "ILSVRC2012_img_train.tar"),
        ("half_unpacked", "train/n01440764.tar"),
        ("half_unpacked", "train/n09999999/1.jpg"),
        ("hugging_face_flat", "train/n01440764_1.JPEG"),
        ("webdataset", "imagenet1k-train-0001.tar"),
        ("tensorflow_models", "train-00000-of-00002"),
        ("parquet", "data/train-00001-of-00003.parquet"),
    ],
)
@pytest.mark.parametrize("is_indexed", [False, True])
def test_pipes_and_devices_are_named(tmp_path, layout, name, make, is_indexed):
    if layout == "parquet":
        pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    folder = imagenet_layouts.make(layout, tmp_path)
    if is_indexed:
        _open(folder)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}\b"):
        _open(folder)


def _make_linked_tar(path, tmp_path):
    """Packs class folders of two images, with two further names of the first and a link to it."""
    folder = tmp_path / "packed"
    images = imagenet_layouts.TRAIN[:2]
    for wnid, name, data in images:
        put(folder / wnid / name, data)
    wnid, name, data = images[0]
    for k in (1, 2):
        os.link(folder / wnid / name, folder / wnid / f"hard{k}.jpg")
    (folder / wnid / "soft.jpg").symlink_to(name)
    (folder / wnid / "further.jpg").symlink_to(f"../{wnid}/soft.jpg")
    with tarfile.open(path, "w") as tar:  # finds further names by itself
        for file in sorted(folder.rglob("*.*")):
            tar.add(file, f"./{file.relative_to(folder)}")
        assert {member.type for member in tar.getmembers()} == {
            *(tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE)
        }
    return {"hard1.jpg": data, "hard2.jpg": data, "soft.jpg": data, "further.jpg": data} | {
        name: data for _, name, data in images
    }


def test_links_in_a_tar_file_are_read(tmp_path):
    expected = _make_linked_tar(tmp_path / "a.tar", tmp_path)
    content = (tmp_path / "a.tar").read_bytes()
    entries = tar_files.list_images(tmp_path / "a.tar", "cat")
    assert {e.name: content[e.offset : e.offset + e.size] for e in entries} == expected
    assert len(entries) == len(expected)


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        (tarfile.LNKTYPE, "b.jpg", r"a\.jpg is a link to b\.jpg, which is not in the tar file"),
        (tarfile.SYMTYPE, "../b.jpg", r"a\.jpg is a link to \.\./b\.jpg, which is not"),
        (tarfile.SYMTYPE, "a.jpg", r"a\.jpg is a link that leads in a circle"),
    ],
)
def test_link_without_its_file_is_named(tmp_path, kind, target, message):
    member = tarfile.TarInfo("a.jpg")
    member.type, member.linkname = kind, target
    put(tmp_path / "x.tar", member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match=rf"x\.tar: {message}"):
        tar_files.list_images(tmp_path / "x.tar")
