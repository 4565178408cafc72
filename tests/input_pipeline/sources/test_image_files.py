"""Class folders and lists: which images are read, in which order, and which errors are raised."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.config import DataConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import image_files
from tests.input_pipeline.files import put


def _fill(root, *names):
    """Writes files that contain their own name. These tests do not decode images."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return str(root)


def _lists(root, *, classes=None, **lists):
    """Writes lists, given as text or bytes by split, and returns the config that names them."""
    values = {"dataset": "lists", "data_dir": str(root)}
    for split, text in lists.items():
        path = root / f"{split}.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        values[f"{split}_list"] = str(path)
    if classes is not None:
        (root / "classes.txt").write_text(classes)
        values["class_names"] = str(root / "classes.txt")
    return DataConfig(**values)


def _contents(files):
    """Returns (content, label) of every image, read inside tf.data."""
    dataset = tf.data.Dataset.range(len(files.labels)).map(files.make_reader())
    return [(data.decode(), int(label)) for data, label in dataset.as_numpy_iterator()]


def test_folders_are_sorted_by_class_then_name(tmp_path):
    root = _fill(
        tmp_path,
        *("train/b/2.jpg", "train/b/10.jpg", "train/a/z.png", "train/C/1.jpeg"),
        *("val/a/1.jpg", "val/b/1.jpg"),
    )
    train = image_files.from_folders(root, "train")
    assert train.class_names == ("C", "a", "b")
    expected = ["train/C/1.jpeg", "train/a/z.png", "train/b/10.jpg", "train/b/2.jpg"]
    assert train.paths == expected
    assert train.labels.dtype == np.int32 and train.labels.tolist() == [0, 1, 2, 2]
    assert _contents(train) == list(zip(expected, [0, 1, 2, 2], strict=True))
    assert train.path(3) == os.path.join(root, "train/b/2.jpg")
    # A class without val images does not shift the labels of the other classes.
    assert _contents(image_files.from_folders(root, "val")) == [
        ("val/a/1.jpg", 1),
        ("val/b/1.jpg", 2),
    ]


def test_given_class_names_define_the_labels(tmp_path):
    root = _fill(tmp_path, "val/a/1.jpg", "val/b/1.jpg")  # no train folder is needed
    files = image_files.from_folders(root, "val", ("b", "x", "a"))
    assert files.class_names == ("b", "x", "a")
    assert _contents(files) == [("val/b/1.jpg", 0), ("val/a/1.jpg", 2)]


def test_only_files_with_image_extensions_are_read(tmp_path, caplog):
    images = ["a.BMP", "b.Gif", "c.JPEG", "d.jpeg", "e.jpg", "f.PNG", "g.webp", "h i.jpg"]
    others = ["list.txt", "jpg", "k.jpg.part", "m.tiff"]
    _fill(tmp_path, *(f"train/cat/{name}" for name in images + others))
    _fill(tmp_path, "train/cat/deeper/n.jpg", "train/loose.jpg", "train/.hidden/o.jpg")
    files = image_files.from_folders(str(tmp_path), "train")
    assert files.class_names == ("cat",)
    assert files.paths == [f"train/cat/{name}" for name in images]
    assert any(
        "train: 4 files are not read" in r.getMessage() and r.levelname == "WARNING"
        for r in caplog.records
    )
    assert "1 .tiff" in caplog.text and "): convert .tiff to JPEG" in caplog.text
    assert "train: skipping 1 folder inside class folders, for example cat/deeper" in caplog.text


def test_val_class_missing_from_train_is_refused(tmp_path):
    root = _fill(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "val/new/1.jpg", "val/newer/1.jpg")
    with pytest.raises(DataError, match=r"val: new is not a known class \(2 unknown, 1 known\)"):
        image_files.from_folders(root, "val")


@pytest.mark.parametrize("split", ["train", "val"])
def test_broken_symlink_to_class_folder_is_refused(tmp_path, split):
    """For example on an unmounted disk: training must not silently drop the class."""
    root = _fill(tmp_path, *("train/a/1.jpg", "train/c/1.jpg", "val/a/1.jpg", "val/c/1.jpg"))
    _fill(tmp_path, *("disk/train/b/1.jpg", "disk/val/b/1.jpg"))
    for name in ("train", "val"):
        (tmp_path / name / "b").symlink_to(tmp_path / "disk" / name / "b")
    (tmp_path / split / ".hidden").symlink_to("nowhere")
    assert image_files.from_folders(root, split).labels.tolist() == [0, 1, 2]
    (tmp_path / "disk" / split / "b").rename(tmp_path / "gone")
    with pytest.raises(DataError, match=rf"/{split}/b: is a broken symbolic link"):
        image_files.from_folders(root, split)


@pytest.mark.parametrize(
    ("existing", "split", "missing"),
    [
        ((), "train", "nowhere"),
        (("val/a/1.jpg",), "train", "nowhere/train"),
        (("train/a/1.jpg",), "val", "nowhere/val"),
        (("train/a/1.jpg",), "test", "nowhere/test"),
        (("val/a/1.jpg",), "val", "nowhere/train"),  # its folders define the classes
    ],
)
def test_error_names_missing_folder(tmp_path, existing, split, missing):
    root = tmp_path / "nowhere"
    _fill(root, *existing)
    with pytest.raises(UsageError, match="--data_dir") as error:
        image_files.from_folders(str(root), split)
    assert str(error.value).startswith(f"{tmp_path / missing}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("files", [(), ("1.jpg",), ("a/notes.txt",), ("a/deeper/1.jpg",)])
def test_split_without_images_is_refused(tmp_path, files):
    (tmp_path / "train").mkdir()
    _fill(tmp_path / "train", *files)
    with pytest.raises(DataError, match=r"train: no image in any class folder \(\.jpg"):
        image_files.from_folders(str(tmp_path), "train")


def test_list_keeps_its_order(tmp_path):
    _fill(tmp_path, "b.jpg", "a.jpg", "deep/c.png")
    config = _lists(tmp_path, train="b.jpg 1\ndeep/c.png 0\r\na.jpg 3\nb.jpg 1")
    files = image_files.from_list(config, "train")
    assert files.class_names == ("0", "1", "2", "3")
    assert files.labels.dtype == np.int32
    assert _contents(files) == [("b.jpg", 1), ("deep/c.png", 0), ("a.jpg", 3), ("b.jpg", 1)]
    assert files.path(1) == os.path.join(tmp_path, "deep/c.png")


def test_label_follows_the_last_space(tmp_path):
    names = ["my cat.jpg", "two  spaces 7.jpg", " first.jpg", "7 8", "été.jpg"]
    _fill(tmp_path, *names)
    config = _lists(tmp_path, train="".join(f"{name} {i}\n" for i, name in enumerate(names)))
    files = image_files.from_list(config, "train")
    assert files.paths == names
    assert _contents(files) == [(name, i) for i, name in enumerate(names)]


def test_paths_are_relative_to_current_folder_without_data_dir(tmp_path, monkeypatch):
    config = dataclasses.replace(_lists(tmp_path, train="a.jpg 0\n"), data_dir="")
    monkeypatch.chdir(tmp_path)
    _fill(tmp_path, "a.jpg")
    assert _contents(image_files.from_list(config, "train")) == [("a.jpg", 0)]


@pytest.mark.parametrize("data_dir", ["", "elsewhere"])
def test_list_with_absolute_paths(tmp_path, monkeypatch, data_dir):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    _fill(tmp_path, "a.jpg")
    config = _lists(tmp_path, train=f"{tmp_path}/a.jpg 0\n")
    files = image_files.from_list(dataclasses.replace(config, data_dir=data_dir), "train")
    assert files.path(0) == f"{tmp_path}/a.jpg"
    assert _contents(files) == [("a.jpg", 0)]


@pytest.mark.parametrize("layout", ["list", "file", "class"])
def test_names_with_invalid_utf8(tmp_path, layout):
    name = os.fsdecode(b"caf\xe9")
    if layout == "list":
        (tmp_path / name).write_bytes(b"it")
        config = _lists(tmp_path, train=b"caf\xe9 0\n")
        files = image_files.from_list(config, "train")
    else:
        path = tmp_path / "train" / (name if layout == "class" else "a") / f"{name}.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"it")
        files = image_files.from_folders(str(tmp_path), "train")
    assert _contents(files) == [("it", 0)]
    assert len(files.fingerprint()) == 64


def test_largest_train_label_sets_number_of_classes(tmp_path):
    config = _lists(tmp_path, train="a.jpg 4\n", val="b.jpg 1\nc.jpg 0\n", test="d.jpg 4\n")
    for split, labels in (("train", [4]), ("val", [1, 0]), ("test", [4])):
        files = image_files.from_list(config, split)
        assert files.class_names == ("0", "1", "2", "3", "4")
        assert files.labels.tolist() == labels


def test_class_names_come_from_file_or_trained_run(tmp_path):
    table = "0 n1 red fox\n1 n2 blue\n2 n3\n"
    config = _lists(tmp_path, train="a.jpg 1\n", val="a.jpg 2\n", classes=table)
    assert image_files.from_list(config, "train").class_names == ("n1", "n2", "n3")
    assert image_files.from_list(config, "val").class_names == ("n1", "n2", "n3")
    trained = tuple("abcdefg")
    assert image_files.from_list(config, "val", trained).class_names == trained


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a.jpg 0\nb.jpg\nc.jpg 1\n", 2),
        ("a.jpg\tx.jpg\n", 1),
        ("a.jpg x\nb.jpg 1\n", 2),
        ("a.jpg -1\n", 1),
        ("a.jpg 0\nb.jpg 1\nc.jpg -1\n", 3),
        ("a.jpg 0\nb.jpg 1.5\n", 2),
        ("a.jpg 0\nb.jpg ٣\n", 2),  # an Arabic digit
        ("a.jpg 0\nb.jpg dog\n", 2),
        ("a.jpg 0\nb\0.jpg 1\n", 2),
        ("a.jpg 0\n\nb.jpg 1\n", 2),
        ("a.jpg 0\n 7\n", 2),
        ("a.jpg 0\n7\n", 2),
    ],
)
def test_error_names_malformed_line(tmp_path, text, line):
    config = _lists(tmp_path, train=text)
    with pytest.raises(DataError, match="is not `path label`") as error:
        image_files.from_list(config, "train")
    assert str(error.value).startswith(f"{config.train_list}, line {line}: ")


@pytest.mark.parametrize(
    "text",
    [
        "a b.jpg\t0\nc,1.jpg\t2\n",
        "a b.jpg,0\nc,1.jpg,2\n",
        "image,label\na b.jpg,0\nc,1.jpg,2\n",
        "Image Path Label_ID\na b.jpg 0\nc,1.jpg 2\n",
        "0\t0.000000\ta b.jpg\n1\t2\tc,1.jpg\n",  # MXNet
        "image\tlabel\na b.jpg\t0\nc,1.jpg\t2\n",
        'image,label\n"a b.jpg",0\n"c,1.jpg",2\n',  # pandas
        "a b.jpg 0\r\nc,1.jpg 2\r\n\r\n",
        "a b.jpg 0\nc,1.jpg 2\n\n \n",
    ],
)
def test_lists_of_other_programs(tmp_path, text):
    files = image_files.from_list(_lists(tmp_path, train=text), "train")
    assert files.paths == ["a b.jpg", "c,1.jpg"]
    assert files.labels.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("a.jpg 0\nb.jpg cat\n", "'cat' is no number, but the labels of other lines are"),
        ("# path label\na.jpg 0\n", "remove the comment"),
        ("a.jpg 0\n\nb.jpg 1\n", "remove the empty line"),
        ("my photo.jpg\n", "the label is missing"),
        ("a.jpg -1\nb.jpg 0\n", "numbers from 0"),
        ("a.jpg,owl,3 years\n", "give two columns"),
        ("bild,klasse\na.jpg,owl\n", "line 1: 'bild' has no extension of an image.*the titles"),
    ],
)
def test_error_explains_the_line(tmp_path, text, advice):
    with pytest.raises(DataError, match=advice):
        image_files.from_list(_lists(tmp_path, train=text), "train")


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("a.jpg owl\nb.jpg cat\nc.jpg owl\n", "d.jpg owl\n"),
        ("a.jpg\tsnow owl\nb.jpg\tcat\nc.jpg\tsnow owl\n", "d.jpg\tsnow owl\n"),
        ("image,class\na.jpg,owl\nb.jpg,cat\nc.jpg,owl\n", "image,class\nd.jpg,owl\n"),
        ("a.jpg snow, owl\nb.jpg cat\nc.jpg snow, owl\n", "d.jpg snow, owl\n"),
        ('a.jpg,"snow, owl"\nb.jpg,"cat"\nc.jpg,"snow, owl"\n', 'd.jpg,"snow, owl"\n'),
    ],
)
def test_lists_with_names_of_classes(tmp_path, train, val):
    config = _lists(tmp_path, train=train, val=val)
    files = image_files.from_list(config, "train")
    assert files.class_names[0] == "cat" and files.class_names[1].endswith("owl")
    assert files.labels.tolist() == [1, 0, 1]
    assert image_files.from_list(config, "val").labels.tolist() == [1]
    known = ("dog", *files.class_names)
    assert image_files.from_list(config, "train", known).labels.tolist() == [2, 1, 2]
    with pytest.raises(
        DataError, match=r"line \d: '.*owl', the class of d\.jpg, is not one of the 1 classes"
    ):
        image_files.from_list(config, "val", ("cat",))


def test_commas_and_blanks_in_paths_with_names_of_classes(tmp_path):
    names = ["train/a,1.jpg", "my train/b.JPG", "c,d e.png", "f.jpg,g.jpeg"]
    for separator in " \t,":
        text = "".join(f"{name}{separator}snow owl\n" for name in names)
        files = image_files.from_list(_lists(tmp_path, train=text), "train")
        assert files.paths == names and files.class_names == ("snow owl",)


def test_first_image_is_no_header(tmp_path, caplog):
    """Only known titles are, which the log repeats."""
    text = "images/0001,cat\nimages/0002,dog\n"
    files = image_files.from_list(_lists(tmp_path, train=text), "train")
    assert files.paths == ["images/0001", "images/0002"] and not caplog.text
    files = image_files.from_list(_lists(tmp_path, train="file_name,class\n" + text), "train")
    assert len(files.labels) == 2
    assert "line 1, 'file_name,class', is taken for the titles of columns" in caplog.text


@pytest.mark.parametrize("name", ["²", "1²"])
def test_superscripts_are_names_of_classes(tmp_path, name):
    """`isdigit` accepts them, but `int` does not."""
    files = image_files.from_list(_lists(tmp_path, train=f"a.jpg {name}\nb.jpg x\n"), "train")
    assert sorted(files.class_names) == sorted(["x", name])


def test_lists_with_english_names_of_imagenet(tmp_path):
    table = "0 n01440764 tench\n1 n01443537 goldfish\n"
    config = _lists(tmp_path, train="a.jpg goldfish\nb.jpg n01440764\n", classes=table)
    assert image_files.from_list(config, "train").labels.tolist() == [1, 0]


def test_long_malformed_line_is_shortened(tmp_path):
    config = _lists(tmp_path, train="x" * 10_000)
    with pytest.raises(DataError) as error:
        image_files.from_list(config, "train")
    assert len(str(error.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_error_names_label_out_of_range(tmp_path, split):
    texts = {"train": "a.jpg 0\nb.jpg 1\n", "val": "a.jpg 0\n", "test": "a.jpg 0\n"}
    texts[split] += "c.jpg 0\nd.jpg 2\ne.jpg 3\n"
    config = _lists(tmp_path, classes="0 x\n1 y\n", **texts)
    line = texts[split].count("\n") - 1
    message = (
        rf"{split}\.txt, line {line}: label 2 of d\.jpg is out of range for 2 classes \(0 to 1\)"
    )
    with pytest.raises(DataError, match=message):
        image_files.from_list(config, split)


def test_val_label_above_largest_train_label_is_out_of_range(tmp_path):
    config = _lists(tmp_path, train="a.jpg 0\nb.jpg 2\n", val="a.jpg 2\nb.jpg 3\n")
    with pytest.raises(
        DataError, match=r"val\.txt, line 2: label 3 of b\.jpg .*3 classes \(0 to 2\)"
    ):
        image_files.from_list(config, "val")


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("path", ["", "absent.txt", "."])
def test_error_names_missing_list(tmp_path, split, path):
    flag = f"{split}_list"
    path = str(tmp_path / path) if path else ""
    config = dataclasses.replace(_lists(tmp_path, train="a.jpg 0\n"), **{flag: path})
    with pytest.raises(UsageError, match=f"--{flag}") as error:
        image_files.from_list(config, split)
    assert path in str(error.value)


def test_error_names_other_missing_files(tmp_path):
    config = _lists(tmp_path, train="a.jpg 0\n", val="a.jpg 0\n")
    absent = str(tmp_path / "absent")
    with pytest.raises(UsageError, match=f"--class_names={absent}"):
        image_files.from_list(dataclasses.replace(config, class_names=absent), "train")
    with pytest.raises(UsageError, match=f"{absent}: .*--data_dir"):
        image_files.from_list(dataclasses.replace(config, data_dir=absent), "train")
    with pytest.raises(UsageError, match="--train_list"):  # it defines the classes
        image_files.from_list(dataclasses.replace(config, train_list=""), "val")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("0 a\n2 b\n", "line 2 has index 2, expected 1"),
        ("0 a\nb\n", "line 2 is not"),
        ("0 a\n¹ b\n", "line 2 is not"),
        ("", "empty"),
    ],
)
def test_error_names_malformed_class_table(tmp_path, table, message):
    config = _lists(tmp_path, train="a.jpg 0\n", classes=table)
    with pytest.raises(DataError, match=message) as error:
        image_files.from_list(config, "train")
    assert str(error.value).startswith(config.class_names)


def test_empty_list_is_refused(tmp_path):
    config = _lists(tmp_path, train="")
    with pytest.raises(DataError, match=r"train\.txt: the list is empty"):
        image_files.from_list(config, "train")


def test_reading_a_missing_image_names_it(tmp_path):
    files = image_files.from_list(_lists(tmp_path, train="gone.jpg 0\n"), "train")
    with pytest.raises(tf.errors.NotFoundError, match=r"gone\.jpg"):
        files.make_reader()(tf.constant(0, tf.int64))


def test_fingerprint_depends_on_names_labels_and_classes_but_not_on_root(tmp_path):
    names = ["train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg"]

    def fingerprint(folder, names, class_names=()):
        root = _fill(tmp_path / folder, *names)
        return image_files.from_folders(root, "train", class_names).fingerprint()

    first = fingerprint("one", names)
    assert fingerprint("two", names) == first
    different = [
        fingerprint("name", [*names[:2], "train/b/3.jpg"]),
        fingerprint("class", [*names[:2], "train/c/1.jpg"]),
        fingerprint("more", [*names, "train/b/2.jpg"]),
        fingerprint("fewer", names[:2]),
        fingerprint("one", names, ("b", "a")),
        fingerprint("one", names, ("a", "b", "c")),
    ]
    assert len({first, *different}) == 7


def test_fingerprint_of_a_list(tmp_path):
    texts = ["a.jpg 0\nb.jpg 1\n", "b.jpg 1\na.jpg 0\n", "a.jpg 0\nb.jpg 0\n", "a.jpg 0\nc.jpg 1\n"]
    texts += ["a.jpg 1\nb.jpg 0\n"]  # the same names and classes

    def fingerprint(folder, text):
        (tmp_path / folder).mkdir()
        return image_files.from_list(_lists(tmp_path / folder, train=text), "train").fingerprint()

    fingerprints = [fingerprint(str(i), text) for i, text in enumerate(texts)]
    assert len(set(fingerprints)) == 5
    assert fingerprint("another", texts[0]) == fingerprints[0]


def test_list_with_wrong_data_dir_is_refused(tmp_path):
    """One existing image among the first 20 is enough to accept it."""
    lines = "".join(f"{n}.jpg 0\n" for n in range(25))
    config = _lists(tmp_path, train=lines)
    with pytest.raises(DataError, match=r"the first 20 images do not exist.*--data_dir"):
        image_files.from_list(config, "train")
    (tmp_path / "19.jpg").write_bytes(b"")
    assert len(image_files.from_list(config, "train").labels) == 25


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_pipes_and_devices_in_class_folders_are_left_out(tmp_path, make, caplog):
    """TensorFlow would wait for a pipe, and crash on an endless device."""
    put(tmp_path / "train/a/1.jpg", b"1")
    put(tmp_path / "elsewhere/2.jpg", b"2")
    (tmp_path / "train/a/2.jpg").symlink_to(tmp_path / "elsewhere/2.jpg")
    (tmp_path / "train/a/3.jpg").symlink_to("missing")
    make(tmp_path / "train/a/9.jpg")
    files = image_files.from_folders(tmp_path, "train")
    assert list(files.paths) == [f"train/a/{i}.jpg" for i in (1, 2, 3)]
    assert "skipping 1 pipes, devices or sockets, for example a/9.jpg" in caplog.text


@pytest.mark.parametrize("name", ["a/9.jpg", "9.jpg", "/dev/zero"])
def test_pipes_and_devices_in_lists_are_data_errors(tmp_path, name):
    put(tmp_path / "a/1.jpg", b"1")
    if not name.startswith("/"):
        os.mkfifo(tmp_path / name)
    put(tmp_path / "train.txt", f"a/1.jpg 0\na/missing.jpg 1\n{name} 1\n".encode())
    config = DataConfig(
        dataset="lists", data_dir=str(tmp_path), train_list=str(tmp_path / "train.txt")
    )
    with pytest.raises(DataError, match=f"train.txt, line 3: {name} is a pipe, device or socket"):
        image_files.from_list(config, "train")
    put(tmp_path / "train.txt", f"path,label\na/1.jpg,0\na/missing.jpg,1\n{name},1\n".encode())
    with pytest.raises(DataError, match=f"train.txt, line 4: {name} is a pipe, device or socket"):
        image_files.from_list(config, "train")


def test_label_of_many_digits_is_a_data_error(tmp_path):
    put(tmp_path / "list.txt", b"a.jpg " + b"1" * 5000)
    with pytest.raises(DataError, match=r"line 1: label 1+ is larger than"):
        image_files.parse_list(tmp_path / "list.txt", "--train_list")
