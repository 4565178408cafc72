"""Clipping against plain numpy."""

import numpy as np
import pytest

from loops.optimization import gradient_clipping

RNG = np.random.default_rng(0)
SHAPES = [(3, 3, 4, 5), (4, 6), (7,), ()]


def tensors(scale=1.0):
    return [np.asarray(RNG.normal(size=s) * scale, np.float32) for s in SHAPES]


@pytest.mark.parametrize("clip_norm", [0.5, 1e3])
def test_clip_by_global_norm(clip_norm):
    given = tensors()
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in given))
    factor = min(1.0, clip_norm / norm)
    for found, gradient in zip(
        gradient_clipping.clip_by_global_norm(given, clip_norm), given, strict=True
    ):
        np.testing.assert_allclose(found, gradient * factor, rtol=1e-6)


def test_clip_by_weights_unit_by_unit():
    given, weights = tensors(), tensors(5.0)
    weights[1][:, 2] = 0.0  # a unit without weights may move by a thousandth
    given[1][:, 3] = 0.0
    found = gradient_clipping.adaptive_grad_clip(given, weights, 0.1)
    changed = kept = 0
    for result, gradient, weight in zip(found, given, weights, strict=True):
        units = gradient.shape[-1] if gradient.ndim > 1 else 1
        for unit in range(units):
            at = (..., unit) if gradient.ndim > 1 else ...
            g, w = gradient[at].astype(np.float64), weight[at].astype(np.float64)
            most = 0.1 * max(np.linalg.norm(w), 1e-3)
            clipped = np.linalg.norm(g) > most
            expected = g * most / np.linalg.norm(g) if clipped else g
            np.testing.assert_allclose(np.asarray(result)[at], expected, rtol=2e-6, atol=1e-9)
            changed, kept = changed + clipped, kept + (not clipped)
    assert changed and kept


def test_norms():
    given = tensors()
    expected = [np.linalg.norm(g.ravel()) for g in given]
    np.testing.assert_allclose(gradient_clipping.compute_norms(given), expected, rtol=1e-6)
