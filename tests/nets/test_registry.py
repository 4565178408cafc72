"""Every registered net: parameter count, shapes, dtypes, gradients and initial weights."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from nets import registry, resnet, resnetv2
from nets.layers.kit import Conv, Kit
from tests.nets.model_sizes import MODEL_SIZES

# Blocks per stage: table 1 of He et al. 2015; 200 from section 5 of He et al. 2016.
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
# Families whose parameters `early_parameters` and `trainable_parameters` below compute.
_FAMILIES = ("alexnet", "zfnet", "resnet", "resnetv2", "resnetse", "resnetd")


def split_name(model):
    """Returns the family and the variant of a net; `resnet_50d` is of the family `resnetd`."""
    family, _, variant = model.partition("_")
    return (f"{family}d", variant[:-1]) if variant.endswith("d") else (family, variant)


OF_THE_PAPERS = [
    model
    for model in registry.names()
    if split_name(model)[0] in _FAMILIES and model != "alexnet_owt"
]
PUBLISHED = {
    "resnet_18": 11_689_512,
    "resnet_34": 21_797_672,
    "resnet_50": 25_557_032,
    "resnet_101": 44_549_160,
    "resnet_152": 60_192_808,
    "resnetv2_50": 25_549_352,
    "resnetse_50": 28_088_024,
    "resnet_50d": 25_576_264,
}
# The smallest net of each residual family.
SMALL = ("resnet_18", "resnetv2_18", "resnetse_18", "resnet_18d")


@functools.cache
def build(model, **fields):
    """Builds a net with 42 classes. Tests share it, so they must not change trainable weights."""
    keras.utils.set_random_seed(1)
    if registry.has_fixed_input_size(model):
        fields = {"input_size": 64, **fields}
    return registry.build_model(registry.NetConfig(model=model, num_classes=42, **fields))


def bottleneck_net(family):
    """Builds a net of one bottleneck block per stage."""
    keras.utils.set_random_seed(1)
    if family == "resnetv2":
        return resnetv2.resnetv2(Kit(), 42, (1, 1, 1, 1), bottleneck=True)
    options = {
        "resnetse": {"attention": "squeeze_excite"},
        "resnetd": {"deep_stem": True, "average_shortcut": True},
    }
    return resnet.resnet(Kit(), 42, (1, 1, 1, 1), bottleneck=True, **options.get(family, {}))


@pytest.fixture
def zero_weights(monkeypatch):
    """Initializes weights with zeros, because random values for millions of weights take time."""

    def zeros(_, shape, dtype=None, **__):
        return tf.zeros(shape, dtype)

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", zeros)
    monkeypatch.setattr(keras.initializers.RandomNormal, "__call__", zeros)


def build_for_imagenet(model):
    """Builds a net with 1,000 classes for 224 px."""
    size = 224 if registry.has_fixed_input_size(model) else 0
    return registry.build_model(registry.NetConfig(model=model, num_classes=1000, input_size=size))


def count_parameters(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def expected_parameters(model):
    """Returns the net's row of MODEL_SIZES; fails with the line to add if there is no such row."""
    if model not in MODEL_SIZES:
        count = count_parameters(build_for_imagenet(model).trainable_variables)
        pytest.fail(f'add "{model}": {count:_} to MODEL_SIZES in tests/nets/model_sizes.py')
    return MODEL_SIZES[model]


def images(size, batch=4, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, size, size, 3)).astype(np.float32)


def early_parameters(family, batch_norm, classes=1000):
    """Computes the parameters of AlexNet or ZFNet at 224 px.

    Layers are given as (side of the kernel, input channels, output channels).
    """
    convs = {
        "alexnet": [(11, 3, 96), (5, 48, 256), (3, 256, 384), (3, 192, 384), (3, 192, 256)],
        "zfnet": [(7, 3, 96), (5, 96, 256), (3, 256, 384), (3, 384, 384), (3, 384, 256)],
    }[family]
    dense = [(1, 6 * 6 * 256, 4096), (1, 4096, 4096), (1, 4096, classes)]
    total = sum(k * k * a * b + b for k, a, b in convs + dense)
    return total + (2 * (96 + 256) if batch_norm else 0)


def trainable_parameters(family, layer_count, classes=1000):
    """Computes the parameters of a residual net by hand.

    A convolution with side k has k * k * in * out weights and no bias. A batch norm has two
    parameters per channel, a dense layer in * out + out. Post-activation nets normalize the output
    of each convolution, including the stem and the projection shortcuts. Pre-activation nets
    normalize the input of each convolution except the stem and the projections, and the output of
    the last stage.
    """
    preactivated, squeeze_excite = family == "resnetv2", family == "resnetse"
    expansion = 4 if layer_count >= 50 else 1
    total = 7 * 7 * 3 * 64 + (0 if preactivated else 2 * 64)
    if family == "resnetd":
        total = 27 * 32 + 2 * 32 + 9 * 32 * 32 + 2 * 32 + 9 * 32 * 64 + 2 * 64
    channels = 64
    for stage, blocks in enumerate(BLOCKS[layer_count]):
        width = 64 * 2**stage
        out = width * expansion
        for block in range(blocks):
            convs = [(3, channels, width), (3, width, out)]
            if expansion == 4:
                convs = [(1, channels, width), (3, width, width), (1, width, out)]
            total += sum(k * k * a * b for k, a, b in convs)
            total += sum(2 * (a if preactivated else b) for _, a, b in convs)
            if block == 0 and (stage > 0 or channels != out):
                total += channels * out + (0 if preactivated else 2 * out)
            if squeeze_excite:
                hidden = out // 16
                total += out * hidden + hidden + hidden * out + out
            channels = out
    return total + (2 * channels if preactivated else 0) + channels * classes + classes


def test_model_sizes_has_one_row_for_each_registered_net(zero_weights):
    for model in registry.names():
        expected_parameters(model)
    assert set(MODEL_SIZES) - set(registry.names()) == set(), "remove these rows"


def test_missing_row_in_model_sizes_fails_with_the_line_to_add(monkeypatch, zero_weights):
    monkeypatch.delitem(MODEL_SIZES, "resnet_18")
    with pytest.raises(pytest.fail.Exception) as failure:
        expected_parameters("resnet_18")
    line = 'add "resnet_18": 11_689_512 to MODEL_SIZES in tests/nets/model_sizes.py'
    assert str(failure.value) == line


def test_registry_has_all_nets_of_the_papers():
    assert len(OF_THE_PAPERS) == len(set(OF_THE_PAPERS)) == 25


@pytest.mark.parametrize("model", OF_THE_PAPERS)
def test_model_sizes_match_the_papers(model, zero_weights):
    family, variant = split_name(model)
    expected = expected_parameters(model)
    if variant.isdigit():
        assert trainable_parameters(family, int(variant)) == expected
    else:
        assert early_parameters(family, variant == "bn") == expected
    assert PUBLISHED.get(model, expected) == expected


@pytest.mark.parametrize("model", registry.names())
def test_number_of_trainable_parameters(model, zero_weights):
    expected = expected_parameters(model)
    net = build_for_imagenet(model)
    assert count_parameters(net.trainable_variables) == expected
    # Only the moving mean and variance are not trainable: as many values as gamma and beta.
    statistics = count_parameters(net.non_trainable_variables)
    scales = [v for v in net.trainable_variables if v.name in ("gamma", "beta")]
    assert statistics == count_parameters(scales)
    if model in OF_THE_PAPERS:
        assert (statistics > 0) == (model not in ("alexnet", "zfnet"))


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_logits_and_variables_are_float32(model, dtype):
    net = build(model, compute_dtype=dtype)
    assert {v.dtype for v in net.variables} == {"float32"}
    convolutions = [layer for layer in net.layers if isinstance(layer, Conv)]
    assert {layer.compute_dtype for layer in convolutions} == {dtype}
    logits = net(images(32, batch=2), training=True)
    assert logits.dtype == tf.float32
    assert logits.shape == (2, 42)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close_to_float32(dtype):
    exact, half = build("resnetv2_18"), build("resnetv2_18", compute_dtype=dtype)
    for one, other in zip(half.trainable_variables, exact.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other)  # initialized with the same seed
    expected, logits = (net(images(32), training=True).numpy() for net in (exact, half))
    assert 0.0 < np.abs(logits - expected).max() < (0.1 if dtype == "bfloat16" else 0.02)
    assert np.corrcoef(expected.ravel(), logits.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("size", [64, 75])
def test_other_image_sizes(model, size):
    net = build(model)
    logits = net(images(size, batch=1), training=False)
    assert logits.shape == (1, 42)
    assert np.isfinite(logits).all()
    # Five layers halve the size, each rounding up.
    assert net.get_layer("pool").input.shape[-1] == 512
    before_pool = keras.Model(net.input, net.get_layer("pool").input)
    side = math.ceil(size / 32)
    assert before_pool(images(size, batch=1)).shape == (1, side, side, 512)


@pytest.mark.parametrize("model", registry.names())
def test_min_image_size(model):
    assert registry.min_image_size(model) == (64 if registry.has_fixed_input_size(model) else 32)


@pytest.mark.parametrize("family", ["resnet", "resnetv2", "resnetse", "resnetd"])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_every_trainable_tensor_gets_a_gradient(family, kind):
    smallest = "resnet_18d" if family == "resnetd" else f"{family}_18"
    net = build(smallest) if kind == "basic" else bottleneck_net(family)
    labels = tf.constant([0, 7, 23, 41])
    with tf.GradientTape() as tape:
        logits = net(images(64), training=True)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    gradients = tape.gradient(loss, net.trainable_variables)
    paths = [v.path for v in net.trainable_variables]
    assert len(set(paths)) == len(paths) > 20
    without = [p for p, g in zip(paths, gradients, strict=True) if g is None or not np.any(g)]
    assert without == []
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("family", ["resnet", "resnetv2", "resnetse"])
def test_block_counts_and_strides(family):
    """The stem and the first block of stages 2 to 4 halve the size (and so does the pooling)."""
    net = build(f"{family}_18")
    strided = [x.name for x in net.layers if getattr(x, "stride", 1) == 2]
    blocks = [f"stage{stage}_block1" for stage in (2, 3, 4)]
    expected = [f"{b}_{part}" for b in blocks for part in ("shortcut", "conv1")]
    assert sorted(strided) == sorted(["stem_conv", *expected])


def test_bottleneck_stride_is_on_the_3x3_convolution():
    for family in ("resnet", "resnetv2"):
        net = bottleneck_net(family)
        strided = {x.name for x in net.layers if getattr(x, "stride", 1) == 2}
        assert "stage2_block1_conv2" in strided
        assert "stage2_block1_conv1" not in strided


def test_zero_init_residual_starts_as_the_identity():
    """Each block of a post-activation net returns its input, which is max(x, 0) with x >= 0."""
    net = build("resnet_18", zero_init_residual=True)
    zero = {v.path for v in net.trainable_variables if v.name == "gamma" and not np.any(v)}
    assert zero == {f"stage{s}_block{b}_conv2_bn/gamma" for s in (1, 2, 3, 4) for b in (1, 2)}
    ends = [net.get_layer("stem_pool"), net.get_layer("stage1_block2_relu")]
    before, after = keras.Model(net.input, [layer.output for layer in ends])(images(32))
    np.testing.assert_array_equal(before, after)
    assert np.any(before)


@pytest.mark.parametrize("deep", [False, True])
def test_zero_init_residual_of_a_preactivated_net_zeroes_the_last_convolutions(deep):
    """Blocks without a projection return their input, and every zero kernel gets a gradient."""
    kit = Kit(zero_init_residual=True)
    net = resnetv2.resnetv2(kit, 42, (2, 1, 1, 1), bottleneck=deep)
    last = "conv3" if deep else "conv2"
    zero = {v.path for v in net.trainable_variables if v.name == "kernel" and not np.any(v)}
    blocks = {x.name.removesuffix("_add") for x in net.layers if x.name.endswith("_add")}
    assert zero == {f"{block}_{last}/kernel" for block in blocks} and len(blocks) == 5
    assert all(np.all(v.numpy() == 1) for v in net.variables if v.name == "gamma")
    ends = [net.get_layer(f"stage1_block{n}_add").output for n in (1, 2)]
    before, after = keras.Model(net.input, ends)(images(32))
    np.testing.assert_array_equal(before, after)
    assert np.any(before)
    kernels = [v for v in net.trainable_variables if v.path in zero]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(net(images(32), training=True)[:, 0])
    gradients = tape.gradient(loss, [v.value for v in kernels])
    assert all(np.any(gradient) for gradient in gradients)


@pytest.mark.parametrize("model", ["alexnet", "resnetse_18"])
def test_without_random_weights_all_kernels_are_zero(model):
    size = registry.min_image_size(model)
    config = registry.NetConfig(model=model, num_classes=3, input_size=size)
    net = registry.build_model(config, random_weights=False)
    kernels = [v for v in net.variables if v.name == "kernel"]
    assert kernels and not any(np.any(v) for v in kernels)


@pytest.mark.parametrize("model", SMALL)
def test_gamma_starts_at_one_without_zero_init_residual(model):
    net = build(model)
    assert all(np.all(v.numpy() == 1) for v in net.variables if v.name == "gamma")


def test_squeeze_excite_scales_each_channel():
    """Computes the gate in numpy from the layer's weights."""
    keras.utils.set_random_seed(3)
    image = keras.Input((5, 7, 32))
    net = keras.Model(image, Kit().squeeze_excite(image, "se", ratio=16))
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 32)).astype(np.float32)
    reduce, expand = net.get_layer("se_reduce"), net.get_layer("se_expand")
    assert reduce.units == 2
    hidden = np.maximum(x.mean((1, 2)) @ reduce.kernel.numpy() + reduce.bias.numpy(), 0)
    gate = 1 / (1 + np.exp(-(hidden @ expand.kernel.numpy() + expand.bias.numpy())))
    np.testing.assert_allclose(net(x), x * gate[:, None, None], rtol=1e-5, atol=1e-6)


def test_initial_weights_follow_the_fan_out():
    """He et al. 2015, eq. 14: the variance of a kernel is 2 / (k * k * out)."""
    net = build("resnet_18")
    kernel = net.get_layer("stage4_block2_conv2").kernel.numpy()
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 512)), rel=0.01)
    kernel = net.get_layer("stage2_block1_conv1").kernel.numpy()  # 64 to 128 channels
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 128)), rel=0.02)
    assert net.get_layer("logits").kernel.numpy().std() == pytest.approx(0.01, rel=0.05)
    assert not np.any(net.get_layer("logits").bias)
