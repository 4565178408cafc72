"""Tests that the Keras baseline has the same network and the same training step as ours."""

import json

import keras
import numpy as np
import pytest

from benchmarks import harness, step_vs_keras
from benchmarks.workloads import keras_resnetv2, step_workloads
from nets import registry, resnetv2
from nets.layers.kit import Kit

TINY = (1, 1, 1, 1)


def build_our_model(depths, num_classes=1000):
    return resnetv2.resnetv2(Kit("float32"), num_classes, depths, bottleneck=True)


def copy_weights(source, target):
    """Copies weights by layer name; returns the number of arrays."""
    copied = 0
    for layer in source.layers:
        if layer.weights:
            target.get_layer(layer.name).set_weights(layer.get_weights())
            copied += len(layer.weights)
    return copied


def randomize(model):
    """Assigns random values, so that a missing or swapped variable changes the output."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name == "kernel":
            continue
        low, high = (0.5, 1.5) if variable.name in ("gamma", "moving_variance") else (-0.5, 0.5)
        variable.assign(rng.uniform(low, high, variable.shape))


@pytest.mark.parametrize(
    ("depths", "count"), [(TINY, None), ((3, 4, 6, 3), 25_549_352)], ids=["tiny", "50"]
)
def test_same_number_of_trainable_parameters(depths, count):
    def parameters(model):
        return sum(int(np.prod(v.shape)) for v in model.trainable_variables)

    ours, theirs = build_our_model(depths), keras_resnetv2.build_model(1000, depths)
    assert parameters(ours) == parameters(theirs)
    assert len(ours.variables) == len(theirs.variables)
    assert count in (None, parameters(ours))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("depths", [TINY, (2, 1, 2, 1)], ids=str)
def test_same_logits(depths, training):
    """Inputs of the stem pooling are negative at the border, so padding with zeros would fail."""
    ours, theirs = build_our_model(depths, 10), keras_resnetv2.build_model(10, depths)
    randomize(ours)
    assert copy_weights(ours, theirs) == len(theirs.variables)
    images = np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype(np.float32)
    logits = ours(images, training=training).numpy()
    assert np.ptp(logits) > 0.1
    np.testing.assert_allclose(theirs(images, training=training).numpy(), logits, atol=1e-4)


def test_same_training_step(monkeypatch):
    """Two steps from equal weights give equal weights and moving statistics."""
    tiny = registry.Architecture(family="resnetv2", options={"depths": TINY, "bottleneck": True})
    monkeypatch.setitem(registry._ARCHITECTURES, "tiny", tiny)
    # Decay as strong as the gradients, so that a missing kernel or a decayed gamma would fail.
    monkeypatch.setattr(step_workloads, "_WEIGHT_DECAY", 1.0)
    ours, run_ours = step_workloads.build_ours(64, 4, "float32", model="tiny")
    theirs, run_theirs = step_workloads.build_keras(64, 4, "float32", depths=TINY)
    # Keeps inputs of ReLU away from zero, where rounding would flip gradients.
    for variable in ours.trainable_variables:
        if variable.name == "beta":
            variable.assign(np.full(variable.shape, 4.0))
    copy_weights(ours, theirs)
    before = {layer.name: layer.get_weights() for layer in ours.layers if layer.weights}
    assert run_ours(2) == pytest.approx(run_theirs(2), rel=1e-5)
    for name, old in before.items():
        pairs = zip(ours.get_layer(name).weights, theirs.get_layer(name).weights, strict=True)
        for (mine, other), start in zip(pairs, old, strict=True):
            change = np.linalg.norm(mine.numpy() - start)
            rounding = 1e-6 * np.linalg.norm(start)
            difference = np.linalg.norm(other.numpy() - mine.numpy())
            assert difference <= 2e-3 * change + rounding, mine.path
            assert change > rounding or mine.name == "beta", mine.path


def test_both_sides_start_from_equal_weights():
    """So equal losses in a report show that both sides do the same."""
    weights_by_side = []
    for build in (build_our_model, keras_resnetv2.build_model):
        keras.utils.set_random_seed(0)
        layers = [x for x in build(num_classes=10, depths=TINY).layers if x.weights]
        weights_by_side.append({layer.name: layer.get_weights() for layer in layers})
    ours, theirs = weights_by_side
    assert ours.keys() == theirs.keys()
    for name, weights in ours.items():
        for mine, other in zip(weights, theirs[name], strict=True):
            np.testing.assert_array_equal(mine, other, err_msg=name)


def test_mixed_precision_keeps_the_global_policy_and_float32_logits():
    model = keras_resnetv2.build_model(10, TINY, "bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    assert model.get_layer("stage1_block1_conv1").compute_dtype == "bfloat16"
    assert {v.dtype for v in model.variables} == {"float32"}
    assert model.output.dtype == "float32"


def test_report_has_a_ratio_per_pair(monkeypatch, tmp_path, capsys):
    """The sides alternate; the report has one ratio per pair, a table and JSON."""
    order = []

    def run_child(module, arguments, python):
        side = arguments[0].removeprefix("--side=")
        order.append(side)
        speed = {"ours": [3.0, 9.0, 4.0], "keras": [2.0, 3.0, 2.0]}[side][(len(order) - 1) // 2]
        return {
            "images_per_second": speed,
            "first_step_seconds": 1.0,
            "start_to_first_step_seconds": 5.0,
            "system_seconds_per_step": 0.1,
            "peak_memory_mb": 2500.0,
        }

    monkeypatch.setattr(harness, "run_child", run_child)
    out = tmp_path / "new" / "out.json"
    argv = ["step_vs_keras", "--pairs=3", "--dtypes=float32", f"--json={out}"]
    monkeypatch.setattr("sys.argv", argv)
    step_vs_keras.main()
    assert order == ["ours", "keras"] * 3
    report = json.loads(out.read_text())
    assert report["results"]["float32"]["ratios"] == [1.5, 3.0, 2.0]
    assert report["results"]["float32"]["median_ratio"] == 2.0
    assert report["results"]["float32"]["medians"]["ours"]["images_per_second"] == 4.0
    assert report["machine"]["cores"] >= 1
    assert {"command", "date", "versions"} <= set(report)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["float32", "images/s", "keras", "2.00", "2.00", "3.00", "2.00"] in lines
    assert str(tmp_path) not in out.read_text()


def test_failing_child_is_an_error():
    with pytest.raises(SystemExit, match="unrecognized arguments: --nonsense"):
        harness.run_child("benchmarks.step_vs_keras", ["--nonsense"])
