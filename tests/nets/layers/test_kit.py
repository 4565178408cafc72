"""Convolution, pooling and ReLU against Keras with explicit padding and against NumPy."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from nets.layers.kit import Conv, MaxPool, Relu


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("side", [(8, 8), (9, 11), (10, 7), (1, 1)])
def test_conv_pads_all_sides_equally(size, stride, side):
    x = normal(2, *side, 3)
    conv = Conv(5, size, stride)
    outputs = conv(x)
    pad = (size - 1) // 2
    padded = keras.layers.ZeroPadding2D(pad)(x)
    reference = keras.layers.Conv2D(5, size, stride, padding="valid", use_bias=False)
    reference.build(padded.shape)
    reference.kernel.assign(conv.kernel)
    np.testing.assert_allclose(outputs, reference(padded), rtol=1e-5, atol=1e-5)
    assert [v.name for v in conv.variables] == ["kernel"]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_conv_computes_its_output_shape(size, stride):
    x = normal(2, 8, 11, 3)
    conv = Conv(5, size, stride)
    assert tuple(conv.compute_output_shape(x.shape)) == tuple(conv(x).shape)


@pytest.mark.parametrize("side", [(8, 8), (9, 11), (10, 7), (1, 2)])
def test_max_pool_pads_with_the_lowest_number(side):
    height, width = side
    x = normal(2, height, width, 3) - 10.0  # zero padding would change it
    padded = np.full((2, height + 2, width + 2, 3), -np.inf, np.float32)
    padded[:, 1:-1, 1:-1] = x
    rows, columns = (height - 1) // 2 + 1, (width - 1) // 2 + 1
    expected = np.empty((2, rows, columns, 3), np.float32)
    for i in range(rows):
        for j in range(columns):
            expected[:, i, j] = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2))
    pool = MaxPool()
    np.testing.assert_array_equal(pool(x), expected)
    assert pool.compute_output_shape(x.shape) == expected.shape


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_layers_return_half_precision(dtype):
    x = normal(2, 8, 8, 3)
    half = dtype.removeprefix("mixed_")
    for layer in (Conv(4, 3, 2, dtype=dtype), MaxPool(dtype=dtype)):
        outputs = layer(x)
        assert outputs.dtype == half
        assert np.isfinite(np.asarray(outputs, np.float32)).all()


def test_output_shapes_of_unknown_image_sizes():
    assert Conv(5, 3, 2).compute_output_shape((None, None, None, 3)) == (None,) * 3 + (5,)
    assert MaxPool().compute_output_shape((None, None, 9, 3)) == (None, None, 5, 3)


def test_relu():
    outputs = Relu()(np.array([[-1.5, 0.0, 2.5]], np.float32))
    np.testing.assert_array_equal(outputs, [[0.0, 0.0, 2.5]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_max_pool_with_symmetric_padding_computes_the_same(dtype):
    x = tf.cast(tf.random.stateless_normal([2, 9, 12, 3], [0, 1]) - 3.0, dtype)
    results = []
    for symmetric in (False, True):
        layer = MaxPool(dtype=dtype)
        layer.symmetric_padding = symmetric
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x)
            total = tf.reduce_sum(outputs)
        results.append((outputs, tape.gradient(total, x)))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(tf.cast(one, tf.float32), tf.cast(two, tf.float32))


@pytest.mark.parametrize(("groups", "padding", "stride"), [(1, 2, 4), (2, 0, 1), (2, 2, 1)])
def test_conv_with_groups_bias_and_padding(groups, padding, stride):
    """AlexNet uses these."""
    x = normal(2, 13, 15, 4)
    conv = Conv(6, 5, stride, padding, groups, bias=True)
    conv.build(x.shape)
    conv.offset.assign(normal(6))
    padded = keras.layers.ZeroPadding2D(padding)(x)
    reference = keras.layers.Conv2D(6, 5, stride, padding="valid", groups=groups)
    reference.build(padded.shape)
    reference.kernel.assign(conv.kernel)
    reference.bias.assign(conv.offset)
    np.testing.assert_allclose(conv(x), reference(padded), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [(7, 9), (8, 11), (13, 6)])
@pytest.mark.parametrize("padding", [0, "over"])
def test_max_pool_without_padding(side, padding):
    """Rows that do not fill a window are dropped, or the last window extends over the edge."""
    x = normal(2, *side, 3)
    round_down_or_up = math.floor if padding == 0 else math.ceil
    rows, columns = (round_down_or_up((n - 3) / 2) + 1 for n in side)
    expected = np.empty((2, rows, columns, 3), np.float32)
    for i in range(rows):
        for j in range(columns):
            expected[:, i, j] = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2))
    np.testing.assert_array_equal(MaxPool(padding)(x), expected)
