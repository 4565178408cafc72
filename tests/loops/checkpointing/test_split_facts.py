"""A run that is resumed, or evaluated, with other images says in what they differ."""

import types

import pytest

from input_pipeline.errors import DataError
from input_pipeline.sources import source
from loops import evaluate, train
from loops.checkpointing import run_folder, split_facts
from loops.config.config import Config
from tests.input_pipeline.files import put


@pytest.fixture
def config(tmp_path):
    for split, name in (
        ("train", "cat/b"),
        ("train", "dog/c"),
        ("train", "dog/d"),
        ("val", "cat/e"),
    ):
        put(tmp_path / split / f"{name}.jpg")
    return Config().replace(dataset="folder", data_dir=str(tmp_path))


def _setup(config):
    splits = {s: source.open_split(config.data, s, ("cat", "dog")) for s in ("train", "val")}
    return types.SimpleNamespace(
        config=config, train_split=splits["train"], val_split=splits["val"]
    )


def test_resuming_says_which_images_differ(config, tmp_path, caplog):
    run_dir = tmp_path / "runs"
    run_dir.mkdir()
    train._update_record(run_dir, _setup(config), None)
    record = run_folder.read_record(run_dir)
    assert record.dataset["train"]["class_sizes"] == [1, 2]
    record = train._update_record(run_dir, _setup(config), record)
    assert "differ" not in caplog.text
    put(tmp_path / "train/dog/1.jpg")
    (tmp_path / "train/cat/b.jpg").rename(tmp_path / "train/cat/a.jpg")
    (tmp_path / "val/cat/e.jpg").rename(tmp_path / "val/cat/f.jpg")
    train._update_record(run_dir, _setup(config), record)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    start = "the images differ from those at the last start of this run: "
    assert warnings == [
        f"{start}train: 4 images, were 3; dog has 3, had 2; the first is"
        f" {tmp_path}/train/cat/a.jpg, was {tmp_path}/train/cat/b.jpg",
        f"{start}val: 1 image; other names or labels; the first is"
        f" {tmp_path}/val/cat/f.jpg, was {tmp_path}/val/cat/e.jpg",
    ]


def test_split_of_class_folders_is_compared_with_that_of_the_run(tmp_path):
    for name in ("cat", "dog"):
        for number in range(12):
            put(tmp_path / name / f"{number}.jpg")
    config = Config().replace(dataset="folder", data_dir=str(tmp_path))
    run_dir = tmp_path / ".run"
    run_dir.mkdir()
    train._update_record(run_dir, _setup(config), None)
    record = run_folder.read_record(run_dir)
    split_facts.require_same_split(record.dataset, config.data)
    path = tmp_path / ".index/split.txt"
    path.write_bytes(path.read_bytes().replace(b" 0\n", b" 1\n", 1))
    with pytest.raises(DataError, match=r"split\.txt: has another split"):
        split_facts.require_same_split(record.dataset, config.data)


def test_evaluation_of_other_images_than_trained_with(config, tmp_path, caplog):
    dataset = {"val": split_facts.describe(_setup(config).val_split)}
    put(tmp_path / "val/dog/x.jpg")
    split = _setup(config).val_split
    record = run_folder.Record(config, ("cat", "dog"), dataset)
    model = types.SimpleNamespace(record=record, config=config)
    evaluate._warn_of_other_images(model, "val", split)
    assert "val: 2 images, were 1; dog has 1, had 0" in caplog.text
    caplog.clear()
    model.config = config.replace(data_dir=str(tmp_path / "another"))
    evaluate._warn_of_other_images(model, "val", split)
    assert not caplog.text


def test_facts_of_older_versions_and_of_many_classes():
    names = tuple("abcde")
    then = {"train": {"images": 5, "fingerprint": "x", "class_sizes": [1] * 5, "first": "a/1"}}
    now = {"train": {"images": 10, "fingerprint": "y", "class_sizes": [2] * 5, "first": "a/1"}}
    assert split_facts.find_changes(then, now, names) == [
        "train: 10 images, were 5; a has 2, had 1; b has 2, had 1; c has 2, had 1;"
        " 2 more classes have changed"
    ]
    old = {"train": {"images": 5, "fingerprint": "x"}}
    assert split_facts.find_changes(old, now, names) == [
        "train: 10 images, were 5; other names or labels"
    ]
