"""Tests the file next to exported weights, from which an import takes the preprocessing."""

import json
import shutil

import pytest

from input_pipeline.config import DataConfig
from loops.checkpointing import run_folder
from loops.tools.weights import sidecar
from tests.loops.tools.weights.small_imports import CLASSES, run


def test_h5_import_takes_preprocessing_from_the_sidecar(own_file, tmp_path, quick_net):
    """A flag on the command line takes precedence."""
    path = tmp_path / "a.weights.h5"
    shutil.copy(own_file[0], path)
    names = [f"class {n}" for n in range(CLASSES)]
    data = DataConfig(
        image_size=96,
        mean=(1.0, 2.0, 3.0),
        std=(4.0, 5.0, 6.0),
        crop_fraction=0.9,
        torchvision_rounding=True,
    )
    tensors = sidecar.hash_tensors(own_file[1])
    stored = {"tensors": tensors, "trained_for": sidecar.describe_preprocessing(data, names)}
    (tmp_path / "a.weights.h5.sha256.json").write_text(json.dumps(stored))
    words = ["--source=h5", "--model=resnetse_18"]
    results = run(tmp_path, path, *words, "--run_name=r", "--crop_fraction=0.8")
    values = results["preprocessing"]
    assert (values["image_size"], values["mean"], values["std"]) == (96, (1, 2, 3), (4, 5, 6))
    assert values["crop_fraction"] == 0.8 and results["hashes"] == "verified"
    assert values["torchvision_rounding"]
    assert run_folder.read_record(tmp_path / "r").class_names == tuple(names)


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ["too", "few"]},
        {"class_names": [1] * CLASSES},
        {"mean": [1.0]},
        {"std": [0, 1, 1]},
        {"image_size": "wide"},
        {"image_size": None},
        {"image_size": float("inf")},
        {"mean": [float("nan"), 1, 1]},
        {"std": [float("nan"), 1, 1]},
        {"std": [1, 1, float("inf")]},
        {"crop_fraction": float("nan")},
    ],
)
def test_invalid_sidecar_is_ignored_with_a_warning(tmp_path, caplog, change):
    names = [f"class {n}" for n in range(CLASSES)]
    data = DataConfig(image_size=96, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    stored = {**sidecar.describe_preprocessing(data, names), **change}
    (tmp_path / "a.h5.sha256.json").write_text(json.dumps({"trained_for": stored}))
    assert sidecar.read_preprocessing(tmp_path / "a.h5", CLASSES) == ({}, ())
    assert "no valid .sha256.json file with its preprocessing" in caplog.text
