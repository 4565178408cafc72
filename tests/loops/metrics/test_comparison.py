"""Every figure against scikit-learn, scipy, or a plain loop over images."""

import math

import numpy as np
import pytest
from scipy import optimize, special, stats
from sklearn import metrics as sklearn_metrics

from loops.metrics import calibration, classification, comparison, confidence_intervals

N, C = 307, 7


@pytest.fixture(scope="module")
def predicted():
    """Probabilities of an overconfident model, and labels."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (1, N, 2, C)).astype(np.float32)
    logits[0, :, 1] = logits[0, :, 0] + rng.normal(0, 1, (N, C))
    probs = classification.probabilities(logits)
    labels = np.where(rng.random(N) < 0.6, probs.argmax(1), rng.integers(0, C, N))
    return probs, labels.astype(np.int32)


def ece_by_a_loop(probs, labels, bins=15):
    """Naeini et al.'s sum, one image at a time."""
    rows = sorted(range(len(labels)), key=lambda i: probs[i].max())
    error = 0.0
    for b in range(bins):
        inside = rows[b * len(rows) // bins : (b + 1) * len(rows) // bins]
        if inside:
            confidence = sum(probs[i].max() for i in inside)
            right = sum(probs[i].argmax() == labels[i] for i in inside)
            error += abs(confidence - right)
    return error / len(rows)


def test_brier_against_a_loop_and_scikit_learn(predicted):
    probs, labels = predicted
    expected = 0.0
    for row, label in zip(probs, labels, strict=True):
        expected += sum((p - (c == label)) ** 2 for c, p in enumerate(row)) / N
    assert comparison.evaluate_predictions(probs, labels)["brier"] == pytest.approx(
        expected, rel=1e-12
    )
    theirs = sum(sklearn_metrics.brier_score_loss(labels == c, probs[:, c]) for c in range(C))
    assert expected == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("count", [1, 2, 14, 15, 16, 100, N])
def test_ece_against_a_loop(predicted, count):
    probs, labels = (array[:count] for array in predicted)
    expected = ece_by_a_loop(probs, labels)
    assert calibration.expected_error(probs, labels) == pytest.approx(expected, abs=1e-12)
    points = calibration.reliability(probs, labels)
    assert sum(points["num_examples"]) == count
    assert max(points["num_examples"]) - min(points["num_examples"]) <= 1


def test_ece_by_hand():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 0])
    # Bins of two: {0.6 wrong, 0.7 right} and {0.8 wrong, 0.9 right}: |0.5-0.65|/2 + |0.5-0.85|/2.
    assert calibration.expected_error(probs, labels, bins=2) == pytest.approx(0.25)


def test_temperature_against_scipy(predicted):
    probs, labels = predicted
    found = calibration.fit_temperature(probs, labels)

    def nll(log_temperature):
        softened = special.softmax(np.log(probs) / math.exp(log_temperature), axis=1)
        return sklearn_metrics.log_loss(labels, softened, labels=range(C))

    best = optimize.minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert found == pytest.approx(math.exp(best.x), rel=1e-4)
    assert found > 1.2  # the labels are noisier than the model believes


def test_temperature_of_extreme_sets():
    certain = np.tile([1.0, 0.0, 0.0], (6, 1))
    assert calibration.fit_temperature(certain, np.zeros(6, int)) < 0.011
    assert calibration.fit_temperature(certain, np.ones(6, int)) > 99
    assert math.isfinite(calibration.fit_temperature(np.zeros((4, 3)), np.zeros(4, int)))


def test_temperature_is_fitted_on_even_positions_and_scored_on_odd_ones(predicted):
    probs, labels = predicted
    found = comparison.evaluate_predictions(probs, labels)
    assert found["temperature"] == calibration.fit_temperature(probs[::2], labels[::2])
    softened = special.softmax(np.log(probs[1::2]) / found["temperature"], axis=1)
    odd = labels[1::2]
    assert found["ece_odd"] == pytest.approx(ece_by_a_loop(probs[1::2], odd))
    assert found["ece_calibrated"] == pytest.approx(ece_by_a_loop(softened, odd))
    expected = sklearn_metrics.log_loss(odd, softened, labels=range(C))
    assert found["nll_calibrated"] == pytest.approx(expected)
    assert found["nll_calibrated"] < found["nll_odd"]
    changed = labels.copy()
    changed[1::2] = 0  # what stands at odd positions has no say in the temperature
    assert comparison.evaluate_predictions(probs, changed)["temperature"] == found["temperature"]


def test_bootstrap_of_means_against_a_loop(predicted):
    probs, labels = predicted
    right = (probs.argmax(1) == labels).astype(float)
    rng = np.random.default_rng(11)
    means = [right[rng.integers(0, N, N)].mean() for _ in range(4000)]
    ((low, high),) = confidence_intervals.bootstrap_mean_intervals(right[None])
    assert low == pytest.approx(np.quantile(means, 0.025), abs=0.006)
    assert high == pytest.approx(np.quantile(means, 0.975), abs=0.006)
    wilson = confidence_intervals.wilson(int(right.sum()), N)
    assert (low, high) == pytest.approx(wilson, abs=0.01)


def test_bootstrap_counts_are_resamples():
    blocks = list(confidence_intervals.bootstrap_counts(13))
    counts = np.concatenate(blocks)
    assert counts.shape == (confidence_intervals.NUM_RESAMPLES, 13)
    assert (counts.sum(1) == 13).all() and (counts % 1 == 0).all()
    np.testing.assert_array_equal(
        counts, np.concatenate(list(confidence_intervals.bootstrap_counts(13)))
    )
    assert counts.var() == pytest.approx(12 / 13, rel=0.1)  # of a binomial (13, 1/13)


def test_bootstrap_of_ece_resamples_and_bins_anew(predicted):
    """The same draws, each resample written out and judged by the loop."""
    probs, labels = predicted
    errors = []
    for counts in confidence_intervals.bootstrap_counts(N):
        for row in counts[:2]:
            drawn = np.repeat(np.arange(N), row.astype(int))
            errors.append(ece_by_a_loop(probs[drawn], labels[drawn]))
    low, high = calibration.expected_error_interval(probs, labels)
    assert low == pytest.approx(np.quantile(errors, 0.025), abs=0.02)
    assert high == pytest.approx(np.quantile(errors, 0.975), abs=0.02)
    assert low < calibration.expected_error(probs, labels) < high


def test_each_resampled_ece_is_exact(predicted, monkeypatch):
    probs, labels = predicted
    counts = next(confidence_intervals.bootstrap_counts(N))[:3]
    expected = []
    for row in counts:
        drawn = np.repeat(np.arange(N), row.astype(int))
        expected.append(ece_by_a_loop(probs[drawn], labels[drawn]))
    monkeypatch.setattr(confidence_intervals, "bootstrap_counts", lambda *_: [counts])
    monkeypatch.setattr(confidence_intervals, "percentile_interval", list)
    found = calibration.expected_error_interval(probs, labels)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_confusion_and_classes_against_scikit_learn(predicted):
    probs, labels = predicted
    names = [f"class{i}" for i in range(C)]
    expected = sklearn_metrics.confusion_matrix(labels, probs.argmax(1), labels=range(C))
    np.testing.assert_array_equal(comparison.confusion_matrix(probs, labels, C), expected)
    found = comparison.per_class_accuracy(probs, labels, names)
    for label, name in enumerate(names):
        row = {names[i]: n for i, n in enumerate(expected[label]) if n}
        assert found[name]["predicted_as"] == row
        assert found[name]["num_examples"] == (labels == label).sum()
        recall = sklearn_metrics.recall_score(labels, probs.argmax(1), labels=[label], average=None)
        assert found[name]["top1"] == pytest.approx(recall[0])
    without = comparison.per_class_accuracy(probs[labels != 2], labels[labels != 2], names)[
        "class2"
    ]
    assert without == {"num_examples": 0, "top1": None, "predicted_as": {}}


def test_real_accuracy_by_hand():
    probs = np.eye(4)[[0, 1, 2, 3, 0]]
    real = [{0}, {2, 3}, {1, 2}, frozenset(), {3}]
    found = comparison.real_accuracy(probs, real)
    assert (found["real_top1"], found["real_num_examples"]) == (0.5, 4)
    assert comparison.real_accuracy(probs, [frozenset()] * 5) == {"real_num_examples": 0}
    everything = comparison.real_accuracy(probs, [{0, 1, 2, 3}] * 5)
    wilson = stats.binomtest(5, 5).proportion_ci(method="wilson")
    assert everything["real_top1"] == everything["real_top1_high"] == 1.0
    assert everything["real_top1_low"] == pytest.approx(wilson.low)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (3, 9), (40, 25), (17, 17), (480, 520)])
def test_mcnemar_exact_against_scipy(only_a, only_b):
    a = np.repeat([True, False, True], [only_a, only_b, 30])
    b = np.repeat([False, True, True], [only_a, only_b, 30])
    found = confidence_intervals.mcnemar(a, b)
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert found["p_value"] == pytest.approx(expected, rel=1e-9)
    assert (found["only_a"], found["only_b"], found["test"]) == (only_a, only_b, "exact")
    assert found["difference"] == pytest.approx((only_a - only_b) / len(a))
    assert found["difference_low"] <= found["difference"] <= found["difference_high"]


def test_mcnemar_of_many_images_against_scipy():
    a = np.repeat([True, False], [700, 800])
    found = confidence_intervals.mcnemar(a, ~a)
    assert found["test"] == "chi-squared"
    assert found["p_value"] == pytest.approx(stats.chi2.sf(99**2 / 1500, 1))
    exact = stats.binomtest(700, 1500).pvalue
    assert found["p_value"] == pytest.approx(exact, rel=0.02)


def test_ensemble_beside_its_members():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 40)
    members = []
    for _ in range(2):
        ten = special.softmax(rng.normal(0, 1, (40, 3)) + 2 * np.eye(3)[labels], axis=1)
        members.append({10: ten, 1: special.softmax(rng.normal(0, 1, (40, 3)), axis=1)})
    found = comparison.compare_models(members, ["a", "b"], labels, ("x", "y", "z"), (1,))
    mean = (members[0][10] + members[1][10]) / 2
    assert found["top1"] == (mean.argmax(1) == labels).mean()
    assert [m["model"] for m in found["members"]] == ["a", "b"]
    for one, member in zip(found["members"], members, strict=True):
        assert one["top1"] == (member[10].argmax(1) == labels).mean()
        assert one["center_crop"]["top1"] == (member[1].argmax(1) == labels).mean()
    assert [(p["a"], p["b"]) for p in found["paired"][:2]] == [
        ("10 crops", "centre crop"),
        ("a", "b"),
    ]
    assert found["paired"][2]["a"] == "ensemble"
    alone = comparison.compare_models(members[:1], ["a"], labels, ("x", "y", "z"), (1,))
    assert "members" not in alone and len(alone["paired"]) == 1


def test_mistakes_are_the_surest_wrong_ones():
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.0, 0.0]])
    found = comparison.find_confident_mistakes(probs, np.array([1, 0, 0, 1]))
    assert found == [
        {"position": 0, "label": 1, "predicted": 0, "probability": 0.9},
        {"position": 1, "label": 0, "predicted": 1, "probability": 0.8},
    ]


def test_one_image_can_be_judged():
    found = comparison.evaluate_predictions(np.array([[0.7, 0.3]]), np.array([1]), (1,))
    assert (found["top1"], found["ece"]) == (0.0, 0.7)
    assert "temperature" not in found


@pytest.mark.parametrize("portion", [1, 2, 3, 64, 65, 130])
def test_an_image_is_judged_alike_in_any_company(portion):
    """What makes cached logits give exactly the direct run's figures, whatever its batches."""
    logits = np.random.default_rng(8).normal(0, 4, (130, 10, 11)).astype(np.float32)
    whole = classification.mean_softmax(logits)
    parts = [classification.mean_softmax(logits[i : i + portion]) for i in range(0, 130, portion)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
