"""Whether a model is right as often as it says: calibration error, and a temperature to mend it."""

import itertools

import numpy as np

from loops.metrics import confidence_intervals

BINS = 15
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.01, 100.0


def confidences(probs):
    """Probability of the likeliest class of each image, and that class: [N] and [N]."""
    predicted = probs.argmax(axis=1)
    return probs[np.arange(len(probs)), predicted], predicted


def bin_edges(num_examples, bins=BINS):
    """Where equal-mass bins of N sorted images begin and end: int [bins + 1].

    Bins differ by one image at most; with fewer images than bins some are empty.
    """
    return np.arange(bins + 1) * num_examples // bins


def reliability(probs, labels, bins=BINS):
    """The points of a reliability diagram: images sorted by confidence, in bins of equal mass.

    Args:
      probs: float [N, C].
      labels: int [N].
      bins: how many.

    Returns:
      dict of lists, one entry for each bin that is not empty: confidence and accuracy (means)
      and num_examples.
    """
    confidence, predicted = confidences(probs)
    order = np.argsort(confidence, kind="stable")
    found = {"confidence": [], "accuracy": [], "num_examples": []}
    edges = bin_edges(len(labels), bins)
    for start, end in itertools.pairwise(edges):
        if start < end:
            rows = order[start:end]
            found["confidence"].append(float(confidence[rows].mean()))
            found["accuracy"].append(float((predicted[rows] == labels[rows]).mean()))
            found["num_examples"].append(int(end - start))
    return found


def expected_error(probs, labels, bins=BINS):
    """Expected calibration error (Naeini et al. 2015) over bins of equal mass.

    The mean over images of |accuracy - confidence| of their bin: 0..1.
    """
    points = reliability(probs, labels, bins)
    weight = np.array(points["num_examples"]) / len(labels)
    gap = np.abs(np.subtract(points["accuracy"], points["confidence"]))
    return float((weight * gap).sum())


def expected_error_interval(probs, labels, bins=BINS, seed=0):
    """95 % bootstrap interval of `expected_error`: (low, high).

    Each resample has bins of its own. In the order of confidence, where one image may stand
    several times, the sum of (right - confidence) over a bin is a difference of two cumulative
    sums. The error of a finite sample is biased upwards, and more so that of its resamples:
    a well calibrated model's value may lie below its own interval.
    """
    confidence, predicted = confidences(probs)
    order = np.argsort(confidence, kind="stable")
    gap = ((predicted == labels) - confidence)[order]
    total = len(labels)
    edges = bin_edges(total, bins)
    errors = []
    for counts in confidence_intervals.bootstrap_counts(total, seed):
        counts = counts[:, order]
        seen = np.cumsum(counts, axis=1)
        sums = np.cumsum(counts * gap, axis=1)
        for places, values in zip(seen, sums, strict=True):
            at = np.searchsorted(places, edges)  # the image in whose copies the edge lies
            upto = values[at] - (places[at] - edges) * gap[at]
            errors.append(np.abs(np.diff(upto)).sum() / total)
    return confidence_intervals.percentile_interval(errors)


def apply_temperature(probs, temperature):
    """Probabilities after a temperature: p^(1/T), normalised.

    The softmax of log(p) / T. It is applied to the mean over views and models, not before it, so
    that one number serves any ensemble (Rahaman & Thiery 2021, "pool, then calibrate").

    Args:
      probs: float [N, C].
      temperature: T > 0; above 1 softens.

    Returns:
      float64 [N, C].
    """
    return _softmax(np.log(np.maximum(probs, 1e-300)) / temperature)


def fit_temperature(probs, labels):
    """The temperature with the least negative log-likelihood (Guo et al. 2017, section 4.2).

    The likelihood is concave in 1 / T, so the root of its slope is bisected, between 0.01 and 100.

    Args:
      probs: float [N, C], N at least 1.
      labels: int [N].

    Returns:
      float.
    """
    logs = np.log(np.maximum(probs, 1e-300))
    of_label = logs[np.arange(len(labels)), labels]

    def slope(inverse):
        weights = _softmax(logs * inverse)
        return float(((weights * logs).sum(axis=1) - of_label).mean())

    low, high = np.log(1.0 / _MAX_TEMPERATURE), np.log(1.0 / _MIN_TEMPERATURE)
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(np.exp(middle)) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def _softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
