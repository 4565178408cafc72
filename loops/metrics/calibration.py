"""Calibration: reliability diagram, expected calibration error (ECE) and temperature scaling."""

import itertools

import numpy as np

from loops.config.choices import METRICS
from loops.metrics import confidence_intervals

BINS = 15
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.01, 100.0


def confidences(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the probability of the top-1 class of each image, and that class: [N] and [N].

    The class of an image without a prediction is -1, see `classification.mean_softmax`.
    """
    predicted = probs.argmax(axis=1)
    confidence = probs[np.arange(len(probs)), predicted]
    return confidence, np.where(probs.any(axis=1), predicted, -1)


def bin_edges(num_examples: int, bins: int = BINS) -> np.ndarray:
    """Returns the edges of equal-mass bins of N sorted images: int [bins + 1].

    Bin sizes differ by at most one image. With fewer images than bins, some bins are empty.
    """
    return np.arange(bins + 1) * num_examples // bins


def reliability(
    probs: np.ndarray, labels: np.ndarray, bins: int = BINS
) -> dict[str, list[float] | list[int]]:
    """Returns the points of a reliability diagram.

    Images are sorted by confidence and divided into bins of equal mass.

    Args:
      probs: float [N, C].
      labels: int [N].
      bins: number of bins.

    Returns:
      dict of lists with one entry for each non-empty bin: confidence and accuracy (means) and
      num_examples.
    """
    confidence, predicted = confidences(probs)
    order = np.argsort(confidence, kind="stable")
    points = {"confidence": [], "accuracy": [], "num_examples": []}
    edges = bin_edges(len(labels), bins)
    for start, end in itertools.pairwise(edges):
        if start < end:
            indices = order[start:end]
            points["confidence"].append(float(confidence[indices].mean()))
            points["accuracy"].append(float((predicted[indices] == labels[indices]).mean()))
            points["num_examples"].append(int(end - start))
    return points


@METRICS(label="ECE", template="{:.2%}", tensorboard_group="calibration", higher_is_better=False)
def expected_error(probs: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Returns the expected calibration error (Naeini et al. 2015) over equal-mass bins, 0..1.

    It is the mean over images of |accuracy - confidence| of their bin.
    """
    points = reliability(probs, labels, bins)
    weight = np.array(points["num_examples"]) / len(labels)
    gap = np.abs(np.subtract(points["accuracy"], points["confidence"]))
    return float((weight * gap).sum())


def expected_error_interval(
    probs: np.ndarray, labels: np.ndarray, bins: int = BINS, seed: int = 0
) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of `expected_error`: (low, high).

    Each resample is binned again. Its images are sorted by confidence, with repeated images next
    to each other. The sum of (right - confidence) over a bin is then a difference of two
    cumulative sums.

    Resampling adds noise, which a mean of absolute values counts as error. The interval is
    therefore the percentile interval minus this bias: the mean of the resamples minus the value.
    """
    confidence, predicted = confidences(probs)
    order = np.argsort(confidence, kind="stable")
    gap = ((predicted == labels) - confidence)[order]
    total = len(labels)
    edges = bin_edges(total, bins)
    errors = []
    for counts in confidence_intervals.bootstrap_counts(total, seed):
        counts = counts[:, order]
        cumulative_counts = np.cumsum(counts, axis=1)
        cumulative_gaps = np.cumsum(counts * gap, axis=1)
        for ends, sums in zip(cumulative_counts, cumulative_gaps, strict=True):
            index = np.searchsorted(ends, edges)  # the image whose copies contain the edge
            sums_at_edges = sums[index] - (ends[index] - edges) * gap[index]
            errors.append(np.abs(np.diff(sums_at_edges)).sum() / total)
    bias = np.mean(errors) - expected_error(probs, labels, bins)
    low, high = confidence_intervals.percentile_interval(errors - bias)
    return max(0.0, low), min(1.0, high)


def apply_temperature(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Returns probabilities after temperature scaling: softmax(log(p) / T).

    It is applied after averaging over views and models, so that one temperature fits any ensemble
    (Rahaman & Thiery 2021, "pool, then calibrate").

    Args:
      probs: float [N, C].
      temperature: T > 0. Values above 1 soften the probabilities.

    Returns:
      float64 [N, C].
    """
    return _softmax(np.log(np.maximum(probs, 1e-300)) / temperature)


def fit_temperature(probs: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature with the least negative log-likelihood (Guo et al. 2017, 4.2).

    The log-likelihood is concave in 1 / T, so bisection finds the root of its slope. The result
    is between 0.01 and 100.

    Args:
      probs: float [N, C], N at least 1.
      labels: int [N].
    """
    log_probs = np.log(np.maximum(probs, 1e-300))
    label_log_probs = log_probs[np.arange(len(labels)), labels]

    def slope(inverse_temperature: float) -> float:
        weights = _softmax(log_probs * inverse_temperature)
        return float(((weights * log_probs).sum(axis=1) - label_log_probs).mean())

    low, high = np.log(1.0 / _MAX_TEMPERATURE), np.log(1.0 / _MIN_TEMPERATURE)
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(np.exp(middle)) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def is_determined(temperature: float) -> bool:
    """Returns whether a result of `fit_temperature` is an optimum, and not an end of its range."""
    return 1.001 * _MIN_TEMPERATURE < temperature < _MAX_TEMPERATURE / 1.001


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
