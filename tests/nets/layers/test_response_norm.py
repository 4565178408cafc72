"""Local response normalization against the paper's formula and TensorFlow's kernel."""

import numpy as np
import pytest
import tensorflow as tf

from nets.layers.response_norm import LocalResponseNorm


def reference(x):
    """Computes Krizhevsky et al. 2012, section 3.3, channel by channel in float64."""
    channels = x.shape[-1]
    result = np.empty(x.shape)
    for i in range(channels):
        near = x[..., max(0, i - 2) : min(channels - 1, i + 2) + 1].astype(np.float64)
        result[..., i] = x[..., i] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
    return result


@pytest.mark.parametrize("channels", [1, 4, 5, 17])
@pytest.mark.parametrize("deviation", [1.0, 300.0])
def test_response_norm_follows_the_formula(channels, deviation):
    x = np.random.default_rng(0).normal(0, deviation, (2, 3, 4, channels)).astype(np.float32)
    np.testing.assert_allclose(LocalResponseNorm()(x), reference(x), rtol=2e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_gradient_matches_the_tensorflow_kernel(compiled):
    rng = np.random.default_rng(1)
    x = tf.constant(rng.normal(0, 100, (2, 5, 3, 12)).astype(np.float32))
    upstream = tf.constant(rng.normal(size=x.shape).astype(np.float32))

    def gradient(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x, upstream)

    layer = LocalResponseNorm()
    ours = (tf.function(gradient) if compiled else gradient)(layer)
    kernel = gradient(lambda x: tf.nn.lrn(x, 2, 2.0, 1e-4, 0.75))
    np.testing.assert_allclose(ours, kernel, rtol=1e-4, atol=1e-5)
    assert np.abs(kernel - upstream * 2**-0.75).max() > 0.05  # far from the identity


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_inputs_are_normalized_in_float32(dtype):
    x = np.random.default_rng(2).normal(0, 30, (2, 4, 4, 8)).astype(np.float32)
    x[0, 0, 0] = 400.0  # its square overflows float16
    half = tf.cast(x, dtype)
    with tf.GradientTape() as tape:
        tape.watch(half)
        y = LocalResponseNorm(dtype=f"mixed_{dtype}")(half)
    assert y.dtype == tape.gradient(y, half).dtype == dtype
    expected = reference(tf.cast(half, tf.float32).numpy())
    eps = 2.0**-8 if dtype == "bfloat16" else 2.0**-11
    np.testing.assert_allclose(tf.cast(y, tf.float32), expected, rtol=eps)
