"""Which images of a prediction a run was trained on."""

import os
import shutil
import types

import pytest

from input_pipeline.config import DataConfig
from input_pipeline.sources import source
from loops.tools.predict import training_images


def find(data_dir, paths):
    config = DataConfig(dataset="folder", data_dir=str(data_dir))
    record = types.SimpleNamespace(config=types.SimpleNamespace(data=config), class_names=())
    return training_images.find([str(path) for path in paths], [record])


def list_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_of_class_folders_without_splits(tiny_folder, tmp_path):
    """An image that was added after the training is none, and nothing is written."""
    root = tmp_path / "classes"
    shutil.copytree(tiny_folder / "train", root)
    config = DataConfig(dataset="folder", data_dir=str(root))
    split = source.open_split(config, "train")
    trained = {split.describe(index) for index in range(split.num_examples)}
    shutil.copy(root / "disc/00.jpg", root / "disc/new.jpg")
    before = list_files(tmp_path)
    assert find(root, root.rglob("*.jpg")) == trained and len(trained) < 23
    assert list_files(tmp_path) == before


@pytest.mark.parametrize("elsewhere", ["", "nowhere", "empty"])
def test_of_a_run_whose_images_are_elsewhere(tiny_folder, tmp_path, elsewhere):
    (tmp_path / "empty").mkdir()
    folder = tmp_path / elsewhere if elsewhere else elsewhere
    assert find(folder, list_files(tiny_folder)) == set()
    image = tmp_path / "empty" / "a.jpg"
    os.symlink(tiny_folder / "val/disc/00.jpg", image)
    assert find(tmp_path / "empty", [image]) == set()


@pytest.mark.parametrize(
    ("is_trained", "text"),
    [
        ((False, False), "1 of 2 right (50.0 %)"),
        ((True, False), "1 of 2 right (50.0 %); 1 training image among them, without them "
         "0 of 1 right (0.0 %)"),
        ((True, True), "1 of 2 right (50.0 %); 2 training images among them"),
    ],
)  # fmt: skip
def test_accuracy(is_trained, text):
    images = [
        {"predictions": [{"class": "a"}], "true_class": name, "split": "train" if known else "val"}
        for name, known in zip("ab", is_trained, strict=True)
    ]
    assert training_images.describe_accuracy(images) == text
    assert training_images.describe_accuracy([{"predictions": [{"class": "a"}]}]) == ""
