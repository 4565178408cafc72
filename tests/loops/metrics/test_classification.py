"""Tests classification metrics against scikit-learn, SciPy and hand-computed cases."""

import math
import warnings

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sklearn_metrics

from loops.metrics import classification

N, C = 203, 11


@pytest.fixture
def logits():
    """float32 [2, N, 3, C]: two models, three views, standard deviation 2."""
    return np.random.default_rng(0).normal(0, 2, (2, N, 3, C)).astype(np.float32)


@pytest.fixture
def labels(logits):
    """Mostly the top-1 class of one model, so that accuracies are neither 0 nor 1."""
    rng = np.random.default_rng(1)
    likely = logits[0, :, 0].argmax(-1)
    return np.where(rng.random(N) < 0.6, likely, rng.integers(0, C, N)).astype(np.int32)


def test_probabilities_are_the_mean_softmax(logits):
    expected = special.softmax(logits.astype(np.float64), axis=-1).mean((0, 2))
    probs = classification.probabilities(logits)
    assert probs.dtype == np.float64
    np.testing.assert_allclose(probs, expected, rtol=1e-12)
    np.testing.assert_allclose(probs.sum(1), 1.0, rtol=1e-12)


def test_softmax_of_large_logits_does_not_overflow():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probs = classification.probabilities(np.array([[[[1e4, 1e4 - math.log(3), -1e4]]]]))
    np.testing.assert_allclose(probs, [[0.75, 0.25, 0.0]], atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 5, C - 1])
def test_top_k_against_scikit_learn(logits, labels, k):
    probs = classification.probabilities(logits)
    results = classification.score(probs, labels, (k,))
    expected = sklearn_metrics.top_k_accuracy_score(labels, probs, k=k, labels=range(C))
    assert results[f"top{k}"] == pytest.approx(expected, abs=1e-12)
    assert results[f"top{k}_error"] == pytest.approx(1 - expected, abs=1e-12)
    assert results[f"top{k}_low"] <= expected <= results[f"top{k}_high"]
    assert 0.1 < results[f"top{k}"] < 1.0


def test_nll_against_scikit_learn(logits, labels):
    probs = classification.probabilities(logits)
    expected = sklearn_metrics.log_loss(labels, probs, labels=range(C))
    assert classification.score(probs, labels)["nll"] == pytest.approx(expected, rel=1e-9)


def test_score_returns_plain_numbers_under_the_documented_keys(logits, labels):
    results = classification.score(classification.probabilities(logits), labels, (1, 3))
    kinds = ("", "_error", "_low", "_high")
    expected = {f"top{k}{kind}" for k in (1, 3) for kind in kinds} | {"nll", "num_examples"}
    assert set(results) == expected
    assert results["num_examples"] == N
    assert all(type(v) in (int, float) for v in results.values())  # serializable as JSON


def test_ranks_top_k_and_nll_by_hand():
    probs = np.array([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]])
    labels = np.array([0, 0, 2, 2])
    assert classification.label_ranks(probs, labels).tolist() == [0, 2, 1, 0]
    results = classification.score(probs, labels, (1, 2, 3))
    assert [results[f"top{k}"] for k in (1, 2, 3)] == [0.5, 0.75, 1.0]
    expected = -(math.log(0.7) + math.log(0.2) + math.log(0.3) + math.log(0.5)) / 4
    assert results["nll"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0.25, 0.25, 0.25, 0.25], [0, 1, 2, 3]),
        ([0.4, 0.2, 0.4, 0.0], [0, 2, 1, 3]),
        ([0.0, 0.5, 0.0, 0.5], [2, 0, 3, 1]),
        ([1.0, 0.0, 0.0, 0.0], [0, 1, 2, 3]),
    ],
)
def test_ties_go_to_the_lower_class(row, expected):
    """A model with constant outputs scores like one fixed guess, not 100 %."""
    probs = np.tile(row, (4, 1))
    assert classification.label_ranks(probs, np.arange(4)).tolist() == expected


def test_constant_logits_score_at_chance_level():
    labels = np.arange(10).repeat(7)
    results = classification.score(classification.probabilities(np.zeros((1, 70, 1, 10))), labels)
    assert (results["top1"], results["top5"]) == (0.1, 0.5)
    assert results["nll"] == pytest.approx(math.log(10))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("view", [slice(None), 1])
def test_non_finite_logits_are_wrong_for_every_label(logits, bad, view):
    """This also holds if only one view is not finite."""
    logits[:, 5, view, 3] = bad
    if view == slice(None):
        logits[:, 5] = bad
    probs = classification.probabilities(logits)
    np.testing.assert_array_equal(probs[5], np.zeros(C))
    assert np.isfinite(probs).all()
    for label in range(C):
        assert classification.label_ranks(probs[5:6], np.array([label]))[0] >= C
    results = classification.score(probs[5:6], np.array([0]))
    assert (results["top1"], results["top5"]) == (0.0, 0.0)
    assert math.isfinite(results["nll"]) and results["nll"] > 100


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_non_finite_logits_are_wrong_for_k_above_the_number_of_classes():
    """Top-5 of three classes is wrong if all logits are NaN."""
    probs = classification.probabilities(np.full((1, 2, 1, 3), np.nan))
    results = classification.score(probs, np.array([0, 2]), (1, 5))
    assert (results["top1"], results["top5"]) == (0.0, 0.0)


def test_non_finite_logits_do_not_change_other_images(logits, labels):
    whole = classification.probabilities(logits)
    logits[0, 5] = np.nan
    broken = classification.probabilities(logits)
    others = np.arange(N) != 5
    np.testing.assert_array_equal(broken[others], whole[others])
