"""Finding the images and labels of raw data sets in every folder layout."""

import gzip
import hashlib
import io
import os
import pathlib
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from input_pipeline import datasets
from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import prepare, raw_layouts
from input_pipeline.sources import folder_splits, val_ground_truth
from tests.input_pipeline import encoded_images
from tests.input_pipeline.files import put

WNIDS = tuple(wnid for wnid, _ in datasets.load_class_table("ilsvrc2012"))
PREPARE = PrepareConfig()


def _names(raw, split):
    return [(item.name, item.label) for item in raw.splits[split]]


def test_split_by_name_gives_500_50_50_and_depends_only_on_names():
    names = [f"n0153282900000{i:03d}.jpg" for i in range(600)]
    splits = folder_splits.split_by_name(names)
    assert {k: len(v) for k, v in splits.items()} == {"train": 500, "val": 50, "test": 50}
    assert sorted(name for part in splits.values() for name in part) == names
    assert folder_splits.split_by_name(names[::-1]) == splits
    order = sorted(names, key=lambda n: hashlib.sha256(n.encode()).hexdigest())
    assert splits["val"] == sorted(order[500:550])


def _put_tar(folder, wnid, numbers):
    """Writes the tar file of a class. Each image contains its name."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / f"{wnid}.tar", "w") as tar:
        for number in numbers:
            data = f"{wnid} {number}".encode()
            member = tarfile.TarInfo(f"{wnid}_{number}.JPEG")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_class_tar_file_takes_precedence_over_class_folder(tmp_path):
    """Interrupted unpacking leaves both, and only the tar file is complete."""
    _put_tar(tmp_path / "train", WNIDS[4], (10, 2))
    _put_tar(tmp_path / "train", WNIDS[6], (5,))
    put(tmp_path / "train" / WNIDS[3] / f"{WNIDS[3]}_1.JPEG", b"unpacked")
    put(tmp_path / "train" / WNIDS[4] / f"{WNIDS[4]}_10.JPEG", b"cut short")
    put(tmp_path / "train" / WNIDS[5] / f"{WNIDS[5]}_1.JPEG", b"unpacked")
    raw = raw_layouts.find(DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path)), PREPARE)
    expected = [(3, "unpacked"), (4, f"{WNIDS[4]} 10"), (4, f"{WNIDS[4]} 2"), (5, "unpacked")]
    contents = [(item.label, item.read().decode()) for item in raw.splits["train"]]
    assert contents == [*expected, (6, f"{WNIDS[6]} 5")]


def test_class_tar_files_and_flat_val_folder(tmp_path):
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
    assert [pathlib.Path(p).name for p in raw.unlabeled] == ["ILSVRC2012_val_00000003.JPEG"]


@pytest.mark.parametrize("data", [b"", b"no tar file", "truncated"])
def test_incomplete_class_tar_file_is_refused(tmp_path, data):
    path = tmp_path / "train" / f"{WNIDS[3]}.tar"
    if data == "truncated":
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            member = tarfile.TarInfo("a.JPEG")
            member.size = 3000
            tar.addfile(member, io.BytesIO(bytes(3000)))
            tar.addfile(tarfile.TarInfo("b.JPEG"))
        data = buffer.getvalue()[:2000]
    put(path, data)
    config = DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path))
    with pytest.raises(DataError, match=rf"{WNIDS[3]}\.tar: is not a complete tar file"):
        raw_layouts.find(config, PrepareConfig())


def test_refused_lists_of_tar_file_leave_out_folder_empty(tmp_path):
    """You can follow the advice of the error with the same --out."""
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
def test_ground_truth_may_end_without_newline(tmp_path, end):
    put(tmp_path / "ILSVRC2012_validation_ground_truth.txt", b"2\n1" + end)
    put(tmp_path / "devkit_classes.txt", f"1 {WNIDS[7]}\n2 {WNIDS[9]}".encode() + end)
    labels = val_ground_truth.read(tmp_path, WNIDS)
    assert labels == {"ILSVRC2012_val_00000001.JPEG": 9, "ILSVRC2012_val_00000002.JPEG": 7}


def test_ground_truth_with_invalid_utf8_is_refused(tmp_path):
    put(tmp_path / "ILSVRC2012_validation_ground_truth.txt", b"2\n\xe9\n")
    put(tmp_path / "devkit_classes.txt", f"1 {WNIDS[7]}\n2 {WNIDS[9]}\n".encode())
    with pytest.raises(DataError, match="line 2: is not a class number"):
        val_ground_truth.read(tmp_path, WNIDS)


def test_published_labels_of_validation_images():
    """Two copies of the published file begin and end like this; each class has 50 images."""
    labels = val_ground_truth.read_published()
    assert labels.dtype == np.int32
    assert np.bincount(labels, minlength=1000).tolist() == [50] * 1000
    first = ["n01751748", "n09193705", "n02105855", "n04263257", "n03125729", "n01735189"]
    last = ["n02123394", "n01630670", "n02106166", "n10148035", "n02437616"]
    assert [WNIDS[label] for label in labels[:6]] == first
    assert [WNIDS[label] for label in labels[-5:]] == last
    names = ("ILSVRC2012_val_00050000.JPEG", "ILSVRC2012_val_00050001.JPEG", "other.JPEG")
    known = [val_ground_truth.published_label(name) for name in names]
    assert known == [WNIDS.index("n02437616"), None, None]


@pytest.mark.skipif("REAL_IMAGES_DIR" not in os.environ, reason="needs $REAL_IMAGES_DIR")
def test_published_labels_are_those_of_the_facts():
    path = pathlib.Path(os.environ["REAL_IMAGES_DIR"], "facts", "ilsvrc2012_val_ground_truth.txt")
    facts = [int(line.split()[1]) for line in path.read_text().splitlines()]
    assert val_ground_truth.read_published().tolist() == facts


def test_labels_next_to_the_images_take_precedence_over_published_ones(tmp_path, caplog):
    rows = f"ImageId,PredictionString\nILSVRC2012_val_00000002,{WNIDS[5]} 1 2 3 4 \n"
    put(tmp_path / "LOC_val_solution.csv", rows.encode())
    images = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    put(images / "train" / WNIDS[0] / "a.JPEG")
    for number in (1, 2):
        put(images / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    for data_dir in (tmp_path, tmp_path / "ILSVRC", images):
        raw = raw_layouts.find(DataConfig(dataset="ilsvrc2012", data_dir=str(data_dir)), PREPARE)
        assert _names(raw, "val") == [("val/ILSVRC2012_val_00000002.JPEG", 5)]
        assert len(raw.unlabeled) == 1
        assert "1 of 1 labels differ from the published ones" in caplog.text
        caplog.clear()


def test_devkit_classes_are_read_from_meta_mat(tmp_path):
    rows = np.array(
        [(1, WNIDS[7], 0), (2, WNIDS[9], 0), (1001, "n00001740", 5)],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")],
    )
    savemat(tmp_path / "meta.mat", {"synsets": rows})
    assert val_ground_truth.read_devkit_classes(tmp_path) == {"1": WNIDS[7], "2": WNIDS[9]}


@pytest.mark.parametrize("data", [b"", b"garbage" * 99, "truncated", "no synsets"])
def test_malformed_meta_mat_is_refused(tmp_path, data):
    path = tmp_path / "meta.mat"
    if isinstance(data, str):
        savemat(path, {"synset": np.zeros(999)}, do_compression=True)
        data = path.read_bytes() if data == "no synsets" else path.read_bytes()[:150]
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"is not the meta\.mat of a development kit"):
        val_ground_truth.read_devkit_classes(tmp_path)


def test_mini_imagenet_from_csv_files(tmp_path):
    wnid = datasets.load_class_table("mini_imagenet")[4][0]
    # As a string 100 sorts before 18 and 9, as a number it is the third.
    for number in (100, 18, 9):
        put(tmp_path / "train" / wnid / f"{wnid}_{number}.JPEG", str(number).encode())
    for name in ("train", "val", "test"):
        lines = f"{wnid}00000003.jpg,{wnid}\n{wnid}00000001.jpg,{wnid}\n" if name == "val" else ""
        put(tmp_path / "csv" / f"{name}.csv", f"filename,label\n{lines}".encode())
    config = DataConfig(dataset="mini_imagenet", data_dir=str(tmp_path))
    raw = raw_layouts.find(config, PrepareConfig(split_csv=str(tmp_path / "csv")))
    contents = {item.read() for items in raw.splits.values() for item in items}
    assert contents == {b"100", b"9"}
    assert {item.label for items in raw.splits.values() for item in items} == {4}


def test_csv_byte_order_mark_is_accepted_and_malformed_csv_is_refused(tmp_path):
    wnid = datasets.load_class_table("mini_imagenet")[4][0]
    put(tmp_path / "train" / wnid / f"{wnid}_9.JPEG", b"9")
    for name in ("train", "val", "test"):
        put(tmp_path / "csv" / f"{name}.csv", b"\xef\xbb\xbffilename,label\n")
    row = f"{wnid}00000001.jpg,{wnid}\n".encode()
    config = DataConfig(dataset="mini_imagenet", data_dir=str(tmp_path))
    settings = PrepareConfig(split_csv=str(tmp_path / "csv"))
    put(tmp_path / "csv" / "test.csv", b"\xef\xbb\xbffilename,label\n" + row)
    assert len(raw_layouts.find(config, settings).splits["train"]) == 1
    for bad, message in (
        (b"image,class\n" + row, ", line 2: a row is not `filename,label`"),
        (b"filename,label\n" + f"x.jpg,{wnid}\n".encode(), ": a row is not .* a name like n"),
    ):
        put(tmp_path / "csv" / "test.csv", bad)
        with pytest.raises(DataError, match=r"test\.csv" + message):
            raw_layouts.find(config, settings)


def test_few_shot_splits_with_disjoint_classes_are_pooled(tmp_path):
    """Only for mini_imagenet. In other data sets, disjoint classes are an error."""
    table = [wnid for wnid, _ in datasets.load_class_table("mini_imagenet")]
    for split, names in (("train", table[:64]), ("val", table[64:80]), ("test", table[80:])):
        for name in names:
            for number in range(12):
                put(tmp_path / split / name / f"{number}.jpg")
    raw = raw_layouts.find(DataConfig(dataset="mini_imagenet", data_dir=str(tmp_path)), PREPARE)
    assert raw.classes == tuple(table)
    assert {label for _, label in _names(raw, "train")} == set(range(100))
    names = [name for split in raw.splits for name, _ in _names(raw, split)]
    assert len(names) == len(set(names)) == 1200
    with pytest.raises(DataError, match=table[64]):
        raw_layouts.find(DataConfig(dataset="folder", data_dir=str(tmp_path)), PREPARE)


def test_class_folders_without_splits_are_split_10_1_1(tmp_path):
    for name in ("cat", "dog"):
        for number in range(24):
            put(tmp_path / name / f"{number}.jpg")
    raw = raw_layouts.find(DataConfig(dataset="folder", data_dir=str(tmp_path)), PREPARE)
    assert raw.classes == ("cat", "dog")
    num_dogs = {s: [label for _, label in _names(raw, s)].count(1) for s in raw.splits}
    assert num_dogs == {"train": 20, "val": 2, "test": 2}


@pytest.mark.parametrize("split", ["", "train/"])
def test_images_in_subfolders_of_class_folders_are_unlabeled(tmp_path, split):
    put(tmp_path / f"{split}cat/1.jpg")
    put(tmp_path / f"{split}dog/1.jpg")
    nested = [f"{split}cat/more/2.jpg", f"{split}cat/more/deep/3.png", f"{split}4.jpg"]
    for name in (*nested, f"{split}cat/more/notes.txt"):
        put(tmp_path / name)
    raw = raw_layouts.find(DataConfig(dataset="folder", data_dir=str(tmp_path)), PREPARE)
    assert _names(raw, "train") == [(f"{split}cat/1.jpg", 0), (f"{split}dog/1.jpg", 1)]
    assert sorted(raw.unlabeled) == sorted(str(tmp_path / name) for name in nested)


def _find_tar(root, write_members):
    """Finds the images of a data set whose only class is a tar file."""
    (root / "train").mkdir()
    with tarfile.open(root / "train" / f"{WNIDS[0]}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        write_members(tar)
    return raw_layouts.find(DataConfig(dataset="ilsvrc2012", data_dir=str(root)), PREPARE)


def _add(tar, name="a.JPEG", pax_headers=None, **values):
    member = tarfile.TarInfo(name)
    member.pax_headers = pax_headers or {}
    for key, value in values.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(b"image") if member.size == 5 else None)


SPARSE = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(2**40), "GNU.sparse.numblocks": "0"}


@pytest.mark.parametrize(
    "values",
    [
        {"pax_headers": SPARSE},
        {"size": 2**40},
        {"pax_headers": {"size": "-1024"}},
        {"pax_headers": {"size": str(10**30)}},
        {"type": tarfile.GNUTYPE_LONGNAME, "size": 10**11},
        {"type": tarfile.XHDTYPE, "size": 10**11},
    ],
)
def test_tar_header_that_lies_is_a_data_error(tmp_path, values):
    with pytest.raises(DataError, match=f"{WNIDS[0]}.tar: "):
        _find_tar(tmp_path, lambda tar: _add(tar, **values))


def test_compressed_class_tar_is_a_data_error(tmp_path):
    """Images are read at their offset, and the unpacked size has no bound."""
    (tmp_path / "train").mkdir()
    with tarfile.open(tmp_path / "train" / f"{WNIDS[0]}.tar", "w:gz") as tar:
        _add(tar, size=5)
    with pytest.raises(DataError, match="not a complete tar file"):
        raw_layouts.find(DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path)), PREPARE)


def test_devices_and_folders_in_a_tar_are_left_out(tmp_path):
    def write_members(tar):
        for kind in (tarfile.FIFOTYPE, tarfile.CHRTYPE):
            _add(tar, f"{kind.decode()}.JPEG", type=kind, linkname="/etc/passwd")
        _add(tar, "../../" + "long/" * 60 + "name.JPEG", size=5)

    (item,) = _find_tar(tmp_path, write_members).splits["train"]
    assert item.name == f"train/{WNIDS[0]}/name.JPEG" and item.read() == b"image"


def test_packed_development_kit_is_bounded(tmp_path):
    path = tmp_path / "devkit.tar.gz"
    path.write_bytes(gzip.compress(bytes(2**26 + 1), 1))
    with pytest.raises(DataError, match=r"devkit\.tar\.gz: has more than 67108864 bytes"):
        val_ground_truth.read(path, WNIDS)
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, "meta.mat", pax_headers={"size": "-1024"})
    with pytest.raises(DataError, match=r"devkit\.tar\.gz: meta\.mat claims -1024 bytes"):
        val_ground_truth.read(path, WNIDS)
    path.unlink()
    os.mkfifo(tmp_path / "devkit.tar.gz")
    with pytest.raises(DataError, match="is a folder, pipe, device or socket"):
        val_ground_truth.find(tmp_path, "", WNIDS)


def test_malformed_solution_is_a_data_error(tmp_path):
    put(tmp_path / "LOC_val_solution.csv", b'"' + b"a" * 200_000)
    with pytest.raises(DataError, match="is not a CSV file"):
        val_ground_truth.read(tmp_path, WNIDS)


def test_superscript_digits_are_not_numbers(tmp_path):
    """`isdigit` accepts them, but `int` does not."""
    (tmp_path / "val").mkdir()
    put(tmp_path / "ilsvrc2012_val_ground_truth.txt", "a.JPEG ²".encode())
    with pytest.raises(DataError, match="is not `image label`"):
        val_ground_truth.read(tmp_path, WNIDS)
