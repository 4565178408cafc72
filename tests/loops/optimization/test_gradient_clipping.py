"""Gradient clipping against NumPy."""

import numpy as np

from loops.optimization import gradient_clipping

RNG = np.random.default_rng(0)
SHAPES = [(3, 3, 4, 5), (4, 6), (7,), ()]


def tensors(scale=1.0):
    return [np.asarray(RNG.normal(size=s) * scale, np.float32) for s in SHAPES]


def test_adaptive_grad_clip_limits_each_unit():
    gradients, weights = tensors(), tensors(5.0)
    weights[1][:, 2] = 0.0  # the limit is then 0.1 * 0.001
    gradients[1][:, 3] = 0.0
    results = gradient_clipping.adaptive_grad_clip(gradients, weights, 0.1)
    num_clipped = num_unchanged = 0
    for result, gradient, weight in zip(results, gradients, weights, strict=True):
        num_units = gradient.shape[-1] if gradient.ndim > 1 else 1
        for unit in range(num_units):
            index = (..., unit) if gradient.ndim > 1 else ...
            g, w = gradient[index].astype(np.float64), weight[index].astype(np.float64)
            max_norm = 0.1 * max(np.linalg.norm(w), 1e-3)
            clipped = np.linalg.norm(g) > max_norm
            expected = g * max_norm / np.linalg.norm(g) if clipped else g
            np.testing.assert_allclose(np.asarray(result)[index], expected, rtol=2e-6, atol=1e-9)
            num_clipped, num_unchanged = num_clipped + clipped, num_unchanged + (not clipped)
    assert num_clipped and num_unchanged


def test_compute_norms():
    gradients = tensors()
    expected = [np.linalg.norm(g.ravel()) for g in gradients]
    np.testing.assert_allclose(gradient_clipping.compute_norms(gradients), expected, rtol=1e-6)
