"""The whole registry: stages, sizes, gradients, formats, memorisation, and golden logits.

The golden file pins each net's arithmetic, not its initialiser: weights come from numpy by a rule.
`python -m tests.nets.test_all_nets` writes it anew, after a change that was meant.
"""

import json
import pathlib
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from nets import registry
from nets.layers.kit import Conv, Dropout, MaxPool
from nets.layers.random_layers import assign_samples

GOLDEN = pathlib.Path(__file__).parent / "golden_logits.json"
QUICK = ("alexnet_bn", "zfnet", "resnet_18", "resnetv2_18", "resnetse_18")
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
def quick_weights(monkeypatch):
    """Zeros in place of millions of random numbers that are never looked at."""
    for name in ("VarianceScaling", "RandomNormal"):
        initializer = getattr(keras.initializers, name)
        monkeypatch.setattr(initializer, "__call__", lambda _, shape, **__: tf.zeros(shape))


def set_by_rule(net):
    """Weights that follow from each variable's name: normal, scaled by the fan-in."""
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
    """[1, S, S, 3]: waves of a different length in each channel, between -2 and 2."""
    rows, columns = np.indices((size, size)).astype(np.float64)
    channels = [2 * np.sin(rows / a + 1) * np.cos(columns / b) for a, b in ((5, 9), (3, 4), (7, 2))]
    return np.stack(channels, -1)[None].astype(np.float32)


def first_logits(model):
    net = build(model)
    set_by_rule(net)
    return net(golden_image(), training=False).numpy()[0, :8].tolist()


@pytest.mark.parametrize("model", ALL)
def test_golden_logits(model, quick_weights):
    expected = np.array(json.loads(GOLDEN.read_text())[model])
    got = np.array(first_logits(model))
    assert np.abs(expected).max() > 0.1
    assert np.abs(got - expected).max() <= 1e-3 * np.abs(expected).max()


def test_golden_logits_are_of_every_net():
    assert list(json.loads(GOLDEN.read_text())) == list(registry.names())


@pytest.mark.parametrize("model", STAGED)
def test_strides_and_channels_of_every_stage(model, quick_weights):
    """Table 1 of He et al. 2015: 56, 28, 14 and 7 at 224 px, so strides 4 to 32."""
    net = build(model)
    depths = registry.get_architecture(model).options["depths"]
    last = [f"stage{stage}_block{blocks}_add" for stage, blocks in enumerate(depths, 1)]
    names = ["stem_conv", "stem_pool", *last]
    stages = keras.Model(net.input, [net.get_layer(name).output for name in names])
    shapes = [t.shape for t in stages.compute_output_spec(keras.KerasTensor((1, 224, 224, 3)))]
    wide = 4 if int(model.split("_")[1]) >= 50 else 1
    assert [s[1:] for s in shapes] == [
        (112, 112, 64),
        (56, 56, 64),
        *((56 // 2**i, 56 // 2**i, 64 * 2**i * wide) for i in range(4)),
    ]


@pytest.mark.parametrize("model", [m for m in registry.names() if registry.has_fixed_input_size(m)])
def test_maps_of_alexnet_and_zfnet(model, quick_weights):
    """The papers' figures; AlexNet's 55 from 224 px needs the padding by 2."""
    net = build(model, 224)
    sides = [x.output.shape[1] for x in net.layers if isinstance(x, Conv | MaxPool)]
    if model.startswith("alexnet"):
        assert sides == [55, 27, 27, 13, 13, 13, 13, 6]
    else:
        assert sides == [110, 55, 26, 13, 13, 13, 13, 6]
    channels = [x.output.shape[-1] for x in net.layers if isinstance(x, Conv)]
    assert channels == [96, 256, 384, 384, 256]
    groups = [x.groups for x in net.layers if isinstance(x, Conv)]
    assert groups == ([1, 2, 1, 2, 2] if model.startswith("alexnet") else [1] * 5)
    kinds = [type(x).__name__ for x in net.layers if x.name.startswith("norm")]
    assert kinds == ["BatchNorm" if model.endswith("_bn") else "LocalResponseNorm"] * 2
    rates = {x.name: x.rate for x in net.layers if isinstance(x, Dropout)}
    assert rates == {"fc6_dropout": 0.5, "fc7_dropout": 0.5}


@pytest.mark.parametrize("size", [64, 96, 160, 224, 299])
@pytest.mark.parametrize("model", ALL)
def test_sizes(model, size, quick_weights):
    """Shapes only, from the graph: running five sizes of every net would take minutes."""
    net = build(model, size)
    assert net.compute_output_spec(keras.KerasTensor((2, size, size, 3))).shape == (2, 42)
    if size == 64:
        assert net(golden_image(size)).shape == (1, 42)


@pytest.mark.parametrize("model", ALL)
def test_every_trainable_tensor_gets_a_gradient(model):
    keras.utils.set_random_seed(1)
    net = build(model, dropout=0.0)
    images = np.random.default_rng(0).normal(size=(4, SIZE, SIZE, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        logits = net(images, training=True)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits([0, 7, 23, 41], logits)
    gradients = tape.gradient(loss, net.trainable_variables)
    for variable, gradient in zip(net.trainable_variables, gradients, strict=True):
        assert gradient is not None and np.any(gradient), variable.path
        assert np.isfinite(gradient).all(), variable.path


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("model", ALL)
def test_half_precision(model, dtype, quick_weights):
    net = build(model, compute_dtype=dtype)
    set_by_rule(net)
    logits = net(golden_image(), training=False)
    assert logits.dtype == tf.float32
    assert {v.dtype for v in net.variables} == {"float32"}
    expected = np.array(json.loads(GOLDEN.read_text())[model])
    tolerance = 0.15 if dtype == "bfloat16" else 0.02
    assert np.abs(logits[0, :8] - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize("model", ALL)
def test_memorises_64_images(model):
    """The loss on 64 images of the built-in set halves within 300 steps, dropout off."""
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
        at = slice(i % 4 * 16, i % 4 * 16 + 16)
        recent = [*recent[-3:], float(step(images[at], labels[at]))]
        assert np.isfinite(recent[-1])
        if i == 3:
            first = np.mean(recent)
        elif i > 3 and np.mean(recent) < first / 2:
            return
    raise AssertionError(f"from {first} to {np.mean(recent)} in 300 steps")


def shapes_images():
    """64 normalised images [64, 64, 64, 3] of the built-in set and their labels."""
    from input_pipeline.sources import shapes

    labels = np.arange(64) % 10
    pixels = np.stack([shapes.draw(int(label), i)[16:80, 16:80] for i, label in enumerate(labels)])
    return (pixels.astype(np.float32) - 127.5) / 64.0, labels


def test_assign_samples_reaches_every_layer():
    net = build("alexnet_bn")
    assign_samples(net, 5, 77)
    variables = {id(x.samples): x.samples for x in net.layers if hasattr(x, "samples")}
    assert [v.numpy().tolist() for v in variables.values()] == [[5, 77]]


if __name__ == "__main__":
    found = {m: [float(f"{x:.6g}") for x in first_logits(m)] for m in registry.names()}
    rows = [f' "{model}": {json.dumps(logits)}' for model, logits in found.items()]
    GOLDEN.write_text("{\n" + ",\n".join(rows) + "\n}\n")
