"""Prediction of files and folders, against the evaluation's own probabilities."""

import json

import numpy as np
import pytest

import flags
from input_pipeline.errors import DataError, UsageError
from loops import predict, train

pytestmark = pytest.mark.usefixtures("tiny_net")


@pytest.fixture
def trained(tiny_folder, tmp_path):
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", f"--checkpoint_dir={tmp_path}"]
    words += ["--image_size=32", "--batch_size=8", "--steps=3", "--run_name=r", "--crops=1"]
    results = train.run(*flags.parse(["main.py", *words]))
    return tmp_path / "r", results


def run(*words):
    return predict.run(*flags.parse(["main.py", "--mode=predict", *words]))


def test_folder_scores_as_evaluation_does(trained, tiny_folder, tmp_path):
    run_dir, results = trained
    out = tmp_path / "out.json"
    found = run(f"--ckpt={run_dir}", f"--image={tiny_folder / 'val'}", "--crops=1", f"--json={out}")
    assert json.loads(out.read_text()) == found
    assert len(found["images"]) == results["num_examples"] == 11
    right = [image["predictions"][0]["class"] in image["path"] for image in found["images"]]
    assert np.mean(right) == pytest.approx(results["top1"])
    for image in found["images"]:
        shares = [p["probability"] for p in image["predictions"]]
        assert sum(shares) == pytest.approx(1.0)
        assert shares == sorted(shares, reverse=True)


def test_bad_file_is_named_after_the_others_are_predicted(trained, tiny_folder, tmp_path, capsys):
    run_dir, _ = trained
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    good = next((tiny_folder / "val").glob("*/*.jpg"))
    with pytest.raises(DataError, match=r"1 of 2 images.*bad\.jpg"):
        run(f"--ckpt={run_dir}", f"--image={bad},{good}")
    assert str(good) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("image", "message"),
    [("", "--image is missing"), ("nowhere.jpg", "no such file"), (".", "no image in this folder")],
)
def test_nothing_to_predict(image, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        run("--ckpt=x", f"--image={image}")


def test_top_classes_prefers_the_lower_of_equals():
    found = predict.top_classes(np.array([0.2, 0.4, 0.4]), ("a", "n01440764", "c"), 2)
    assert [p["class"] for p in found] == ["n01440764", "c"]
    assert found[0]["name"] == "tench"
