"""The examples in docs/extending.md: each is run, and compared with something independent."""

import pathlib
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augmentation.batch_augment import Targets
from loops.optimization import losses, optimizers
from nets import registry
from nets.macs import count_multiply_adds
from tests.command_line import parse, refusal, resolve
from tests.loops import small_steps

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs/examples"


@pytest.fixture(scope="module", autouse=True)
def settings(tmp_path_factory):
    """The user's folder of settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("settings")))
        yield


def test_the_page_shows_the_examples():
    page = (ROOT / "docs/extending.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f"[`{path.name}`](examples/{path.name})" in page
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    shown = [path for path in EXAMPLES.glob("*.py") if path.read_text() in blocks]
    assert len(shown) >= 4


@pytest.fixture(scope="module")
def eca_net():
    return registry.build_model(
        registry.NetConfig(
            model=parse(f"--model={EXAMPLES}/eca.py:resneteca_18").net.model, num_classes=1000
        )
    )


def test_net(eca_net):
    """Each of 8 blocks adds one kernel of 3 weights, which all channels share."""
    count = sum(int(np.prod(v.shape)) for v in eca_net.trainable_variables)
    assert count == 11_689_512 + 8 * 3
    channels = [64, 64, 128, 128, 256, 256, 512, 512]
    plain = registry.build_model(registry.NetConfig(model="resnet_18", num_classes=1000))
    extra = count_multiply_adds(eca_net, 64) - count_multiply_adds(plain, 64)
    assert extra == sum(3 * c for c in channels)
    assert len(optimizers.get_trainable_kernels(eca_net)) == 21 + 8


def test_eca_gate(eca_net):
    gate, scaled = (eca_net.get_layer(f"stage1_block1_se{end}") for end in ("", "_scale"))
    kernel = np.array([0.5, -1.0, 0.25], np.float32)
    gate.kernel.assign(kernel.reshape(3, 1, 1))
    part = keras.Model(scaled.input[0], scaled.output)
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 64)).astype(np.float32)
    means = np.pad(x.mean(axis=(1, 2)), [(0, 0), (1, 1)])
    sums = sum(kernel[i] * means[:, i : i + 64] for i in range(3))
    expected = x / (1.0 + np.exp(-sums))[:, None, None]
    np.testing.assert_allclose(part(x), expected, rtol=1e-5, atol=1e-6)


def test_optimizer(one_device):
    """One step of the run is one step of the paper, with decoupled weight decay."""
    optimizer = f"--optimizer={EXAMPLES}/lion.py:lion"
    config = resolve(optimizer, "--dataset=shapes")
    assert config.optimization.learning_rate == 5e-5
    config = config.optimization
    assert optimizers.get_step_weight_decay(config) == (0.0, 1e-4)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(inputs))
    made = optimizers.build_optimizer(config, model)
    kernel, gradient = model.layers[-1].kernel, np.linspace(-1, 1, 12).reshape(4, 3)
    before = kernel.numpy().astype(np.float64)
    optimizers.apply_gradients(
        one_device,
        made,
        [tf.constant(gradient, tf.float32), tf.zeros(3)],
        model.trainable_variables,
        tf.constant(0.1),
        decoupled_decay=0.5,
        decayed_ids={id(kernel)},
    )
    expected = before - 0.1 * 0.5 * before - 0.1 * np.sign(0.1 * gradient)
    np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_loss():
    name = parse(f"--loss={EXAMPLES}/focal.py:focal").optimization.loss
    logits = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    labels = tf.constant([0, 1, 2, 3, 0, 1])
    loss = losses.compute(name, Targets(labels, labels, tf.ones(6)), tf.constant(logits), 0.0)
    exponentials = np.exp(logits.astype(np.float64))
    p = (exponentials / exponentials.sum(axis=1, keepdims=True))[np.arange(6), labels.numpy()]
    np.testing.assert_allclose(loss, -((1 - p) ** 2) * np.log(p), rtol=1e-5)


def test_loss_and_optimizer_on_two_replicas(mirrored):
    words = [f"--loss={EXAMPLES}/focal.py:focal", f"--optimizer={EXAMPLES}/lion.py:lion"]
    config = parse(*words).optimization
    images = small_steps.random_images(2)
    state, results = small_steps.run_steps(
        mirrored, images, *words, loss=config.loss, optimizer=config.optimizer
    )
    assert results["applied"] == 2 and results["loss"] < results["cross_entropy"]
    small_steps.assert_replicas_equal(state)


def write(tmp_path, code):
    path = tmp_path / "own.py"
    path.write_text(
        "import keras, tensorflow as tf\nfrom loops.optimization import losses, optimizers\n" + code
    )
    return path


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("3", "returned int"),
        ("keras.optimizers.AdamW(0.0)", "weight_decay=0.004 would have no effect"),
        ("keras.optimizers.Adam(0.0, clipnorm=1.0)", "use --clip_norm"),
    ],
)
def test_an_optimizer_that_the_step_cannot_use(tmp_path, result, words):
    head = "@optimizers.optimizer(decay_kind='l2')\ndef f(config): return "
    path = write(tmp_path, head + result)
    config = parse(f"--optimizer={path}:f").optimization
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="logits")])
    message = refusal(optimizers.build_optimizer, config, model)
    assert message.startswith("--optimizer=own.py:f: ") and words in message


@pytest.mark.parametrize("result", ["tf.reduce_mean(logits)", "logits", "0.0", "logits[:, 0] > 0"])
def test_a_loss_of_the_wrong_shape(tmp_path, result):
    path = write(tmp_path, f"@losses.loss\ndef f(targets, logits, smoothing): return {result}\n")
    name = parse(f"--loss={path}:f").optimization.loss
    message = refusal(losses.compute, name, None, tf.zeros((2, 3)), 0.0)
    assert message.startswith("--loss=own.py:f: returned") and "each of the 2 images" in message


def test_unknown_layers_are_named_with_the_line_to_add():
    class Gate(keras.layers.Layer):
        def build(self, shape):
            self.alpha = self.add_weight(shape=(shape[-1],), name="alpha")

        def call(self, x):
            return x * self.alpha

    class KnownGate(Gate):
        decays = types.MappingProxyType({"alpha": True})

        def count_multiply_adds(self, shape):
            return shape[-1]

    def build(gate):
        inputs = keras.Input((None, None, 3))
        x = keras.layers.GlobalAveragePooling2D()(gate(name="gate")(inputs))
        return keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))

    message = refusal(optimizers.get_trainable_kernels, build(Gate))
    assert 'decays = {"alpha": True}' in message and "class Gate" in message
    message = refusal(count_multiply_adds, build(Gate), 8)
    assert "def count_multiply_adds(self, shape)" in message
    known = build(KnownGate)
    names = [v.name for v in optimizers.get_trainable_kernels(known)]
    assert names == ["alpha", "kernel"]
    assert count_multiply_adds(known, 8) == 3 + 3 * 2


def test_depthwise_and_separable_kernels_count_and_decay():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.DepthwiseConv2D(3, padding="same")(inputs)
    x = keras.layers.SeparableConv2D(5, 3, padding="same")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
    assert len(optimizers.get_trainable_kernels(model)) == 4
    assert count_multiply_adds(model, 8) == 64 * (9 * 3 + 9 * 3 + 3 * 5) + 5 * 2
