"""Tests of the model.fit baseline: input, evaluation, and resuming after a kill."""

import json
import subprocess
import sys

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import fit_baseline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Creates twelve training and seven validation images of three classes."""
    root = tmp_path_factory.mktemp("three")
    random = np.random.default_rng(0)
    for split, counts in (("train", (4, 4, 4)), ("val", (3, 3, 1))):
        for name, count in zip("abc", counts, strict=True):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (40, 50, 3), dtype=np.uint8)
                cv2.imwrite(str(root / split / name / f"{number}.png"), pixels)
    return root


@pytest.mark.parametrize("augment", ["standard", "layers"])
def test_train_dataset_has_augmented_images_and_one_hot_labels(folder, augment):
    batches, steps, classes = fit_baseline.make_train_dataset(folder / "train", 32, 5, augment, 0)
    assert (steps, classes) == (2, ["a", "b", "c"])
    batches = list(batches)
    assert [x.shape for x, _ in batches] == [(5, 32, 32, 3)] * 2
    images = np.concatenate([x for x, _ in batches])
    assert images.min() >= 0 and 100 < images.mean() < 155 and images.max() <= 255
    labels = np.concatenate([y for _, y in batches])
    assert labels.shape == (10, 3) and (labels.sum(1) == 1).all() and labels.sum(0).max() <= 4


def test_evaluation_uses_all_images_and_crops(folder, tmp_path):
    """The model classifies by brightness, and one image is in the wrong folder."""

    class Brightness(keras.layers.Layer):
        def call(self, images):
            mean = tf.reduce_mean(images, [1, 2, 3])
            return -tf.abs(mean[:, None] - tf.constant([[30.0, 128.0, 220.0]]))

    for name, levels in {"a": (30, 40), "b": (120, 130, 225), "c": (210, 220)}.items():
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "train" / name).mkdir(parents=True)
        for level in levels:
            pixels = np.full((40, 50, 3), level, np.uint8)
            cv2.imwrite(str(tmp_path / "val" / name / f"{level}.png"), pixels)
            cv2.imwrite(str(tmp_path / "train" / name / f"{level}.png"), pixels)
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, Brightness()(inputs))
    for crops in (1, 10):
        scores = fit_baseline.evaluate(model, tmp_path, "val", 32, crops)
        assert (scores["num_examples"], scores["top1"]) == (7, 6 / 7)


@pytest.mark.faults
def test_training_resumes_after_a_kill(folder, tmp_path):
    command = [sys.executable, "-u", "-m", "benchmarks.fit_baseline", f"--data_dir={folder}"]
    command += [f"--run_dir={tmp_path}", "--image_size=32", "--batch_size=4", "--dtype=float32"]
    command += ["--epochs=6"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if line.startswith("Epoch 4/6"):
            child.kill()
    child.wait()
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "Epoch 6/6" in output and "Epoch 3/6" not in output
    report = json.loads((tmp_path / "fit.json").read_text())
    assert len(report["seconds_of_epochs"]) == 6
    assert set(report["results"]) == {"val-1", "val-10"}
    assert report["results"]["val-10"]["num_examples"] == 7
