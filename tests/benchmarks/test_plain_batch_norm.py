"""Tests of training with Keras's batch norm: the layer is used, and the run is a normal run."""

import functools

import keras
import pytest

from benchmarks import plain_batch_norm
from loops import evaluate, train
from nets.layers import batch_norm, kit
from tests.command_line import parse
from tests.loops import tiny_nets


@pytest.fixture
def tiny_model(monkeypatch):
    monkeypatch.setattr(kit, "BatchNorm", batch_norm.BatchNorm)  # restored after the test
    with tiny_nets.two_convolutions():
        yield


def test_training_uses_keras_batch_norm(tiny_model, tiny_folder, tmp_path, monkeypatch):
    layer_types = []
    call = keras.layers.BatchNormalization.call

    @functools.wraps(call)
    def record_type(self, *args, **more):
        layer_types.append(type(self))
        return call(self, *args, **more)

    monkeypatch.setattr(keras.layers.BatchNormalization, "call", record_type)
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", f"--checkpoint_dir={tmp_path}"]
    words += ["--image_size=32", "--batch_size=8", "--steps=4", "--crops=1", "--run_name=r"]
    plain_batch_norm.main(["x", "--mode=train", *words])
    assert set(layer_types) == {plain_batch_norm.PlainBatchNorm}
    monkeypatch.setattr(kit, "BatchNorm", batch_norm.BatchNorm)
    results = evaluate.run(parse("--mode=eval", f"--ckpt={tmp_path / 'r'}", "--crops=1"))
    assert (results["step"], results["num_examples"]) == (4, 11)
    fused = train.run(parse("--mode=train", *words[:-1], "--run_name=fused"))
    assert results["nll"] == pytest.approx(fused["nll"], rel=1e-3)


def test_help_and_unknown_flag(tiny_model, capsys):
    plain_batch_norm.main(["x", "--help"])
    assert "--mixed_precision" in capsys.readouterr().out.replace("[no]", "")
    with pytest.raises(SystemExit) as error:
        plain_batch_norm.main(["x", "--no_such_flag"])
    assert error.value.code == 2 and "error: " in capsys.readouterr().err
