"""How raw data sets lie on disk, and what is made of it."""

import hashlib
import io
import pathlib
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from input_pipeline import datasets
from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import prepare, raw_layouts, raw_set, val_ground_truth
from tests.input_pipeline import encoded_images
from tests.input_pipeline.files import put

WNIDS = tuple(wnid for wnid, _ in datasets.load_class_table("ilsvrc2012"))
PREPARE = PrepareConfig()


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


def _put_tar(folder, wnid, numbers):
    """A class's tar file, whose images are their names."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / f"{wnid}.tar", "w") as tar:
        for number in numbers:
            data = f"{wnid} {number}".encode()
            member = tarfile.TarInfo(f"{wnid}_{number}.JPEG")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_class_folders_beside_class_tar_files(tmp_path):
    """As a disk that was full while they were unpacked leaves them."""
    _put_tar(tmp_path / "train", WNIDS[4], (10, 2))
    _put_tar(tmp_path / "train", WNIDS[6], (5,))
    put(tmp_path / "train" / WNIDS[3] / f"{WNIDS[3]}_1.JPEG", b"unpacked")
    put(tmp_path / "train" / WNIDS[4] / f"{WNIDS[4]}_10.JPEG", b"cut short")
    put(tmp_path / "train" / WNIDS[5] / f"{WNIDS[5]}_1.JPEG", b"unpacked")
    raw = raw_layouts.find(DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path)), PREPARE)
    expected = [(3, "unpacked"), (4, f"{WNIDS[4]} 10"), (4, f"{WNIDS[4]} 2"), (5, "unpacked")]
    found = [(item.label, item.read().decode()) for item in raw.splits["train"]]
    assert found == [*expected, (6, f"{WNIDS[6]} 5")]


def test_class_tar_files_and_a_flat_val_folder(tmp_path):
    for wnid in WNIDS[3:5]:
        _put_tar(tmp_path / "train", wnid, (10, 2))
    for number in (1, 2, 3):
        put(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    kit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    put(kit / "ILSVRC2012_validation_ground_truth.txt", b"2\n1\n")
    put(kit / "devkit_classes.txt", f"1 {WNIDS[7]}\n2 {WNIDS[9]}\n".encode())
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
    put(path, data)
    config = DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path))
    with pytest.raises(DataError, match=rf"{WNIDS[3]}\.tar: not a whole tar file"):
        raw_layouts.find(config, PrepareConfig())


def test_lists_of_a_tar_file_leave_nothing_behind(tmp_path):
    """The advice that the error gives works with the same --out."""
    image = encoded_images.encoded(encoded_images.picture(), "JPEG")
    data = tmp_path / "data"
    put(data / "val" / WNIDS[3] / "a.JPEG", image)
    with tarfile.open(data / "x.tar", mode="w") as tar:
        member = tarfile.TarInfo("a.JPEG")
        member.size = len(image)
        tar.addfile(member, io.BytesIO(image))
    (data / "train").mkdir()
    (data / "x.tar").rename(data / "train" / f"{WNIDS[3]}.tar")
    config = DataConfig(dataset="ilsvrc2012", data_dir=str(data))
    with pytest.raises(UsageError, match="use --format=tfrecord"):
        prepare.prepare(config, PREPARE, tmp_path / "out", "lists")
    facts = prepare.prepare(config, PREPARE, tmp_path / "out", "tfrecord")
    assert facts["splits"]["train"]["images"] == 1


@pytest.mark.parametrize("end", [b"\n", b""])
def test_the_last_line_of_ground_truth(tmp_path, end):
    put(tmp_path / "ILSVRC2012_validation_ground_truth.txt", b"2\n1" + end)
    put(tmp_path / "devkit_classes.txt", f"1 {WNIDS[7]}\n2 {WNIDS[9]}".encode() + end)
    found = val_ground_truth.read(tmp_path, WNIDS)
    assert found == {"ILSVRC2012_val_00000001.JPEG": 9, "ILSVRC2012_val_00000002.JPEG": 7}


def test_ground_truth_that_is_not_utf8(tmp_path):
    put(tmp_path / "ILSVRC2012_validation_ground_truth.txt", b"2\n\xe9\n")
    put(tmp_path / "devkit_classes.txt", f"1 {WNIDS[7]}\n2 {WNIDS[9]}\n".encode())
    with pytest.raises(DataError, match="line 2: not a number of a class"):
        val_ground_truth.read(tmp_path, WNIDS)


def test_a_flat_val_folder_without_ground_truth(tmp_path):
    put(tmp_path / "train" / WNIDS[0] / "a.JPEG")
    put(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    config = DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path))
    with pytest.raises(UsageError, match="--devkit"):
        raw_layouts.find(config, PrepareConfig())


def test_the_kits_own_table(tmp_path):
    rows = np.array(
        [(1, WNIDS[7], 0), (2, WNIDS[9], 0), (1001, "n00001740", 5)],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")],
    )
    savemat(tmp_path / "meta.mat", {"synsets": rows})
    assert val_ground_truth.read_devkit_classes(tmp_path) == {"1": WNIDS[7], "2": WNIDS[9]}


@pytest.mark.parametrize("data", [b"", b"garbage" * 99, "half", "another"])
def test_a_table_that_is_none(tmp_path, data):
    path = tmp_path / "meta.mat"
    if isinstance(data, str):
        savemat(path, {"synset": np.zeros(999)}, do_compression=True)
        data = path.read_bytes() if data == "another" else path.read_bytes()[:150]
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"meta\.mat: not that of a development kit"):
        val_ground_truth.read_devkit_classes(tmp_path)


def test_mini_imagenet_from_its_csvs(tmp_path):
    wnid = datasets.load_class_table("mini_imagenet")[4][0]
    # As strings 100 sorts before 18 and 9; by number it is the third.
    for number in (100, 18, 9):
        put(tmp_path / "train" / wnid / f"{wnid}_{number}.JPEG", str(number).encode())
    for name in ("train", "val", "test"):
        lines = f"{wnid}00000003.jpg,{wnid}\n{wnid}00000001.jpg,{wnid}\n" if name == "val" else ""
        put(tmp_path / "csv" / f"{name}.csv", f"filename,label\n{lines}".encode())
    config = DataConfig(dataset="mini_imagenet", data_dir=str(tmp_path))
    raw = raw_layouts.find(config, PrepareConfig(split_csv=str(tmp_path / "csv")))
    read = {item.read() for items in raw.splits.values() for item in items}
    assert read == {b"100", b"9"}
    assert {item.label for items in raw.splits.values() for item in items} == {4}


def test_csv_files_with_a_byte_order_mark_and_of_another_form(tmp_path):
    wnid = datasets.load_class_table("mini_imagenet")[4][0]
    put(tmp_path / "train" / wnid / f"{wnid}_9.JPEG", b"9")
    for name in ("train", "val", "test"):
        put(tmp_path / "csv" / f"{name}.csv", b"\xef\xbb\xbffilename,label\n")
    row = f"{wnid}00000001.jpg,{wnid}\n".encode()
    config = DataConfig(dataset="mini_imagenet", data_dir=str(tmp_path))
    settings = PrepareConfig(split_csv=str(tmp_path / "csv"))
    put(tmp_path / "csv" / "test.csv", b"\xef\xbb\xbffilename,label\n" + row)
    assert len(raw_layouts.find(config, settings).splits["train"]) == 1
    for bad in (b"image,class\n" + row, b"filename,label\n" + f"x.jpg,{wnid}\n".encode()):
        put(tmp_path / "csv" / "test.csv", bad)
        with pytest.raises(DataError, match=r"test\.csv: not lines of `filename,label`"):
            raw_layouts.find(config, settings)


def test_splits_with_classes_of_their_own(tmp_path):
    """Those of few-shot learning; in a folder of one's own it is a mistake to be told of."""
    table = [wnid for wnid, _ in datasets.load_class_table("mini_imagenet")]
    for split, names in (("train", table[:64]), ("val", table[64:80]), ("test", table[80:])):
        for name in names:
            for number in range(12):
                put(tmp_path / split / name / f"{number}.jpg")
    raw = raw_layouts.find(DataConfig(dataset="mini_imagenet", data_dir=str(tmp_path)), PREPARE)
    assert raw.classes == tuple(table)
    assert {label for _, label in _names(raw, "train")} == set(range(100))
    every = [name for split in raw.splits for name, _ in _names(raw, split)]
    assert len(every) == len(set(every)) == 1200
    with pytest.raises(DataError, match=table[64]):
        raw_layouts.find(DataConfig(dataset="folder", data_dir=str(tmp_path)), PREPARE)


def test_class_folders_alone_are_split(tmp_path):
    for name in ("cat", "dog"):
        for number in range(24):
            put(tmp_path / name / f"{number}.jpg")
    raw = raw_layouts.find(DataConfig(dataset="folder", data_dir=str(tmp_path)), PREPARE)
    assert raw.classes == ("cat", "dog")
    of_class = {s: [label for _, label in _names(raw, s)].count(1) for s in raw.splits}
    assert of_class == {"train": 20, "val": 2, "test": 2}


@pytest.mark.parametrize("split", ["", "train/"])
def test_images_below_class_folders_are_named(tmp_path, split):
    put(tmp_path / f"{split}cat/1.jpg")
    nested = [f"{split}cat/more/2.jpg", f"{split}cat/more/deep/3.png", f"{split}4.jpg"]
    for name in (*nested, f"{split}cat/more/notes.txt"):
        put(tmp_path / name)
    raw = raw_layouts.find(DataConfig(dataset="folder", data_dir=str(tmp_path)), PREPARE)
    assert _names(raw, "train") == [(f"{split}cat/1.jpg", 0)]
    assert sorted(raw.unlabelled) == sorted(str(tmp_path / name) for name in nested)
