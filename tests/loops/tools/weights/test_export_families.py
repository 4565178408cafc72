"""Tests export of each family of nets in each format. Takes minutes, so it is marked `faults`."""

import pytest

import flags
from loops import train
from loops.tools.weights import export

pytestmark = pytest.mark.faults

_SIZES = {"alexnet": 64, "alexnet_bn": 64, "zfnet": 64, "zfnet_bn": 64}
_SIZES |= {"resnet_18": 32, "resnetv2_18": 32, "resnetse_18": 32}
_FORMS = {
    "saved_model": ("", []),
    "weights_h5": (".weights.h5", []),
    "tflite": (".tflite", []),
    "int8": (".tflite", ["--quantize=int8", "--calibration_images=20"]),
    "onnx": (".onnx", []),
}


@pytest.fixture(scope="module", params=_SIZES)
def run_dir(request, tiny_folder, tmp_path_factory):
    """A run of the family's smallest net, long enough that top-1 does not depend on rounding."""
    root = tmp_path_factory.mktemp("families")
    words = ["--mode=train", f"--model={request.param}", f"--image_size={_SIZES[request.param]}"]
    words += ["--dataset=folder", f"--data_dir={tiny_folder}", f"--checkpoint_dir={root}"]
    words += ["--batch_size=8", "--steps=40", "--crops=1", "--run_name=a", "--augment=none"]
    words += ["--learning_rate=0.1", "--warmup_epochs=0", "--weight_decay=0"]
    train.run(flags.parse(["main.py", *words]))
    return root / "a"


@pytest.mark.parametrize("form", _FORMS)
def test_export_equals_the_model(run_dir, tmp_path, form):
    if form == "onnx":
        pytest.importorskip("tf2onnx", reason="requirements/export.txt is not installed")
        pytest.importorskip("onnxruntime", reason="requirements/export.txt is not installed")
    suffix, more = _FORMS[form]
    written = "tflite" if form == "int8" else form
    words = ["--mode=export", f"--ckpt={run_dir}", f"--format={written}", *more]
    results = export.run(flags.parse(["main.py", *words, f"--out={tmp_path / 'm'}{suffix}"]))
    assert results["num_images"] == 11
    if form == "int8":
        assert results["equal_top1"] >= 11 * 30 / 32
    else:
        assert results["difference"] <= 1e-4 and results["equal_top1"] == 11
