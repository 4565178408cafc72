"""Tests that each export format predicts like the run, and that others are not kept."""

import dataclasses
import json
import pathlib
import re
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augmentation import crops
from input_pipeline.decoding import decode
from input_pipeline.errors import DataError, UsageError
from loops import evaluate, train
from loops.tools.weights import export, export_formats, sidecar
from tests.command_line import parse
from tests.loops.tiny_nets import two_convolutions

pytestmark = pytest.mark.usefixtures("tiny_net")

PAGE = pathlib.Path(__file__).parents[4] / "docs/predict_export.md"


@pytest.fixture(scope="module")
def run_dir(tiny_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", f"--checkpoint_dir={root}"]
    words += ["--batch_size=8", "--crops=1", "--steps=8", "--image_size=32", "--mixed_precision"]
    with two_convolutions():
        train.run(parse(*words, "--half_dtype=bfloat16", "--run_name=a", "--learning_rate=1"))
    return root / "a"


def run(run_dir, *words):
    return export.run(parse("--mode=export", f"--ckpt={run_dir}", *words))


def test_error_names_the_image_that_does_not_decode(run_dir, tiny_folder, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(tiny_folder, folder)
    bad = sorted((folder / "val").glob("*/*"))[3]
    bad.write_bytes(bad.read_bytes()[:100])
    out = tmp_path / "x.weights.h5"
    words = ("--format=weights_h5", f"--out={out}", f"--data_dir={folder}")
    with pytest.raises(DataError, match=f"{bad.name} does not decode: "):
        run(run_dir, *words)
    bad.unlink()
    bad.symlink_to("nowhere.jpg")
    with pytest.raises(DataError, match=f"{bad.name} does not decode: .*No such file"):
        run(run_dir, *words)
    assert not list(tmp_path.glob("*x.weights.h5*"))


@pytest.fixture(scope="module")
def saved_model(run_dir, tmp_path_factory):
    """Path of a SavedModel of the run, and the results of its export."""
    out = tmp_path_factory.mktemp("export") / "model"
    with two_convolutions():
        return out, run(run_dir, "--format=saved_model", f"--out={out}", f"--json={out}.json")


METADATA = {
    "image_size": 32,
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "crop_fraction": 0.875,
    "interpolation": "bilinear",
    "torchvision_rounding": False,
    "class_names": ["disc", "grid", "stripes"],
}


def test_saved_model_equals_evaluation(saved_model, run_dir, tiny_folder, tmp_path):
    """Loads the SavedModel without the code of the net."""
    out, results = saved_model
    assert json.loads(out.with_name("model.json").read_text()) == results
    assert results["difference"] <= 1e-4
    assert results["equal_top1"] == results["num_images"] == 11
    loaded = tf.saved_model.load(str(out))
    names = loaded.signatures["classes"]()["classes"].numpy().tolist()
    assert names == [b"disc", b"grid", b"stripes"]
    assert json.loads(loaded.signatures["metadata"]()["json"].numpy()) == METADATA
    files = sorted((tiny_folder / "val").glob("*/*.jpg"))
    encoded = tf.constant([file.read_bytes() for file in files])
    words = ["--mode=eval", f"--ckpt={run_dir}", "--nomixed_precision"]
    path = tmp_path / "l.npz"
    evaluate.run(parse(*words, f"--save_logits={path}"))
    with np.load(path) as file:
        logits = file["logits_0"]
    center = loaded.signatures["encoded"](encoded=encoded)
    np.testing.assert_allclose(center["logits"], logits[:, 4], atol=1e-4)
    np.testing.assert_allclose(center["probabilities"], tf.nn.softmax(logits[:, 4]), atol=1e-5)
    ten = loaded.signatures["encoded_ten_crop"](encoded=encoded)["probabilities"]
    np.testing.assert_allclose(ten, tf.nn.softmax(logits).numpy().mean(1), atol=1e-5)


def test_documented_code_classifies_a_photograph(saved_model, tiny_folder, tmp_path, monkeypatch):
    (tmp_path / "model").symlink_to(saved_model[0])
    (tmp_path / "PHOTO.jpg").symlink_to(tiny_folder / "val/grid/00.jpg")
    monkeypatch.chdir(tmp_path)
    printed = []
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[-1]
    exec(code, {"print": lambda *words: printed.append(words)})
    ((name, probability),) = printed
    assert name in METADATA["class_names"] and 1 / 3 < probability <= 1


@pytest.mark.parametrize(
    ("form", "suffix"), [("weights_h5", ".weights.h5"), ("tflite", ".tflite"), ("onnx", ".onnx")]
)
def test_other_formats(run_dir, tmp_path, capfd, form, suffix):
    if form == "onnx":
        pytest.importorskip("tf2onnx", reason="requirements/export.txt is not installed")
        pytest.importorskip("onnxruntime", reason="requirements/export.txt is not installed")
    out = tmp_path / f"m{suffix}"
    results = run(run_dir, f"--format={form}", f"--out={out}")
    assert results["difference"] <= 1e-4 and results["equal_top1"] == results["num_images"]
    assert f"{results['difference']:.2g}" in capfd.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == [out.name, f"{out.name}.sha256.json"]
    hashes = json.loads((tmp_path / f"{out.name}.sha256.json").read_text())
    assert hashes["files"] == sidecar.hash_files(out)
    assert len(hashes["tensors"]) == results["num_tensors"] == 12


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_interpreters_equal_evaluation(run_dir, tiny_folder, tmp_path, form, monkeypatch):
    """Runs TFLite and ONNX on center crops and compares logits and probabilities."""
    if form == "onnx":
        pytest.importorskip("tf2onnx", reason="requirements/export.txt is not installed")
        pytest.importorskip("onnxruntime", reason="requirements/export.txt is not installed")
    words = ["--mode=eval", f"--ckpt={run_dir}", "--nomixed_precision", "--crops=1"]
    evaluate.run(parse(*words, f"--save_logits={tmp_path / 'l.npz'}"))
    with np.load(tmp_path / "l.npz") as file:
        expected = file["logits_0"][:, 0]
    out = tmp_path / f"m.{form}"
    run(run_dir, f"--format={form}", f"--out={out}")
    if form == "tflite":
        predict = tf.lite.Interpreter(str(out)).get_signature_runner()
        page = pathlib.Path(__file__).parents[4] / "docs/own_images.md"
        (code,) = re.findall(r"```python\n(import json\n.*?)```", page.read_text(), re.DOTALL)
        monkeypatch.chdir(tmp_path)
        out.rename("model.tflite")
        variables = {}
        exec(code, variables)
        metadata = variables["metadata"]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(out))
        metadata = json.loads(session.get_modelmeta().custom_metadata_map["imagenet_loops"])
        names = [output.name for output in session.get_outputs()]
        predict = lambda images: dict(  # noqa: E731
            zip(names, session.run(names, {"images": images}), strict=True)
        )
    assert metadata == METADATA
    for file, logits in zip(sorted((tiny_folder / "val").glob("*/*.jpg")), expected, strict=True):
        crop = crops.extract_views(decode.decode_image(file.read_bytes()), 32, 1)
        outputs = predict(images=tf.cast(crop, tf.float32).numpy())
        np.testing.assert_allclose(outputs["logits"][0], logits, atol=1e-3)
        np.testing.assert_allclose(outputs["probabilities"][0], tf.nn.softmax(logits), atol=1e-4)


def test_int8_quantization(run_dir, tmp_path):
    tf.config.experimental.enable_tensor_float_32_execution(True)  # the default of TensorFlow
    out = tmp_path / "m.tflite"
    words = ["--format=tflite", "--quantize=int8", f"--out={out}", "--calibration_images=20"]
    results = run(run_dir, *words)
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
    assert results["equal_top1"] >= 11 * 30 / 32 and results["difference"] > 0
    details = tf.lite.Interpreter(str(out)).get_tensor_details()
    kernels = [d for d in details if d["dtype"] == np.int8 and len(d["shape"]) == 4]
    assert len(kernels) >= 2


@pytest.mark.parametrize("form", ["saved_model", "weights_h5", "tflite"])
def test_export_that_differs_from_the_model_is_removed(run_dir, tmp_path, monkeypatch, form):
    correct = export_formats.FORMATS[form]

    def read(exported, path):
        logits = correct.read(exported, path)
        return lambda images: logits(images) + np.float32(0.01)

    monkeypatch.setitem(export_formats.FORMATS, form, dataclasses.replace(correct, read=read))
    out = f"--out={tmp_path / 'm'}{correct.suffix}"
    with pytest.raises(DataError, match=f"--format={form}: logits differ"):
        run(run_dir, f"--format={form}", out)
    assert list(tmp_path.iterdir()) == []
    if form == "tflite":
        wrong = dataclasses.replace(correct, read=lambda *_: lambda images: np.eye(3)[[0] * 11])
        monkeypatch.setitem(export_formats.FORMATS, form, wrong)
        with pytest.raises(DataError, match="--quantize=int8"):
            run(run_dir, f"--format={form}", out, "--quantize=int8", "--calibration_images=1")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(
            "[Errno 28] file write failed: errno = 28, error message = 'No space left on device'"
        ),
        tf.errors.ResourceExhaustedError(
            None, None, "{{node x}} /p/q; No space left on device [Op:S]"
        ),
    ],
)
def test_full_disk_raises_a_one_line_error(run_dir, tmp_path, monkeypatch, error):
    """The errors are those of Python, h5py and TensorFlow."""

    def write(*_):
        raise error

    correct = export_formats.FORMATS["weights_h5"]
    monkeypatch.setitem(
        export_formats.FORMATS, "weights_h5", dataclasses.replace(correct, write=write)
    )
    words = ["--format=weights_h5", f"--out={tmp_path / 'm.weights.h5'}"]
    with pytest.raises(UsageError, match=r"--out=.*written \(No space left on device\)$"):
        run(run_dir, *words)
    assert list(tmp_path.iterdir()) == []


def test_hashes_detect_a_flipped_bit(tmp_path):
    tensors = {"a/kernel": np.ones((2, 3), np.float32), "a/bias": np.zeros(3, np.float32)}
    path = tmp_path / "m.weights.h5"
    assert sidecar.verify(path, tensors) == "not verified"
    hashes = sidecar.path_for(path)
    hashes.write_text(json.dumps({"tensors": sidecar.hash_tensors(tensors)}))
    assert sidecar.verify(path, tensors) == "verified"
    flipped = tensors["a/kernel"].copy()
    flipped.view(np.uint32)[1, 2] ^= 1
    with pytest.raises(DataError, match="a/kernel differs from the exported tensor"):
        sidecar.verify(path, tensors | {"a/kernel": flipped})
    with pytest.raises(DataError, match="b/kernel is in only one"):
        sidecar.verify(path, tensors | {"b/kernel": flipped})
    hashes.write_text("[]")
    with pytest.raises(UsageError, match=r"sha256\.json: not a file of hashes"):
        sidecar.verify(path, tensors)


@pytest.mark.parametrize("missing", ["tf2onnx", "onnxruntime"])
def test_error_of_a_missing_onnx_package_says_how_to_install_it(
    run_dir, tmp_path, monkeypatch, missing
):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=r"--format=onnx: .*requirements/export\.txt"):
        run(run_dir, "--format=onnx", f"--out={tmp_path / 'm.onnx'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--format=onnx", "--out is missing"),
        ("--format=onnx --out=ROOT/m.tflite", "ends in .onnx"),
        ("--format=weights_h5 --out=ROOT/m.h5", "ends in .weights.h5"),
        ("--out=ROOT/m.tflite", "the name of a tflite file; give --format=tflite"),
        ("--format=saved_model --quantize=int8 --out=ROOT/m", "--quantize=int8"),
        ("--format=saved_model --out=ROOT/nowhere/m", "there is no folder"),
        ("--format=saved_model --out=ROOT", "already exists"),
        ("--format=saved_model --out=ROOT/m\udce8le", "is not UTF-8"),
        ("--format=saved_model --out=.", "--out=.: . already exists"),
        ("--format=saved_model --out=ROOT/m --ckpt=RUN,RUN", "ensembles are not exported"),
        ("--format=saved_model --out=ROOT/m --ckpt=ROOT", "contains no intact checkpoint"),
    ],
)
def test_invalid_commands(run_dir, tmp_path, words, message):
    words = words.replace("ROOT", str(tmp_path)).replace("RUN", str(run_dir)).split()
    with pytest.raises(UsageError, match=message):
        run(run_dir, *words)
    assert list(tmp_path.iterdir()) == []
