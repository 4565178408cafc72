"""Tests of file names that are not UTF-8, as in old archives, from training to export."""

import csv
import json
import os
import shutil

import pytest
import tensorflow as tf

from loops import evaluate, train
from loops.tools.predict import predict
from loops.tools.weights import export
from tests.command_line import parse

NAME = os.fsdecode(b"caf\xe9")


@pytest.fixture
def run_and_data(tiny_folder, tiny_net, tmp_path):
    """Trains on a data set whose folder and one class have such a name."""
    data = tmp_path / f"data {NAME}"
    shutil.copytree(tiny_folder, data)
    for split in data.iterdir():
        (split / "disc").rename(split / NAME)
    words = ["--dataset=folder", f"--data_dir={data}", "--batch_size=8", "--image_size=32"]
    words += [f"--checkpoint_dir={tmp_path}", "--run_name=run", "--steps=2"]
    train.run(parse(*words))
    return tmp_path / "run", data


def test_non_utf8_names_work_from_training_to_export(run_and_data, tmp_path, read_events, capsys):
    run, data = run_and_data
    assert "images/augmented" in read_events(run / "train")
    results = evaluate.run(parse("--mode=eval", f"--ckpt={run}", f"--json={tmp_path / 'e.json'}"))
    assert NAME in results["per_class"]
    assert {"confusion_10_crops", "mistakes_10_crops"} <= read_events(run / "eval").keys()
    image = next((data / "val" / NAME).iterdir()).rename(tmp_path / f"{NAME}.jpg")
    words = ["--mode=predict", f"--ckpt={run}", f"--image={image}", "--crops=1"]
    files = [f"--csv={tmp_path / 'p.csv'}", f"--json={tmp_path / 'p.json'}"]
    predict.run(parse(*words, *files, f"--report={tmp_path / 'p.html'}"))
    predict.run(parse(*words, "--explain"))
    prediction = json.loads((tmp_path / "p.json").read_text())["images"][0]
    assert os.path.basename(prediction["path"]) == "caf\ufffd.jpg"
    assert len(prediction["predictions"]) == 3
    with open(tmp_path / "p.csv") as file:
        assert next(csv.DictReader(file))["path"] == prediction["path"]
    assert "caf" in (tmp_path / "p.html").read_text()
    assert len(list((run / "explain").iterdir())) == 1
    words = ["--format=saved_model", f"--out={tmp_path / 'model'}"]
    export.run(parse("--mode=export", f"--ckpt={run}", *words))
    model = tf.saved_model.load(str(tmp_path / "model"))
    classes = model.signatures["classes"]()["classes"].numpy().tolist()
    assert [os.fsdecode(name) for name in classes] == [NAME, "grid", "stripes"]
    assert capsys.readouterr().out
