"""The examples in docs/extending.md: each is run, and compared with something independent."""

import pathlib
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import augment_spec, pipeline
from input_pipeline.augmentation import batch_augment
from input_pipeline.augmentation.batch_augment import Targets
from input_pipeline.sources import source
from loops.optimization import losses, optimizers
from nets import registry
from nets.macs import count_multiply_adds
from tests.command_line import parse, refusal, resolve
from tests.loops import small_steps
from tests.nets import test_all_nets

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


def test_net_of_other_blocks():
    """Each of 8 blocks has one number in place of a batch norm. At zero, its branch is off."""
    model = parse(f"--model={EXAMPLES}/rezero.py:rezero_18").net.model
    net = registry.build_model(registry.NetConfig(model=model, num_classes=1000))
    count = sum(int(np.prod(v.shape)) for v in net.trainable_variables)
    assert count == 11_689_512 + sum(1 - 2 * c for c in (64, 128, 256, 512) for _ in range(2))
    assert len(optimizers.get_trainable_kernels(net)) == 21
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    first = keras.Model(
        net.input, [net.get_layer(f"stage1_block1_{name}").output for name in ("conv1", "relu")]
    )
    stem = keras.Model(net.input, net.get_layer("stem_pool").output)
    branch, output = first(image)
    assert np.any(branch) and np.array_equal(output, stem(image))
    assert test_all_nets.find_tensors_without_gradient(model, steps=2) == []


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
        "import keras, tensorflow as tf\n"
        "from input_pipeline.augmentation import augmentations\n"
        "from loops.optimization import losses, optimizers\n" + code
    )
    return path


def data_config(augment, folder):
    words = ["--dataset=folder", f"--data_dir={folder}", "--image_size=32", "--batch_size=8"]
    return resolve(f"--augment={augment}", *words).data


def preprocess(data, images):
    """Returns a function that augments images, in batches of a size; pixels are 0..255."""
    function = batch_augment.make_preprocess_fn(data, seed=3)

    def run(batch_size):
        parts = []
        for first in range(0, len(images), batch_size):
            samples = tf.range(first, min(first + batch_size, len(images)), dtype=tf.int64)
            part = tf.constant(images[first : first + batch_size])
            batch = {"image": part, "label": tf.cast(samples, tf.int32), "sample": samples}
            parts.append(function(batch)[0] * data.std + data.mean)
        return np.concatenate(parts)

    return run


def test_augmentation_of_batches(tiny_folder):
    """Half of the images are gray, as PIL's and Rec. 601's weights say; batches do not matter."""
    data = data_config(f"standard,{EXAMPLES}/gray.py:grayscale(0.5)", tiny_folder)
    images = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)
    run = preprocess(data, images)
    results = run(24)
    gray = (images @ np.array([0.299, 0.587, 0.114]))[..., None].repeat(3, axis=-1)
    is_gray = np.abs(results - gray).max(axis=(1, 2, 3)) < 0.01
    assert 6 <= is_gray.sum() <= 18
    expected = np.where(is_gray[:, None, None, None], gray, images)
    np.testing.assert_allclose(results, expected, atol=0.01)
    np.testing.assert_array_equal(run(9), results)


def test_augmentation_of_images(tiny_folder):
    """The other stages are those of a run without it; batches and threads do not matter."""
    plain = data_config("standard,vflip", tiny_folder)
    data = data_config(f"{EXAMPLES}/gray.py:solarize(100),vflip", tiny_folder)
    train = source.open_split(data, "train")

    def load(config, batch_size):
        batches = pipeline.train_dataset(train, config, 3, 0, batch_size, batches=24 // batch_size)
        return np.concatenate([batch["image"] for batch in batches])

    before, after = load(plain, 24), load(data, 24)
    inverted = np.where(before < 100, before, 255 - before)
    is_inverted = np.all(after == inverted, axis=(1, 2, 3))
    assert 6 <= is_inverted.sum() <= 18
    expected = np.where(is_inverted[:, None, None, None], inverted, before)
    np.testing.assert_array_equal(after, expected)
    np.testing.assert_array_equal(load(data, 3), after)
    first = pipeline.load_first_samples(train, data, 3, 4)["image"]
    np.testing.assert_array_equal(first, after[:4])


DRAWING = """
@augmentations.batch
def first(images, draws):
    numbers = tf.concat([draws.uniform(1), draws.uniform(1), draws.normal(1)], axis=1)
    return images * 0.0 + 50.0 * numbers[:, None, None]

@augmentations.batch
def second(images, draws):
    seeds = draws.stateless_seed()
    numbers = tf.map_fn(lambda s: tf.random.stateless_uniform([3], s), seeds, tf.float32)
    return images + 1000.0 * numbers[:, None, None]

@augmentations.batch
def third(images, draws):
    return tf.numpy_function(lambda x: x + 1.0, [images], tf.float32)
"""


def test_draws_differ_between_calls_images_and_functions(tmp_path, tiny_folder):
    """`third` is an operation that XLA does not support, and whose shape is unknown."""
    path = write(tmp_path, DRAWING)
    images = np.zeros((64, 2, 2, 3), np.uint8)
    names = [f"{path}:{name}" for name in ("first", "second", "third")]
    (first, second, third) = (
        preprocess(data_config(name, tiny_folder), images)(64)[:, 0, 0] for name in names
    )
    np.testing.assert_allclose(third, 1.0, atol=1e-4)
    draws = np.concatenate([first / 50.0, second / 1000.0], axis=1)
    assert draws[:, [0, 1, 3, 4, 5]].min() >= -1e-5 and draws[:, [0, 1, 3, 4, 5]].max() < 1
    assert np.abs(np.corrcoef(draws.T) - np.eye(6)).max() < 0.45
    both = preprocess(data_config(",".join(names), tiny_folder), images)(64)[:, 0, 0]
    np.testing.assert_allclose(both, first + second + third, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "result", "words"),
    [
        (
            "batch",
            "images[:, :8]",
            "returned float32 (2, 8, 32, 3), and must return float32 ",
        ),
        ("batch", "None", "returned NoneType, and must return"),
        ("batch", "tf.cast(images, tf.uint8)", "returned uint8"),
        ("batch", "images if draws.uniform(1) < 1 else images", "own.py:5: "),
        ("batch", "images @ 3", "own.py:5: "),
        ("image", "tf.cast(images, tf.float32)", "must return uint8 (32, 32, 3)"),
        ("image", "images[None]", "returned uint8 (1, 32, 32, 3)"),
        ("image", "images + draws.uniform(1)", "own.py:5: "),
    ],
)
def test_an_augmentation_that_cannot_be_used(tmp_path, tiny_folder, kind, result, words):
    head = f"@augmentations.{kind}\ndef f(images, draws): return "
    data = data_config(f"{write(tmp_path, head + result)}:f", tiny_folder)
    if kind == "batch":
        message = refusal(preprocess(data, np.zeros((2, 32, 32, 3), np.uint8)), 2)
    else:
        train = source.open_split(data, "train")
        message = refusal(pipeline.train_dataset, train, data, 3, 0, 8)
    assert words in message
    assert "own.py:5: " in message or message.startswith("--augment=own.py:f: ")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("f(1)", "missing a required argument: 'size'; it is called with images, draws and"),
        ("f(x,2)", "probability=x: is not a number"),
        ("f(1,2,3)", "'3' is one argument too many; it takes probability, size"),
        ("f(probabilty=1,size=1)", "unknown argument 'probabilty'; did you mean probability"),
        ("f(1,size=inf)", "size=inf: must be a number"),
        ("g", "too many positional arguments; it is called with images, draws"),
        ("undecorated", "write @augmentations.image or @augmentations.batch in the line above"),
    ],
)
def test_arguments_of_an_augmentation(tmp_path, tiny_folder, call, words):
    path = write(
        tmp_path,
        "@augmentations.batch\ndef f(images, draws, probability, size): pass\n"
        "@augmentations.batch\ndef g(images): pass\ndef undecorated(images, draws): pass",
    )
    message = refusal(data_config, f"standard,{path}:{call}", tiny_folder)
    assert "own.py:" in message and words in message and "@" not in message.split(": ")[0]
    spec = augment_spec.read(data_config(f"{path}:f(2,size=0.5)", tiny_folder))
    ((_, arguments),) = spec.load_functions("batch").values()
    assert repr(arguments) == "{'probability': 2, 'size': 0.5}"
    assert not spec.load_functions("image")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("3", "returned int"),
        ("keras.optimizers.AdamW(0.0)", "weight_decay=0.004 would have no effect"),
        ("keras.optimizers.Adam(0.0, clipnorm=1.0)", "use --clip_norm"),
        ("keras.optimizers.Nadam(0.0)", "Nadam does more than update each variable"),
        ("keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())", "does more than"),
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
