"""The training with Keras's batch norm: it is one, and its run is like any other."""

import functools

import keras
import pytest

from benchmarks import plain_batch_norm
from loops import evaluate, train
from nets.layers import batch_norm, kit
from tests.command_line import parse
from tests.loops import tiny_nets


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(kit, "BatchNorm", batch_norm.BatchNorm)  # is put back afterwards
    with tiny_nets.two_convolutions():
        yield


def test_a_run_without_the_fused_kernel(quick, tiny_folder, tmp_path, monkeypatch):
    called = []
    call = keras.layers.BatchNormalization.call

    @functools.wraps(call)
    def noted(self, *args, **more):
        called.append(type(self))
        return call(self, *args, **more)

    monkeypatch.setattr(keras.layers.BatchNormalization, "call", noted)
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", f"--checkpoint_dir={tmp_path}"]
    words += ["--image_size=32", "--batch_size=8", "--steps=4", "--crops=1", "--run_name=r"]
    plain_batch_norm.main(["x", "--mode=train", *words])
    assert set(called) == {plain_batch_norm.PlainBatchNorm}
    monkeypatch.setattr(kit, "BatchNorm", batch_norm.BatchNorm)
    results = evaluate.run(*parse("--mode=eval", f"--ckpt={tmp_path / 'r'}", "--crops=1"))
    assert (results["step"], results["num_examples"]) == (4, 11)
    fused = train.run(*parse("--mode=train", *words[:-1], "--run_name=fused"))
    assert results["nll"] == pytest.approx(fused["nll"], rel=1e-3)


def test_help_and_mistakes(quick, capsys):
    plain_batch_norm.main(["x", "--help"])
    assert "--mixed_precision" in capsys.readouterr().out.replace("[no]", "")
    with pytest.raises(SystemExit) as ended:
        plain_batch_norm.main(["x", "--no_such_flag"])
    assert ended.value.code == 2 and "error: " in capsys.readouterr().err
