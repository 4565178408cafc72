"""Metrics of `--metrics` and `--best`: functions of all predictions, or of those of one image.

Each becomes a row of the table, a number in JSON with a 95 % bootstrap interval, and a curve in
TensorBoard. This holds for training, for evaluations of checkpoints and of stored logits, and for
ensembles.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.user_code import Entry, display_name, function_names
from loops.config.choices import METRICS, MetricFacts
from loops.metrics import confidence_intervals

# The decorators: `metric(probs, labels)` returns a number, `per_image(probs, labels)` float [N],
# whose mean is the metric. Probabilities are float64 [N, C], labels int [N].
metric = METRICS
per_image = functools.partial(METRICS, per_image=True)

# Metrics that every evaluation has.
STANDARD = ("nll", "brier", "ece")
# Numbers of a bootstrap: about a minute.
_MAX_RESAMPLED_NUMBERS = 10**10


def parse(text: str) -> tuple[str, ...]:
    """Returns the names in a value of `--metrics`, without the standard ones.

    Raises:
      UsageError: two functions have the same name, or the name of an accuracy.
    """
    names = dict.fromkeys(name for name in text.split(",") if name and name not in STANDARD)
    keys = [function_names(name) for name in names]
    for key in keys:
        if keys.count(key) > 1 or key in STANDARD or key.startswith("top"):
            raise UsageError(f"--metrics: another metric is called {key}; rename the function")
    return tuple(names)


def iter_shown(results: Mapping) -> Iterable[tuple[str, MetricFacts]]:
    """Yields the key and the facts of each metric in the results, except accuracies."""
    for name in (*STANDARD, *results.get("metrics", ())):
        if function_names(name) in results:
            yield function_names(name), METRICS.get(name).facts


def compute(name: str, probs: np.ndarray, labels: np.ndarray) -> float:
    """Returns the value of a metric."""
    entry = METRICS.get(name)
    value = _call(name, entry, probs, labels)
    return float(value.mean() if entry.facts.per_image else value)


def evaluate(names: Sequence[str], probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the value of each metric by the name of its function, and its bootstrap interval.

    A value that is not finite is left out with a warning. An empty interval is left out, too.
    """
    results = {}
    for name in names:
        entry, key = METRICS.get(name), function_names(name)
        values = _call(name, entry, probs, labels)
        if entry.facts.per_image:
            value = float(values.mean())
            ((low, high),) = confidence_intervals.bootstrap_mean_intervals(values[None])
        else:
            value = float(values)
            low, high = _bootstrap(functools.partial(_call, name, entry), probs, labels)
        if not math.isfinite(value):
            logging.warning("the metric %s is %s: it is left out", display_name(name), value)
            continue
        results[key] = value
        results |= {f"{key}_low": low, f"{key}_high": high} if low < high else {}
    return results


def _bootstrap(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], probs: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    """Returns the bootstrap interval of a function of all predictions; fewer resamples if large."""
    most = max(100, _MAX_RESAMPLED_NUMBERS // probs.size)
    images = np.arange(len(labels))
    values = []
    for counts in confidence_intervals.bootstrap_counts(len(labels)):
        for row in counts[: most - len(values)]:
            drawn = np.repeat(images, row.astype(np.int64))
            values.append(function(probs[drawn], labels[drawn]))
        if len(values) >= most:
            break
    return confidence_intervals.percentile_interval(np.array(values, np.float64))


def _call(
    name: str, entry: Entry[MetricFacts], probs: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Calls the function of a metric and checks what it returns."""
    values = np.asarray(entry.function(probs, labels))
    shape = labels.shape if entry.facts.per_image else ()
    if values.shape != shape or values.dtype.kind not in "biuf":
        wanted = f"a number for each of {len(labels)} images" if shape else "one number"
        raise UsageError(
            f"{display_name(name)}: the metric returned {values.dtype} {list(values.shape)}, and"
            f" must return {wanted}"
        )
    return values


def _count_classes(
    probs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the numbers of right predictions, predictions and labels of each class.

    An image without a prediction, see `classification.mean_softmax`, is predicted as no class.
    """
    num_classes = probs.shape[1]
    predicted = np.where(probs.any(axis=1), probs.argmax(axis=1), num_classes)

    def count(classes: np.ndarray) -> np.ndarray:
        return np.bincount(classes, minlength=num_classes + 1)[:num_classes]

    return count(labels[predicted == labels]), count(predicted), count(labels)


def _macro_average(numerator: np.ndarray, denominator: np.ndarray, present: np.ndarray) -> float:
    """Returns the mean quotient over the present classes, where 0 / 0 is 0."""
    return float((numerator / np.maximum(denominator, 1))[present].mean())


@metric(label="macro precision", template="{:.2%}")
def macro_precision(probs: np.ndarray, labels: np.ndarray) -> float:
    """Computes the mean precision over the classes that are a label or a prediction."""
    right, predicted, true = _count_classes(probs, labels)
    return _macro_average(right, predicted, predicted + true > 0)


@metric(label="macro recall", template="{:.2%}")
def macro_recall(probs: np.ndarray, labels: np.ndarray) -> float:
    """Computes the mean recall over the classes that are a label or a prediction."""
    right, predicted, true = _count_classes(probs, labels)
    return _macro_average(right, true, predicted + true > 0)


@metric(label="macro F1", template="{:.2%}")
def macro_f1(probs: np.ndarray, labels: np.ndarray) -> float:
    """Computes the mean F1 score over the classes that are a label or a prediction."""
    right, predicted, true = _count_classes(probs, labels)
    return _macro_average(2 * right, predicted + true, predicted + true > 0)


@metric(label="balanced accuracy", template="{:.2%}")
def balanced_accuracy(probs: np.ndarray, labels: np.ndarray) -> float:
    """Computes the mean recall over the classes that have images."""
    right, _, true = _count_classes(probs, labels)
    return _macro_average(right, true, true > 0)
