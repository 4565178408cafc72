"""Class folders without splits: which image is in which split, and that it stays there."""

import pathlib
import unicodedata

import pytest
import tensorflow as tf

from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.errors import DataError
from input_pipeline.preparation import raw_layouts, verify
from input_pipeline.sources import folder_splits, image_folders, index_folder, source
from loops.checkpointing import split_facts
from tests.input_pipeline.files import put

SPLITS = ("train", "val", "test")


def _fill(root, *names):
    for name in names:
        put(root / name, name.encode())


def _paths(config, classes=()):
    """Returns the sorted contents of the images of each split, which are their paths."""
    result = {}
    for name in SPLITS:
        split = source.open_split(config, name, classes)
        classes = split.class_names
        contents = [split.read(tf.constant(i, tf.int64)) for i in range(split.num_examples)]
        assert [classes[int(label)] for _, label in contents] == [
            data.numpy().decode().split("/")[-2] for data, _ in contents
        ]
        result[name] = [data.numpy().decode() for data, _ in contents]
    return result


@pytest.fixture
def config(tmp_path):
    _fill(tmp_path, *(f"{name}/{k}.jpg" for name in ("cat", "dog") for k in range(12)))
    return DataConfig(dataset="folder", data_dir=str(tmp_path))


def test_training_reads_the_split_that_prepare_writes(config):
    raw = raw_layouts.find(config, PrepareConfig())
    prepared = {split: [item.name for item in items] for split, items in raw.splits.items()}
    paths = _paths(config)
    assert paths == prepared
    assert {split: len(part) for split, part in paths.items()} == {"train": 20, "val": 2, "test": 2}
    # By the definition: the hash of the name alone decides.
    assert folder_splits.split_by_name([f"{k}.jpg" for k in range(12)])["val"] == [
        paths["val"][0].removeprefix("cat/")
    ]


def test_split_is_said_to_be_written_when_it_is(config, tmp_path, caplog):
    text = f"wrote the split to {tmp_path}/.index/split.txt; keep it with the images"
    for _ in range(2):
        source.open_split(config, "train")
        assert caplog.messages.count(text) == 1
    _fill(tmp_path, "cat/new.jpg")
    source.open_split(config, "train")
    assert caplog.messages.count(text) == 2


def test_folders_are_listed_once(config, monkeypatch):
    """On a network disk, listing takes most of the time of the first training's start."""
    listed = []
    scan = image_folders.scan
    monkeypatch.setattr(image_folders, "scan", lambda path: listed.append(path) or scan(path))
    source.open_split(config, "train")
    assert sorted(listed) == [f"{config.data_dir}/cat", f"{config.data_dir}/dog"]


def test_images_never_move_to_another_split(config, tmp_path):
    before = _paths(config)
    _fill(tmp_path, *(f"{name}/new {k}.jpg" for name in ("cat", "dog") for k in range(30)))
    (tmp_path / before["val"][0]).unlink()
    after = _paths(config, ("cat", "dog"))
    for split in SPLITS:
        assert set(before[split]) - set(after[split]) <= {before["val"][0]}
    # 41 and 42 images of a class: 3 and 4 for val.
    assert {split: len(part) for split, part in after.items()} == {"train": 69, "val": 7, "test": 7}
    assert sum(path.startswith("dog") for path in after["val"]) == round(42 / 12)
    # The image returns to where it was. Preparing and verifying follow what is written down.
    _fill(tmp_path, before["val"][0])
    assert before["val"][0] in _paths(config)["val"]
    raw = raw_layouts.find(config, PrepareConfig())
    assert [item.name for item in raw.splits["val"]] == _paths(config)["val"]


def test_cache_that_may_not_be_read_does_not_matter(tmp_path, monkeypatch):
    """As of a container whose user is not the owner of HOME."""
    (tmp_path / ".index").mkdir()
    (tmp_path / ".index/split.txt").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", "/private")
    lstat = pathlib.Path.lstat

    def refuse(path):
        if path.is_relative_to("/private"):
            raise PermissionError(13, "Permission denied", str(path))
        return lstat(path)

    monkeypatch.setattr(pathlib.Path, "lstat", refuse)
    assert index_folder.list_existing(tmp_path, "split.txt") == [tmp_path / ".index/split.txt"]


def test_split_of_a_read_only_data_set_is_in_the_cache(config, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "@cache"))
    tmp_path.chmod(0o555)
    try:
        before = _paths(config)
    finally:
        tmp_path.chmod(0o755)
    (written,) = (tmp_path / "@cache").rglob("split.txt")
    lines = [f"{path} {n}" for n, split in enumerate(SPLITS) for path in before[split]]
    assert written.read_text().splitlines() == sorted(lines)


@pytest.mark.parametrize("modes", [(0o555, 0o755), (0o755, 0o555)])
def test_split_is_kept_when_the_data_set_becomes_read_only_or_writable(
    config, tmp_path, monkeypatch, modes
):
    """What is next to the images and what is in the cache is read, and new images are added."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "@cache"))
    # Without this file, one of these images would be in val.
    put(tmp_path / ".index/split.txt", b"".join(b"cat/%d.jpg 0\n" % k for k in range(12)))
    (tmp_path / "@cache").mkdir()
    (tmp_path / ".index").chmod(modes[0])
    try:
        before = _paths(config)
        assert sum(path.startswith("cat") for path in before["train"]) == 12
        (tmp_path / ".index").chmod(modes[1])
        _fill(tmp_path, *(f"dog/new {k}.jpg" for k in range(12)))
        after = _paths(config, ("cat", "dog"))
    finally:
        (tmp_path / ".index").chmod(0o755)
    for split in SPLITS:
        assert set(before[split]) <= set(after[split])
    assert sum(path.startswith("dog") for path in after["val"]) == 2
    assert len(list((tmp_path / "@cache").rglob("split.txt"))) == 1


def test_nothing_is_locked_if_the_split_is_complete(config, tmp_path, monkeypatch):
    """Data and cache may both be read-only."""
    before = _paths(config)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    (tmp_path / ".index").chmod(0o555)
    try:
        assert _paths(config) == before
        assert source.open_split(config, "val", ("cat", "dog")).num_examples == 2
    finally:
        (tmp_path / ".index").chmod(0o755)


def test_run_whose_split_is_lost_is_not_evaluated_on_training_images(config, tmp_path):
    record = {"train": split_facts.describe(source.open_split(config, "train"), config)}
    split_facts.require_same_split(record, config)
    _fill(tmp_path, "cat/0 new.jpg", "zebra/1.jpg")  # sorted, they are not the last ones
    assert source.open_split(config, "train").num_examples == 22
    split_facts.require_same_split(record, config)
    (tmp_path / ".index/split.txt").unlink()
    with pytest.raises(DataError, match=r"\.index/split\.txt: is missing.*--test_sets"):
        split_facts.require_same_split(record, config)
    # Another training splits more images, and images move.
    _fill(tmp_path, *(f"cat/new {k}.jpg" for k in range(12)))
    source.open_split(config, "train")
    with pytest.raises(DataError, match=r"split\.txt: has another split than the .*--test_sets"):
        split_facts.require_same_split(record, config)
    record = {"train": {"images": 20, "fingerprint": "x"}}  # of another rule, or an older version
    split_facts.require_same_split(record, config)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("images/1.jpg", "images/2.jpg", "annotations/1.txt"),
            "only the folder images has images \\(2 folders\\)",
        ),
        (("cat/1.txt", "dog/1.txt"), "no image \\(2 folders\\)"),
    ],
)
def test_folders_that_are_no_classes(tmp_path, names, message):
    _fill(tmp_path, *names)
    config = DataConfig(dataset="folder", data_dir=str(tmp_path))
    with pytest.raises(DataError, match=message):
        source.open_split(config, "train")
    with pytest.raises(DataError, match=message):
        raw_layouts.find(config, PrepareConfig())
    assert not (tmp_path / ".index").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("1.jpg", "2.jpg"), "contains no class folders and no folder train"),
        (("cat/1.jpg", "Testing/1.jpg"), "/Testing: is called like a split"),
    ],
)
def test_prepare_names_what_is_missing(tmp_path, names, message):
    _fill(tmp_path, *names)
    config = DataConfig(dataset="folder", data_dir=str(tmp_path))
    with pytest.raises(DataError, match=message):
        raw_layouts.find(config, PrepareConfig())


def test_only_training_writes_the_split_down(config, tmp_path):
    """Evaluation reads all images of class folders without a split, as of ImageNet-A."""
    verify.verify(config, PrepareConfig())
    assert not (tmp_path / ".index").exists()
    assert source.open_split(config, "val", ("cat", "dog", "owl")).num_examples == 24
    source.open_split(config, "train")
    assert source.open_split(config, "val", ("cat", "dog", "owl")).num_examples == 2


def test_damaged_split_is_named(config, tmp_path):
    put(tmp_path / ".index" / "split.txt", b"cat/0.jpg 7\n")
    with pytest.raises(DataError, match=r"split\.txt: is not a split; remove it"):
        source.open_split(config, "train")


def test_classes_of_few_images_have_no_val_split(tmp_path):
    _fill(tmp_path, *(f"{name}/{k}.jpg" for name in ("cat", "dog") for k in range(6)))
    config = DataConfig(dataset="folder", data_dir=str(tmp_path))
    assert source.open_split(config, "train").num_examples == 12
    with pytest.raises(DataError, match="a class needs seven images"):
        source.open_split(config, "val", ("cat", "dog"))


def test_few_shot_splits_of_mini_imagenet_are_pooled(tmp_path):
    wnids = ("n01532829", "n01558993", "n01704323")
    for split, wnid in zip(SPLITS, wnids, strict=True):
        _fill(tmp_path, *(f"{split}/{wnid}/{k}.jpg" for k in range(12)))
    config = DataConfig(dataset="mini_imagenet", data_dir=str(tmp_path))
    assert {split: len(part) for split, part in _paths(config).items()} == {
        **{"train": 30, "val": 3, "test": 3}
    }


def test_names_that_look_alike_are_told(tmp_path, caplog):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    _fill(tmp_path, *(f"train/{name}/1.jpg" for name in (composed, decomposed, "Owl", "owl", "a")))
    config = DataConfig(dataset="folder", data_dir=str(tmp_path))
    source.open_split(config, "train")
    assert "two classes look alike: 'cafe\\u0301' and 'caf\\xe9'" in caplog.text
    assert "two classes look alike: 'Owl' and 'owl'" in caplog.text
    _fill(tmp_path, "val/A /1.jpg")
    report, _ = verify.verify(
        DataConfig(dataset="folder", data_dir=str(tmp_path / "train")), PrepareConfig()
    )
    assert len(report["lookalikes"]) == 2
    with pytest.raises(DataError, match=r"'A ' looks like 'a': rename it"):
        source.open_split(config, "val")
