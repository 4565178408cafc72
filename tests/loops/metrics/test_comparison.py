"""Tests every metric and interval against scikit-learn, SciPy or a plain loop over images."""

import math

import numpy as np
import pytest
from scipy import optimize, special, stats
from sklearn import metrics as sklearn_metrics

from loops.metrics import calibration, classification, comparison, confidence_intervals

N, C = 307, 7


@pytest.fixture(scope="module")
def predicted():
    """Returns probabilities of an overconfident model, and labels."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (1, N, 2, C)).astype(np.float32)
    logits[0, :, 1] = logits[0, :, 0] + rng.normal(0, 1, (N, C))
    probs = classification.probabilities(logits)
    labels = np.where(rng.random(N) < 0.6, probs.argmax(1), rng.integers(0, C, N))
    return probs, labels.astype(np.int32)


def ece_by_a_loop(probs, labels, bins=15):
    """Computes the sum of Naeini et al. one image at a time."""
    order = sorted(range(len(labels)), key=lambda i: probs[i].max())
    error = 0.0
    for b in range(bins):
        in_bin = order[b * len(order) // bins : (b + 1) * len(order) // bins]
        if in_bin:
            confidence = sum(probs[i].max() for i in in_bin)
            right = sum(probs[i].argmax() == labels[i] for i in in_bin)
            error += abs(confidence - right)
    return error / len(order)


def test_brier_against_a_loop_and_scikit_learn(predicted):
    probs, labels = predicted
    expected = 0.0
    for row, label in zip(probs, labels, strict=True):
        expected += sum((p - (c == label)) ** 2 for c, p in enumerate(row)) / N
    assert comparison.evaluate_predictions(probs, labels)["brier"] == pytest.approx(
        expected, rel=1e-12
    )
    reference = sum(sklearn_metrics.brier_score_loss(labels == c, probs[:, c]) for c in range(C))
    assert expected == pytest.approx(reference, rel=1e-9)


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
    fitted = calibration.fit_temperature(probs, labels)

    def nll(log_temperature):
        softened = special.softmax(np.log(probs) / math.exp(log_temperature), axis=1)
        return sklearn_metrics.log_loss(labels, softened, labels=range(C))

    best = optimize.minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert fitted == pytest.approx(math.exp(best.x), rel=1e-4)
    assert fitted > 1.2  # because the model is overconfident


def test_temperature_is_finite_and_bounded():
    certain = np.tile([1.0, 0.0, 0.0], (6, 1))
    assert calibration.fit_temperature(certain, np.zeros(6, int)) < 0.011
    assert calibration.fit_temperature(certain, np.ones(6, int)) > 99
    assert math.isfinite(calibration.fit_temperature(np.zeros((4, 3)), np.zeros(4, int)))


def test_temperature_is_fitted_on_even_positions_and_scored_on_odd_ones(predicted):
    probs, labels = predicted
    results = comparison.evaluate_predictions(probs, labels)
    assert results["temperature"] == calibration.fit_temperature(probs[::2], labels[::2])
    softened = special.softmax(np.log(probs[1::2]) / results["temperature"], axis=1)
    odd = labels[1::2]
    assert results["ece_odd"] == pytest.approx(ece_by_a_loop(probs[1::2], odd))
    assert results["ece_calibrated"] == pytest.approx(ece_by_a_loop(softened, odd))
    expected = sklearn_metrics.log_loss(odd, softened, labels=range(C))
    assert results["nll_calibrated"] == pytest.approx(expected)
    assert results["nll_calibrated"] < results["nll_odd"]
    changed = labels.copy()
    changed[1::2] = 0  # labels at odd positions do not affect the temperature
    assert comparison.evaluate_predictions(probs, changed)["temperature"] == results["temperature"]


def test_bootstrap_interval_of_the_mean_against_a_loop(predicted):
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


def test_ece_interval_bins_each_resample(predicted):
    """Expands some of the resamples and computes their ECE by the loop."""
    probs, labels = predicted
    errors = []
    for counts in confidence_intervals.bootstrap_counts(N):
        for row in counts[:2]:
            drawn = np.repeat(np.arange(N), row.astype(int))
            errors.append(ece_by_a_loop(probs[drawn], labels[drawn]))
    low, high = calibration.expected_error_interval(probs, labels)
    errors -= np.mean(errors) - ece_by_a_loop(probs, labels)
    assert low == pytest.approx(np.quantile(errors, 0.025), abs=0.02)
    assert high == pytest.approx(np.quantile(errors, 0.975), abs=0.02)
    assert low < calibration.expected_error(probs, labels) < high


@pytest.mark.parametrize(("count", "seed"), [(16, 0), (40, 0), (40, 1)])
def test_ece_interval_is_exact(predicted, count, seed):
    """Expands all resamples and computes their ECE by the loop."""
    probs, labels = (array[:count] for array in predicted)
    errors = []
    for counts in confidence_intervals.bootstrap_counts(count, seed):
        for row in counts:
            drawn = np.repeat(np.arange(count), row.astype(int))
            errors.append(ece_by_a_loop(probs[drawn], labels[drawn]))
    interval = calibration.expected_error_interval(probs, labels, seed=seed)
    errors -= np.mean(errors) - ece_by_a_loop(probs, labels)
    assert interval == pytest.approx(np.quantile(errors, (0.025, 0.975)), abs=1e-12)


def test_ece_interval_covers_the_true_error():
    """Of a model that is 10 % too confident, and around the value of a calibrated one."""
    rng, covered = np.random.default_rng(3), 0
    for excess in [0.1] * 40 + [0.0] * 10:
        confidence = rng.uniform(0.55, 1, 400)
        right = rng.random(400) < confidence - excess
        probs = np.stack([confidence, 1 - confidence], axis=1)
        low, high = calibration.expected_error_interval(probs, np.where(right, 0, 1))
        assert 0 <= low <= calibration.expected_error(probs, np.where(right, 0, 1)) <= high
        covered += excess > 0 and low <= excess <= high
    assert covered >= 34  # expected 38, at 95 %


def test_confusion_matrix_and_per_class_accuracy_against_scikit_learn(predicted):
    probs, labels = predicted
    names = [f"class{i}" for i in range(C)]
    expected = sklearn_metrics.confusion_matrix(labels, probs.argmax(1), labels=range(C))
    np.testing.assert_array_equal(comparison.confusion_matrix(probs, labels, C), expected)
    classes = comparison.per_class_accuracy(probs, labels, names)
    for label, name in enumerate(names):
        row = {names[i]: n for i, n in enumerate(expected[label]) if n}
        assert classes[name]["predicted_as"] == row
        assert classes[name]["num_examples"] == (labels == label).sum()
        recall = sklearn_metrics.recall_score(labels, probs.argmax(1), labels=[label], average=None)
        assert classes[name]["top1"] == pytest.approx(recall[0])
    others = labels != 2
    classes = comparison.per_class_accuracy(probs[others], labels[others], names)
    assert classes["class2"] == {"num_examples": 0, "top1": None, "predicted_as": {}}


def test_real_accuracy_by_hand():
    probs = np.eye(4)[[0, 1, 2, 3, 0]]
    real = [{0}, {2, 3}, {1, 2}, frozenset(), {3}]
    results = comparison.real_accuracy(probs, real)
    assert (results["real_top1"], results["real_num_examples"]) == (0.5, 4)
    assert comparison.real_accuracy(probs, [frozenset()] * 5) == {"real_num_examples": 0}
    all_right = comparison.real_accuracy(probs, [{0, 1, 2, 3}] * 5)
    wilson = stats.binomtest(5, 5).proportion_ci(method="wilson")
    assert all_right["real_top1"] == all_right["real_top1_high"] == 1.0
    assert all_right["real_top1_low"] == pytest.approx(wilson.low)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (3, 9), (40, 25), (17, 17), (480, 520)])
def test_exact_mcnemar_against_scipy(only_a, only_b):
    a = np.repeat([True, False, True], [only_a, only_b, 30])
    b = np.repeat([False, True, True], [only_a, only_b, 30])
    results = confidence_intervals.mcnemar(a, b)
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert results["p_value"] == pytest.approx(expected, rel=1e-9)
    assert (results["only_a"], results["only_b"], results["test"]) == (only_a, only_b, "exact")
    assert results["difference"] == pytest.approx((only_a - only_b) / len(a))
    assert results["difference_low"] <= results["difference"] <= results["difference_high"]


def test_chi_squared_mcnemar_against_scipy():
    a = np.repeat([True, False], [700, 800])
    results = confidence_intervals.mcnemar(a, ~a)
    assert results["test"] == "chi-squared"
    assert results["p_value"] == pytest.approx(stats.chi2.sf(99**2 / 1500, 1))
    exact = stats.binomtest(700, 1500).pvalue
    assert results["p_value"] == pytest.approx(exact, rel=0.02)


def test_compare_models_evaluates_ensemble_members_and_center_crop():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 40)
    probabilities = []
    for _ in range(2):
        ten = special.softmax(rng.normal(0, 1, (40, 3)) + 2 * np.eye(3)[labels], axis=1)
        probabilities.append({10: ten, 1: special.softmax(rng.normal(0, 1, (40, 3)), axis=1)})
    results = comparison.compare_models(probabilities, ["a", "b"], labels, ("x", "y", "z"), (1,))
    mean = (probabilities[0][10] + probabilities[1][10]) / 2
    assert results["top1"] == (mean.argmax(1) == labels).mean()
    assert [m["model"] for m in results["members"]] == ["a", "b"]
    for one, by_views in zip(results["members"], probabilities, strict=True):
        assert one["top1"] == (by_views[10].argmax(1) == labels).mean()
        assert one["center_crop"]["top1"] == (by_views[1].argmax(1) == labels).mean()
    assert [(p["a"], p["b"]) for p in results["paired"][:2]] == [
        ("10 crops", "center crop"),
        ("a", "b"),
    ]
    assert results["paired"][2]["a"] == "ensemble"
    alone = comparison.compare_models(probabilities[:1], ["a"], labels, ("x", "y", "z"), (1,))
    assert "members" not in alone and len(alone["paired"]) == 1


def test_confident_mistakes_are_sorted_by_confidence():
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.0, 0.0]])
    mistakes = comparison.find_confident_mistakes(probs, np.array([1, 0, 0, 1]))
    assert mistakes == [
        {"position": 0, "label": 1, "predicted": 0, "probability": 0.9},
        {"position": 1, "label": 0, "predicted": 1, "probability": 0.8},
    ]


def test_single_image_can_be_evaluated():
    results = comparison.evaluate_predictions(np.array([[0.7, 0.3]]), np.array([1]), (1,))
    assert (results["top1"], results["ece"]) == (0.0, 0.7)
    # Nothing is known about the spread, and the best temperature is infinite.
    assert not results.keys() & {"temperature", "nll_low", "brier_low", "ece_low"}
    assert (results["top1_low"], results["top1_high"]) == pytest.approx((0.0, 0.7935), abs=1e-4)


def test_no_temperature_where_all_images_are_right():
    """The colder the softmax, the better, so the best temperature is 0 and the best NLL as well."""
    probs = np.tile([0.6, 0.4], (20, 1))
    assert "temperature" not in comparison.evaluate_predictions(probs, np.zeros(20, int))
    labels = np.arange(20) // 2 % 4 == 0  # 10 of 20 wrong, half of those at even positions
    assert comparison.evaluate_predictions(probs, labels.astype(int))["temperature"] < 99


def test_images_without_finite_logits_are_counted():
    logits = np.zeros((4, 2, 3), np.float32)
    logits[1, 0, 2] = np.inf
    logits[3] = np.nan
    probs = classification.mean_softmax(logits)
    assert comparison.evaluate_predictions(probs, np.zeros(4, int))["num_non_finite"] == 2


def test_images_without_a_prediction_are_wrong_in_every_figure():
    """The first class is that of the argmax of no prediction."""
    probs = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    labels = np.array([0, 0, 0, 1])
    classes = comparison.per_class_accuracy(probs, labels, ["a", "b"])
    assert classes["a"] == {"num_examples": 3, "top1": 1 / 3, "predicted_as": {"a": 1}}
    assert classes["b"] == {"num_examples": 1, "top1": 0.0, "predicted_as": {}}
    assert comparison.confusion_matrix(probs, labels, 2).tolist() == [[1, 0], [0, 0]]
    assert sum(calibration.reliability(probs, labels, bins=4)["accuracy"]) == 1
    assert calibration.expected_error(probs, labels) == 0.0


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64, 65, 130])
def test_softmax_does_not_depend_on_the_batch_size(batch_size):
    """Stored logits therefore give exactly the metrics of the direct evaluation."""
    logits = np.random.default_rng(8).normal(0, 4, (130, 10, 11)).astype(np.float32)
    whole = classification.mean_softmax(logits)
    starts = range(0, 130, batch_size)
    batches = [classification.mean_softmax(logits[i : i + batch_size]) for i in starts]
    np.testing.assert_array_equal(np.concatenate(batches), whole)
