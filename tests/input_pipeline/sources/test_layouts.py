"""The same images in every layout of ImageNet give the same labels, bytes, order and batches."""

import dataclasses
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import datasets, pipeline
from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import prepare, raw_layouts, verify
from input_pipeline.sources import (
    folder_splits,
    layout_splits,
    layouts,
    parquet_files,
    source,
)
from loops.config import dataset_flags
from tests.command_line import parse
from tests.input_pipeline import imagenet_layouts
from tests.input_pipeline.files import put


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("layouts")


@pytest.fixture(params=[*imagenet_layouts.LAYOUTS], scope="module")
def data(request, root):
    """The DataConfig of a layout that --data_dir alone names."""
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    folder = imagenet_layouts.make(request.param, root)
    return _resolve(folder)


def _resolve(folder, *words):
    config = dataset_flags.resolve_dataset(parse(f"--data_dir={folder}", *words))
    dataset_flags.require_named_dataset(config)
    sizes = {"image_size": 32, "batch_size": 8, "min_crop_area": 0.25}
    return dataclasses.replace(config.data, **sizes)


@pytest.fixture(scope="module")
def expected(root):
    """The Sources of class folders."""
    config = _resolve(imagenet_layouts.make("class_folders", root / "expected"))
    return {split: source.open_split(config, split) for split in ("train", "val")}, config


def _contents(split):
    images = tf.data.Dataset.range(split.num_examples).map(split.read, num_parallel_calls=4)
    return [(int(label), image) for image, label in images.as_numpy_iterator()]


def test_training_and_evaluation_read_the_same_images_in_the_same_order(data, expected):
    splits, config = expected
    assert data.dataset == "ilsvrc2012"
    for name, images in (("train", imagenet_layouts.TRAIN), ("val", imagenet_layouts.VAL)):
        split = source.open_split(data, name)
        assert _contents(split) == imagenet_layouts.contents(images)
        assert split.class_names == imagenet_layouts.WNIDS
        assert split.labels.tolist() == splits[name].labels.tolist()
        assert split.fingerprint == splits[name].fingerprint
        # The file name without its extension is in the description of every image.
        for index, (_, file_name, _) in enumerate(images):
            assert file_name[:-5] in split.describe(index)
    train = source.open_split(data, "train")
    batches = [
        pipeline.load_first_samples(images, settings, seed=5, count=4)
        for images, settings in ((train, data), (splits["train"], config))
    ]
    tf.nest.map_structure(np.testing.assert_array_equal, *batches)


def test_verify_finds_every_image_good(data, caplog):
    report, checksums = verify.verify(data, PrepareConfig())
    if not data.data_dir.endswith("class_folders"):
        assert "train: 24 images of 4 of 1000 classes in " in caplog.text
        assert "val: 8 images of 8 of 1000 classes in " in caplog.text
    assert report["images"] == {"train": 24, "val": 8}
    assert report["bad"] == 0
    assert report["label_map"] == "sorted"
    assert len(checksums) == 32


def test_prepare_writes_the_same_records(data, tmp_path):
    out = tmp_path / "out"
    facts = prepare.prepare(data, PrepareConfig(), out, "tfrecord")
    assert facts["dataset"] == "ilsvrc2012"
    assert facts["unlabeled"] == 0
    for name, images in (("train", imagenet_layouts.TRAIN), ("val", imagenet_layouts.VAL)):
        prepared = source.open_split(dataclasses.replace(data, data_dir=str(out)), name)
        assert _contents(prepared) == imagenet_layouts.contents(images)


def test_deleting_an_iterator_does_not_wait_for_the_interpreter(tmp_path):
    """TensorFlow waits for running reads then. A read in Python would never end."""
    for layout in ("webdataset", "tfds"):
        split = source.open_split(_resolve(imagenet_layouts.make(layout, tmp_path)), "train")
        numbers = tf.data.Dataset.range(24).repeat()
        for _ in range(20):
            iterator = iter(numbers.map(split.read, num_parallel_calls=8).prefetch(9))
            next(iterator)
            del iterator


def _put_images(folder, *names):
    """Writes files that contain their own name."""
    for name in names:
        put(folder / name, name.encode())


def test_tiny_imagenet(tmp_path):
    wnids = ("n01443537", "n01629819")
    for wnid in wnids:
        _put_images(tmp_path, *(f"train/{wnid}/images/{wnid}_{k}.JPEG" for k in (10, 2)))
        put(tmp_path / "train" / wnid / f"{wnid}_boxes.txt")
    _put_images(tmp_path, *(f"val/images/val_{k}.JPEG" for k in range(3)), "test/images/a.JPEG")
    table = "".join(f"val_{k}.JPEG\t{wnids[k % 2]}\t0\t0\t9\t9\n" for k in range(3))
    put(tmp_path / "val" / "val_annotations.txt", table.encode())
    config = _resolve(tmp_path)
    assert config.dataset == "folder"
    train, val = (source.open_split(config, split) for split in ("train", "val"))
    assert train.class_names == val.class_names == wnids
    assert _contents(train) == [
        (label, f"train/{wnid}/images/{wnid}_{k}.JPEG".encode())
        for label, wnid in enumerate(wnids)
        for k in (10, 2)
    ]
    assert _contents(val) == [(k % 2, f"val/images/val_{k}.JPEG".encode()) for k in (0, 2, 1)]
    raw = raw_layouts.find(config, PrepareConfig())
    assert {split: len(items) for split, items in raw.splits.items()} == {"train": 4, "val": 3}
    assert raw.unlabeled == []


def test_tiny_imagenet_after_its_val_images_were_moved(tmp_path):
    """The usual scripts leave val_annotations.txt behind."""
    for split in ("train", "val"):
        _put_images(tmp_path, *(f"{split}/{c}/images/{c}_0.JPEG" for c in ("cat", "dog")))
    put(tmp_path / "val/val_annotations.txt", b"val_0.JPEG\tcat\t0\t0\t9\t9\n")
    val = source.open_split(_resolve(tmp_path), "val")
    assert _contents(val) == [(0, b"val/cat/images/cat_0.JPEG"), (1, b"val/dog/images/dog_0.JPEG")]


def test_flat_val_with_another_file_before_its_images(tmp_path, monkeypatch):
    """File systems list in any order."""
    folder = imagenet_layouts.make("kaggle", tmp_path)
    (val,) = folder.glob("**/val")
    put(val / "0_README.txt", b"")
    list_names = layouts._list_names
    monkeypatch.setattr(layouts, "_list_names", lambda *both: sorted(list_names(*both)))
    assert layouts.recognize(folder).splits["val"].kind == layouts.FLAT


@pytest.mark.parametrize("kind", ["parquet", "no column", "tar", "records"])
def test_test_split_without_labels_is_left_out(tmp_path, caplog, kind):
    """As Hugging Face, image-net.org and TFDS publish it."""
    names = [f"ILSVRC2012_test_{n:08d}.JPEG" for n in range(3)]
    name = {"tar": "three_tars", "records": "tfds"}.get(kind, "parquet")
    folder = imagenet_layouts.make(name, tmp_path)
    before = layouts.recognize(folder)
    if kind == "tar":
        path = folder / "ILSVRC2012_img_test_v10102019.tar"
        put(path, imagenet_layouts.tar_bytes([(f"test/{name}", b"image") for name in names]))
    elif kind == "records":
        folder_of_records = next(folder.rglob("imagenet2012-*")).parent
        path = folder_of_records / "imagenet2012-test.tfrecord-00000-of-00001"
        rows = [{"image": b"image", "file_name": name.encode(), "label": -1} for name in names]
        imagenet_layouts.write_records(path, rows)
    else:
        pyarrow_parquet = pytest.importorskip("pyarrow.parquet")
        path = folder / "data/test-00000-of-00001.parquet"
        imagenet_layouts.write_parquet(path, [(b"image", name, -1) for name in names], ["a"])
        if kind == "no column":
            pyarrow_parquet.write_table(pyarrow_parquet.read_table(path).drop(["label"]), path)
    layouts._warn_of_unlabeled.cache_clear()
    assert layouts.recognize(folder) == before
    assert caplog.messages[-1] == f"{path}: no image in it has a label; it is left out"


def test_labels_of_a_tar_file_follow_the_file_that_they_come_from(tmp_path):
    """The index has the labels, and is made again when the development kit or the CSV changes."""
    folder = imagenet_layouts.make("three_tars", tmp_path)
    config = _resolve(folder)
    assert len({*source.open_split(config, "val").labels.tolist()}) == len(imagenet_layouts.VAL)
    (folder / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    rows = [f"{name[:-5]},n01440764 1 2 3 4 \n" for _, name, _ in imagenet_layouts.VAL]
    put(folder / "LOC_val_solution.csv", "".join(["ImageId,PredictionString\n", *rows]).encode())
    assert {*source.open_split(config, "val").labels.tolist()} == {0}
    with pytest.raises(UsageError, match="nowhere: contains no ILSVRC2012_validation"):
        layout_splits.open_split(
            layouts.recognize(folder), "ilsvrc2012", "val", devkit=str(tmp_path / "nowhere")
        )


def test_thousand_classes_of_another_data_set_are_not_imagenet(tmp_path):
    pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    names = [f"food_{n}" for n in range(1000)]
    rows = [(b"image", f"{n}.jpg", n) for n in range(3)]
    imagenet_layouts.write_parquet(tmp_path / "data/train-0.parquet", rows, names)
    assert _resolve(tmp_path).dataset == "folder"
    assert source.open_split(_resolve(tmp_path), "train").class_names == tuple(names)
    english = [names for _, names in datasets.load_class_table("ilsvrc2012")]
    imagenet_layouts.write_parquet(tmp_path / "data/train-0.parquet", rows, english)
    assert _resolve(tmp_path).dataset == "ilsvrc2012"


def test_other_whole_numbers_in_parquet_files_are_no_labels(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    pyarrow_parquet = pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": b"image", "path": "1.jpg"}]
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/train-0.parquet"
    for label, is_label in (("cat", False), (7, True)):
        columns = {"width": [64], "image": images, "target": [label]}
        pyarrow_parquet.write_table(pyarrow.table(columns), path)
        if is_label:
            assert parquet_files.find_columns(path).label == "target"
        else:
            with pytest.raises(DataError, match=r"no column of images .*target \(BYTE_ARRAY\)"):
                parquet_files.find_columns(path)


def test_empty_image_in_parquet_files_is_a_bad_image_like_others(tmp_path):
    pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    rows = [(b"image %d" % n if n else None, f"{n}.jpg", n) for n in range(4)]
    imagenet_layouts.write_parquet(tmp_path / "data/train-0.parquet", rows, list("abcd"))
    contents = _contents(source.open_split(_resolve(tmp_path), "train"))
    assert contents == [(n, b"image %d" % n if n else b"") for n in range(4)]


def test_files_of_macos_in_webdataset_tars_are_skipped(tmp_path):
    files = [("._a.jpg", b"x"), ("a.jpg", b"image"), ("._a.cls", b"x"), ("a.cls", b"1")]
    put(
        tmp_path / "train-0.tar",
        imagenet_layouts.tar_bytes([*files, ("b.jpg", b"b"), ("b.cls", b"0")]),
    )
    assert _contents(source.open_split(_resolve(tmp_path), "train")) == [(0, b"b"), (1, b"image")]


def test_two_classes_with_one_name_are_refused(tmp_path):
    """Both a bird and a machine are called crane in ImageNet."""
    files = []
    for key, name, label in (("a", "crane", 134), ("b", "crane", 517), ("c", "tench", 0)):
        facts = json.dumps({"label": label, "class_name": name}).encode()
        files += [(f"{key}.jpg", b"image"), (f"{key}.json", facts)]
    put(tmp_path / "train-0.tar", imagenet_layouts.tar_bytes(files))
    with pytest.raises(DataError, match=r"the class name of a\.jpg has several class numbers"):
        source.open_split(_resolve(tmp_path), "train")


@pytest.mark.parametrize(
    "names", [("Train", "Val"), ("train", "valid"), ("training", "validation")]
)
def test_other_names_of_splits(tmp_path, names):
    for name in names:
        _put_images(tmp_path, f"{name}/cat/1.jpg", f"{name}/dog/2.jpg")
    config = _resolve(tmp_path)
    assert config.dataset == "folder"
    for split, name in zip(("train", "val"), names, strict=True):
        expected = [(0, f"{name}/cat/1.jpg".encode()), (1, f"{name}/dog/2.jpg".encode())]
        assert _contents(source.open_split(config, split)) == expected
    raw = raw_layouts.find(config, PrepareConfig())
    assert {split: len(items) for split, items in raw.splits.items()} == {"train": 2, "val": 2}


def test_folders_of_systems_are_no_classes_and_every_jpeg_extension_is_read(tmp_path):
    _put_images(tmp_path, "train/cat/1.jpg", "train/cat/2.jfif", "train/dog/3.JPE")
    for name in ("@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", "#recycle"):
        _put_images(tmp_path, f"train/{name}/9.jpg")
    config = _resolve(tmp_path)
    split = source.open_split(config, "train")
    assert split.class_names == ("cat", "dog")
    assert split.labels.tolist() == [0, 0, 1]
    assert raw_layouts.find(config, PrepareConfig()).classes == ("cat", "dog")


def test_test_sets_without_splits_are_opened_by_the_classes_of_a_run(tmp_path):
    """ImageNet-A has folders of WordNet ids. Those of ImageNet-V2 are class numbers."""
    wnids = imagenet_layouts.WNIDS
    _put_images(tmp_path / "a", f"{wnids[7]}/x.jpg", f"{wnids[3]}/y.jpg")
    _put_images(tmp_path / "v2", *(f"{label}/{label}.jpeg" for label in (0, 2, 10, 999)))
    expected = {
        "a": [(3, f"{wnids[3]}/y.jpg".encode()), (7, f"{wnids[7]}/x.jpg".encode())],
        "v2": [(label, f"{label}/{label}.jpeg".encode()) for label in (0, 2, 10, 999)],
    }
    for name, contents in expected.items():
        config = DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path / name))
        split = source.open_split(config, "val", wnids)
        assert split.class_names == wnids
        assert _contents(split) == contents
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "v2"))
    with pytest.raises(UsageError, match="the val split is missing"):
        source.open_split(config, "val", ("cat", "dog"))


def test_mini_imagenet_in_parquet_files_with_names_in_another_order(tmp_path):
    pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    table = [wnid for wnid, _ in datasets.load_class_table("mini_imagenet")]
    names = table[::-1]
    rows = [(b"image %d" % number, f"{number}.jpg", number) for number in (98, 0, 99)]
    imagenet_layouts.write_parquet(tmp_path / "data" / "train-0.parquet", rows, names)
    config = _resolve(tmp_path)
    assert config.dataset == "mini_imagenet"
    split = source.open_split(config, "train")
    assert _contents(split) == [(0, b"image 99"), (1, b"image 98"), (99, b"image 0")]
    assert split.class_names == tuple(table)


def _put_csv(path, rows):
    text = "filename,label\n" + "".join(f"{name},{label}\n" for name, label in rows)
    put(path, text.encode())


def test_mini_imagenet_as_flat_images_with_the_csv_files_of_few_shot_splits(tmp_path):
    table = [wnid for wnid, _ in datasets.load_class_table("mini_imagenet")]
    names = {wnid: [f"{wnid}{k:08d}.jpg" for k in range(12)] for wnid in table}
    for wnid in table:
        _put_images(tmp_path, *(f"images/{name}" for name in names[wnid]))
    for split, part in (("train", table[:64]), ("val", table[64:80]), ("test", table[80:])):
        _put_csv(tmp_path / f"{split}.csv", [(name, wnid) for wnid in part for name in names[wnid]])
    config = _resolve(tmp_path)
    assert config.dataset == "mini_imagenet"
    splits = {name: source.open_split(config, name) for name in ("train", "val", "test")}
    assert [split.num_examples for split in splits.values()] == [1000, 100, 100]
    # The split of each class is that of --split_csv and of class folders: by the hash of the name.
    for label in (0, 70, 99):
        names_of_split = folder_splits.split_by_name(names[table[label]])
        for name, split in splits.items():
            paths = [split.describe(int(i)) for i in np.flatnonzero(split.labels == label)]
            assert [path.rpartition("/")[2] for path in paths] == names_of_split[name]
    raw = raw_layouts.find(config, PrepareConfig())
    assert {split: len(items) for split, items in raw.splits.items()} == {
        **{"train": 1000, "val": 100, "test": 100}
    }


def test_flat_images_with_csv_files_of_ordinary_splits(tmp_path):
    _put_images(tmp_path, *(f"images/{k}.jpg" for k in range(4)))
    _put_csv(tmp_path / "train.csv", [("2.jpg", "dog"), ("0.jpg", "dog"), ("1.jpg", "cat")])
    _put_csv(tmp_path / "val.csv", [("3.jpg", "dog")])
    config = _resolve(tmp_path)
    assert config.dataset == "folder"
    train, val = (source.open_split(config, split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("cat", "dog")
    assert _contents(train) == [(0, b"images/1.jpg"), (1, b"images/0.jpg"), (1, b"images/2.jpg")]
    assert _contents(val) == [(1, b"images/3.jpg")]


@pytest.mark.parametrize("titles", ["filename,label", "filename, label", '"Filename","Label" '])
def test_csv_files_with_blanks_and_without_labels(tmp_path, titles, caplog):
    _put_images(tmp_path, *(f"images/{k}.jpg" for k in range(3)))
    put(tmp_path / "train.csv", f"{titles}\n0.jpg, cat\n1.jpg, dog\n".encode())
    put(tmp_path / "test.csv", b"filename,label\n2.jpg,\n")
    config = _resolve(tmp_path)
    train = source.open_split(config, "train")
    assert _contents(train) == [(0, b"images/0.jpg"), (1, b"images/1.jpg")]
    assert caplog.text.count("test.csv: no image in it has a label") == 1
    with pytest.raises(UsageError, match="no images of the test split; found train"):
        source.open_split(config, "test")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../outside.jpg", r"train\.csv, line 3: '\.\./outside\.jpg' leads out of the folder"),
        ("x/../../1.jpg", r"line 3: 'x/\.\./\.\./1\.jpg' leads out"),
        ("pipe.jpg", r"images/pipe\.jpg: is a pipe"),
    ],
)
def test_csv_file_of_a_stranger(tmp_path, name, message):
    _put_images(tmp_path, "images/0.jpg", "outside.jpg")
    os.mkfifo(tmp_path / "images/pipe.jpg")
    _put_csv(tmp_path / "train.csv", [("0.jpg", "cat"), (name, "dog")])
    with pytest.raises(DataError, match=message):
        source.open_split(_resolve(tmp_path, "--dataset=folder"), "train")


def test_imagenet_100_of_kaggle(tmp_path):
    wnids = ("n01440764", "n01443537", "n01484850")
    for part, wnid in (("train.X1", wnids[2]), ("train.X2", wnids[0]), ("train.X2", wnids[1])):
        _put_images(tmp_path, f"{part}/{wnid}/{wnid}_2.JPEG", f"{part}/{wnid}/{wnid}_10.JPEG")
    _put_images(tmp_path, *(f"val.X/{wnid}/v.JPEG" for wnid in wnids))
    put(tmp_path / "Labels.json", b"{}")
    config = _resolve(tmp_path)
    train, val = (source.open_split(config, split) for split in ("train", "val"))
    assert train.class_names == val.class_names == wnids
    assert val.labels.tolist() == [0, 1, 2]
    expected = [(0, "train.X2", 10), (0, "train.X2", 2), (1, "train.X2", 10), (1, "train.X2", 2)]
    expected += [(2, "train.X1", 10), (2, "train.X1", 2)]
    assert _contents(train) == [
        (label, f"{part}/{wnids[label]}/{wnids[label]}_{k}.JPEG".encode())
        for label, part, k in expected
    ]
    # The same images in class folders are the same data set.
    for wnid in wnids:
        _put_images(tmp_path / "b", *(f"train/{wnid}/{wnid}_{k}.JPEG" for k in (2, 10)))
        _put_images(tmp_path / "b", f"val/{wnid}/v.JPEG")
    assert source.open_split(_resolve(tmp_path / "b"), "train").fingerprint == train.fingerprint
