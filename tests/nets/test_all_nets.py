"""Every registered net: stages, sizes, gradients, dtypes, memorization and golden logits.

The golden logits fix the arithmetic of each net, not its initializer, because NumPy generates the
weights. `python -m tests.nets.test_all_nets` writes the golden logits of new nets. After an
intended change of the arithmetic, `--all` rewrites those of all nets.
"""

import argparse
import json
import pathlib
import sys
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from nets import registry
from nets.layers.kit import Conv, Dropout, MaxPool
from nets.layers.random_layers import assign_samples
from tests.nets.test_registry import split_name

GOLDEN = pathlib.Path(__file__).parent / "golden_logits.json"
QUICK = ("alexnet_bn", "zfnet", "resnet_18", "resnetv2_18", "resnetse_18", "resnet_18d")
ALL = [pytest.param(m, marks=[] if m in QUICK else pytest.mark.faults) for m in registry.names()]
STAGED = [
    pytest.param(m, marks=[] if m in (*QUICK, "resnet_50", "resnetv2_50") else pytest.mark.faults)
    for m in registry.names()
    if registry.is_residual(m)
]
SIZE = 64


def build(model, size=SIZE, **fields):
    if registry.has_fixed_input_size(model):
        fields["input_size"] = size
    return registry.build_model(registry.NetConfig(model=model, num_classes=42, **fields))


@pytest.fixture
def zero_weights(monkeypatch):
    """Initializes weights with zeros, because random values for millions of weights take time."""
    for name in ("VarianceScaling", "RandomNormal"):
        initializer = getattr(keras.initializers, name)
        monkeypatch.setattr(initializer, "__call__", lambda _, shape, **__: tf.zeros(shape))


def assign_golden_weights(net):
    """Sets weights that depend only on the variable's path: normal, scaled by the fan-in."""
    for variable in net.variables:
        rng = np.random.default_rng(zlib.crc32(variable.path.encode()))
        shape = tuple(variable.shape)
        values = rng.standard_normal(shape, np.float32)
        if variable.name == "kernel":
            values *= np.sqrt(2.0 / np.prod(shape[:-1]))
        elif variable.name in ("gamma", "moving_variance"):
            values = 0.6 + 0.05 * values
        else:
            values *= 0.1
        variable.assign(values)


def golden_image(size=SIZE):
    """Returns an image [1, S, S, 3] of waves between -2 and 2, whose length varies by channel."""
    rows, columns = np.indices((size, size)).astype(np.float64)
    channels = [2 * np.sin(rows / a + 1) * np.cos(columns / b) for a, b in ((5, 9), (3, 4), (7, 2))]
    return np.stack(channels, -1)[None].astype(np.float32)


def compute_logits(model):
    """Computes the first eight logits of a net with the golden weights and image."""
    net = build(model)
    assign_golden_weights(net)
    return net(golden_image(), training=False).numpy()[0, :8].tolist()


def golden_logits(model, path=GOLDEN):
    """Returns the stored logits; fails with the command that writes them if there are none."""
    stored = json.loads(path.read_text())
    if model not in stored:
        pytest.fail(f"no golden logits of {model}: run `python -m tests.nets.test_all_nets`")
    return np.array(stored[model])


def main(arguments, path=GOLDEN, compute=compute_logits):
    """Writes the golden logits that the file lacks, or with `--all` those of all nets."""
    parser = argparse.ArgumentParser(prog="python -m tests.nets.test_all_nets")
    parser.add_argument("--all", action="store_true", help="rewrite the logits of all nets")
    rewrite_all = parser.parse_args(arguments).all
    logits = {} if rewrite_all else json.loads(path.read_text())
    for model in registry.names():
        if model not in logits:
            logits[model] = [float(f"{x:.6g}") for x in compute(model)]
    lines = [f' "{model}": {json.dumps(logits[model])}' for model in registry.names()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


@pytest.mark.parametrize("model", ALL)
def test_golden_logits(model, zero_weights):
    expected = golden_logits(model)
    logits = np.array(compute_logits(model))
    assert np.abs(expected).max() > 0.1
    assert np.abs(logits - expected).max() <= 1e-3 * np.abs(expected).max()


def test_golden_file_has_exactly_the_registered_nets():
    assert list(json.loads(GOLDEN.read_text())) == list(registry.names())


@pytest.fixture
def golden_copy(tmp_path):
    """A copy of the golden file that lacks one net."""
    stored = json.loads(GOLDEN.read_text())
    del stored["resnet_18"]
    path = tmp_path / "golden.json"
    path.write_text(json.dumps(stored))
    return path


def test_golden_command_writes_only_the_missing_logits(golden_copy):
    computed = []

    def compute(model):
        computed.append(model)
        return [1 / 3] * 8

    main([], golden_copy, compute)
    assert computed == ["resnet_18"]
    kept = [line for line in GOLDEN.read_text().splitlines() if "resnet_18" not in line]
    lines = golden_copy.read_text().splitlines()
    assert [line for line in lines if "resnet_18" not in line] == kept
    assert f' "resnet_18": {[0.333333] * 8},' in lines
    assert list(json.loads(golden_copy.read_text())) == list(registry.names())
    main([], golden_copy, compute)
    assert computed == ["resnet_18"] and golden_copy.read_text().splitlines() == lines


def test_golden_command_with_all_rewrites_the_logits_of_all_nets(golden_copy):
    main(["--all"], golden_copy, lambda model: [float(len(model))] * 8)
    expected = {model: [float(len(model))] * 8 for model in registry.names()}
    assert json.loads(golden_copy.read_text()) == expected


def test_missing_golden_logits_fail_with_the_command_to_run(golden_copy):
    with pytest.raises(pytest.fail.Exception, match=r"run `python -m tests\.nets\.test_all_nets`"):
        golden_logits("resnet_18", golden_copy)


@pytest.mark.parametrize("model", STAGED)
def test_strides_and_channels_of_every_stage(model, zero_weights):
    """Table 1 of He et al. 2015: 56, 28, 14 and 7 at 224 px, so strides 4 to 32."""
    net = build(model)
    depths = registry.get_architecture(model).options["depths"]
    last_blocks = [f"stage{stage}_block{blocks}_add" for stage, blocks in enumerate(depths, 1)]
    names = ["stem_conv", "stem_pool", *last_blocks]
    stages = keras.Model(net.input, [net.get_layer(name).output for name in names])
    shapes = [t.shape for t in stages.compute_output_spec(keras.KerasTensor((1, 224, 224, 3)))]
    expansion = 4 if int(split_name(model)[1]) >= 50 else 1
    assert [s[1:] for s in shapes] == [
        (112, 112, 64),
        (56, 56, 64),
        *((56 // 2**i, 56 // 2**i, 64 * 2**i * expansion) for i in range(4)),
    ]


@pytest.mark.parametrize("model", [m for m in registry.names() if registry.has_fixed_input_size(m)])
def test_feature_maps_of_alexnet_and_zfnet(model, zero_weights):
    """Sizes from the papers' figures. AlexNet's 55 from 224 px requires the padding by 2."""
    net = build(model, 224)
    sides = [x.output.shape[1] for x in net.layers if isinstance(x, Conv | MaxPool)]
    if model.startswith("alexnet"):
        assert sides == [55, 27, 27, 13, 13, 13, 13, 6]
    else:
        assert sides == [110, 55, 26, 13, 13, 13, 13, 6]
    is_one_tower = model == "alexnet_owt"
    channels = [x.output.shape[-1] for x in net.layers if isinstance(x, Conv)]
    assert channels == ([64, 192, 384, 256, 256] if is_one_tower else [96, 256, 384, 384, 256])
    groups = [x.groups for x in net.layers if isinstance(x, Conv)]
    assert groups == ([1, 2, 1, 2, 2] if model in ("alexnet", "alexnet_bn") else [1] * 5)
    kinds = [type(x).__name__ for x in net.layers if x.name.startswith("norm")]
    norm = "BatchNorm" if model.endswith("_bn") else "LocalResponseNorm"
    assert kinds == ([] if is_one_tower else [norm] * 2)
    rates = {x.name: x.rate for x in net.layers if isinstance(x, Dropout)}
    assert rates == {"fc6_dropout": 0.5, "fc7_dropout": 0.5}


@pytest.mark.parametrize("model", ALL)
def test_image_sizes(model, zero_weights):
    """Checks the shapes of the graph, because running five sizes of each net would take minutes."""
    net = build(model, 64)
    assert net(golden_image(64)).shape == (1, 42)
    for size in (64, 96, 160, 224, 299):
        if registry.has_fixed_input_size(model):
            net = build(model, size)
        assert net.compute_output_spec(keras.KerasTensor((2, size, size, 3))).shape == (2, 42)


@pytest.mark.parametrize("model", ALL)
def test_every_trainable_tensor_gets_a_gradient(model):
    assert find_tensors_without_gradient(model, steps=1) == []


def find_tensors_without_gradient(model, steps):
    """Returns the paths of the variables whose gradient is zero in each of the first steps."""
    keras.utils.set_random_seed(1)
    net = build(model, dropout=0.0)
    images = np.random.default_rng(0).normal(size=(4, SIZE, SIZE, 3)).astype(np.float32)
    paths = {v.path for v in net.trainable_variables}
    for _ in range(steps):
        with tf.GradientTape() as tape:
            logits = net(images, training=True)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits([0, 7, 23, 41], logits)
        gradients = tape.gradient(loss, net.trainable_variables)
        for variable, gradient in zip(net.trainable_variables, gradients, strict=True):
            if gradient is None:
                continue
            assert np.isfinite(gradient).all(), f"{variable.path}: its gradient is not finite"
            if np.any(gradient):
                paths.discard(variable.path)
            variable.assign_sub(1e-3 * gradient)
    return sorted(paths)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("model", ALL)
def test_half_precision(model, dtype, zero_weights):
    check_half_precision(model, dtype, golden_logits(model))


def check_half_precision(model, dtype, expected):
    """Asserts that the first eight logits in half precision are close to the float32 ones."""
    net = build(model, compute_dtype=dtype)
    assign_golden_weights(net)
    logits = net(golden_image(), training=False)
    assert logits.dtype == tf.float32
    assert {v.dtype for v in net.variables} == {"float32"}
    tolerance = 0.15 if dtype == "bfloat16" else 0.02
    difference = np.abs(logits[0, :8] - expected).max()
    assert difference < tolerance * np.abs(expected).max(), f"{dtype} differs by {difference}"


@pytest.mark.parametrize("model", ALL)
def test_memorizes_64_images(model):
    """The loss on 64 images of the built-in data set halves within 300 steps without dropout."""
    images, labels = shapes_images()
    keras.utils.set_random_seed(3)
    net = build(model, dropout=0.0)
    values = [v.value for v in net.trainable_variables]
    momentum = [tf.Variable(tf.zeros_like(v)) for v in values]
    rate = 0.01 if registry.has_fixed_input_size(model) else 0.05

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            logits = net(x, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        for value, m, gradient in zip(values, momentum, tape.gradient(loss, values), strict=True):
            m.assign(0.9 * m + gradient)
            value.assign_sub(rate * m)
        return loss

    first = None
    recent = []
    for i in range(300):
        batch = slice(i % 4 * 16, i % 4 * 16 + 16)
        recent = [*recent[-3:], float(step(images[batch], labels[batch]))]
        assert np.isfinite(recent[-1])
        if i == 3:
            first = np.mean(recent)
        elif i > 3 and np.mean(recent) < first / 2:
            return
    raise AssertionError(f"the loss fell only from {first} to {np.mean(recent)} in 300 steps")


def shapes_images():
    """Returns 64 normalized images [64, 64, 64, 3] of the built-in data set and their labels."""
    from input_pipeline.sources import shapes

    labels = np.arange(64) % 10
    pixels = np.stack([shapes.draw(int(label), i)[16:80, 16:80] for i, label in enumerate(labels)])
    return (pixels.astype(np.float32) - 127.5) / 64.0, labels


def test_assign_samples_reaches_every_random_layer():
    net = build("alexnet_bn")
    assign_samples(net, 5, 77)
    variables = {id(x.samples): x.samples for x in net.layers if hasattr(x, "samples")}
    assert [v.numpy().tolist() for v in variables.values()] == [[5, 77, 0]]


if __name__ == "__main__":
    main(sys.argv[1:])
