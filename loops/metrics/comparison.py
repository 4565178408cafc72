"""Metrics of one model or of several, and paired tests between them."""

import itertools
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from loops.metrics import calibration, classification, confidence_intervals, metrics


def evaluate_predictions(
    probs: np.ndarray,
    labels: np.ndarray,
    top_k: Sequence[int] = (1, 5),
    real: Sequence[Set[int]] | None = None,
    more: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns all metrics of one model or ensemble, with 95 % bootstrap intervals.

    Args:
      probs: float64 [N, C].
      labels: int [N].
      top_k: the values of k to report.
      real: the labels that ImageNet-ReaL accepts for each image.
      more: names of more metrics, see `metrics.parse`.

    Returns:
      dict of numbers:
        top<k>, top<k>_error: fractions.
        nll: nats.
        brier: 0..2.
        ece: 0..1, see `calibration.expected_error`.
        <metric>_low, <metric>_high: intervals of all of these except the errors. A nll, brier or
          ece whose interval is empty, as that of one image, has none.
        top<k>_wilson_low, top<k>_wilson_high: Wilson intervals. They are also the interval where
          the bootstrap interval is empty because all images are right, or all wrong.
        num_examples: N.
        num_non_finite: the images whose logits are not finite. They count as wrong.
        The results of `metrics.evaluate`, `evaluate_temperature_scaling` and `real_accuracy`.
        metrics: `more`, if there are any.
    """
    ranks = classification.label_ranks(probs, labels)
    by_image = {f"top{k}": ranks < k for k in top_k}
    by_image |= {
        "nll": classification.nlls(probs, labels),
        "brier": classification.brier_scores(probs, labels),
    }
    intervals = confidence_intervals.bootstrap_mean_intervals(np.stack(list(by_image.values())))
    results: dict[str, Any] = {}
    for (name, values), (low, high) in zip(by_image.items(), intervals, strict=True):
        results[name] = float(values.mean())
        if name.startswith("top"):
            results[f"{name}_error"] = 1.0 - results[name]
            wilson = confidence_intervals.wilson(int(values.sum()), len(labels))
            results[f"{name}_wilson_low"], results[f"{name}_wilson_high"] = wilson
            low, high = _replace_empty_interval((low, high), wilson)
        if low < high or name.startswith("top"):
            results[f"{name}_low"], results[f"{name}_high"] = low, high
    results["ece"] = calibration.expected_error(probs, labels)
    low, high = calibration.expected_error_interval(probs, labels)
    results |= {"ece_low": low, "ece_high": high} if low < high else {}
    if more:
        results |= {**metrics.evaluate(more, probs, labels), "metrics": [*more]}
    results["num_examples"] = len(labels)
    results["num_non_finite"] = classification.count_non_finite(probs)
    results |= evaluate_temperature_scaling(probs, labels)
    return results | (real_accuracy(probs, real) if real is not None else {})


def _replace_empty_interval(
    bootstrap: tuple[float, float], wilson: tuple[float, float]
) -> tuple[float, float]:
    """Returns the Wilson interval if the bootstrap interval is empty, else the latter.

    It is empty if all images are right, or all wrong, because all resamples are then equal.
    """
    low, high = bootstrap
    return wilson if low == high else bootstrap


def evaluate_temperature_scaling(probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Fits a temperature on the images at even positions and evaluates it on the others.

    Returns:
      dict with temperature, and of the odd positions nll_odd, ece_odd (before scaling),
      nll_calibrated and ece_calibrated (after scaling). Empty if there is only one image, or if
      no temperature is best: where all images are right, the colder the better.
    """
    if len(labels) < 2:
        return {}
    temperature = calibration.fit_temperature(probs[::2], labels[::2])
    if not calibration.is_determined(temperature):
        return {}
    before, labels = probs[1::2], labels[1::2]
    after = calibration.apply_temperature(before, temperature)
    return {
        "temperature": temperature,
        "nll_odd": float(classification.nlls(before, labels).mean()),
        "ece_odd": calibration.expected_error(before, labels),
        "nll_calibrated": float(classification.nlls(after, labels).mean()),
        "ece_calibrated": calibration.expected_error(after, labels),
    }


def real_accuracy(probs: np.ndarray, real: Sequence[Set[int]]) -> dict[str, float | int]:
    """Returns top-1 on the reassessed labels (Beyer et al. 2020, "Are we done with ImageNet?").

    Images without an accepted label are left out. A prediction is right if it is one of the
    accepted labels.

    Args:
      probs: float [N, C].
      real: the accepted labels of each image.

    Returns:
      dict with real_top1, real_top1_low, real_top1_high and real_num_examples.
    """
    predicted = probs.argmax(axis=1)
    has_prediction = np.asarray(probs.any(axis=1))  # see `classification.mean_softmax`
    images = zip(predicted, has_prediction, real, strict=True)
    right = np.array([valid and int(p) in accepted for p, valid, accepted in images if accepted])
    if not len(right):
        return {"real_num_examples": 0}
    (interval,) = confidence_intervals.bootstrap_mean_intervals(right[None])
    wilson = confidence_intervals.wilson(int(right.sum()), len(right))
    low, high = _replace_empty_interval(interval, wilson)
    return {
        "real_top1": float(right.mean()),
        "real_top1_low": low,
        "real_top1_high": high,
        "real_num_examples": len(right),
    }


def per_class_accuracy(
    probs: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Returns the accuracy of each class and its row of the confusion matrix.

    Returns:
      dict from class name to num_examples, top1 (None for a class without images) and
      predicted_as: the number of images by predicted class, the most frequent class first.
    """
    matrix = confusion_matrix(probs, labels, len(class_names))
    totals = np.bincount(labels, minlength=len(class_names)).tolist()
    classes = {}
    for label, (row, total) in enumerate(zip(matrix, totals, strict=True)):
        order = [i for i in np.argsort(-row, kind="stable") if row[i]]
        classes[class_names[label]] = {
            "num_examples": total,
            "top1": row[label] / total if total else None,
            "predicted_as": {class_names[i]: int(row[i]) for i in order},
        }
    return classes


def confusion_matrix(probs: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the number of images by true class (rows) and predicted class: int64 [C, C].

    Images without a prediction are left out.
    """
    _, predicted = calibration.confidences(probs)
    pairs = (np.asarray(labels, np.int64) * num_classes + predicted)[predicted >= 0]
    counts = np.bincount(pairs, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes)


def find_confident_mistakes(
    probs: np.ndarray, labels: np.ndarray, max_mistakes: int = 32
) -> list[dict[str, float | int]]:
    """Returns the wrong predictions with the highest confidence, in descending order.

    Returns:
      list of dicts with position (in the split), label, predicted (class numbers) and
      probability.
    """
    confidence, predicted = calibration.confidences(probs)
    wrong = np.flatnonzero((predicted != labels) & (predicted >= 0))
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:max_mistakes]
    return [
        {
            "position": int(i),
            "label": int(labels[i]),
            "predicted": int(predicted[i]),
            "probability": float(confidence[i]),
        }
        for i in order
    ]


def compare_models(
    probabilities: Sequence[Mapping[int, np.ndarray]],
    names: Sequence[str],
    labels: np.ndarray,
    class_names: Sequence[str],
    top_k: Sequence[int] = (1, 5),
    real: Sequence[Set[int]] | None = None,
    more: Sequence[str] = (),
) -> dict[str, Any]:
    """Evaluates several models and their ensemble, and compares ten crops with the center crop.

    Args:
      probabilities: float64 [N, C] of each model by number of views. All models have the same
        keys: the number of views to evaluate, and 1 for the center crop.
      names: name of each model.
      labels: int [N].
      class_names: C names.
      top_k: the values of k to report.
      real, more: see `evaluate_predictions`.

    Returns:
      dict:
        The metrics of `evaluate_predictions` for the ensemble with the most views.
        per_class, mistakes, reliability: see `per_class_accuracy`, `find_confident_mistakes` and
          `calibration.reliability`.
        center_crop: metrics of the center crop, if there are more views.
        members: metrics and name of each model, if there are several.
        paired: list of McNemar tests of predictors `a` and `b`, see `confidence_intervals.mcnemar`.
          Missing if there is only one predictor.
    """
    num_views = max(probabilities[0])
    ensembles = {
        views: classification.average_probabilities([by_views[views] for by_views in probabilities])
        for views in probabilities[0]
    }

    def is_right(probs: np.ndarray) -> np.ndarray:
        return classification.label_ranks(probs, labels) < 1

    results: dict[str, Any] = evaluate_predictions(ensembles[num_views], labels, top_k, real, more)
    results["reliability"] = calibration.reliability(ensembles[num_views], labels)
    results["mistakes"] = find_confident_mistakes(ensembles[num_views], labels)
    results["per_class"] = per_class_accuracy(ensembles[num_views], labels, class_names)
    pair: dict[str, float | int | str]
    paired = []
    if num_views > 1 and 1 in ensembles:
        results["center_crop"] = evaluate_predictions(ensembles[1], labels, top_k, real, more)
        pair = {"a": f"{num_views} crops", "b": "center crop"}
        test = confidence_intervals.mcnemar(is_right(ensembles[num_views]), is_right(ensembles[1]))
        paired.append(pair | test)
    if len(probabilities) > 1:
        model_results: list[dict[str, Any]] = [{"model": name} for name in names]
        for model_result, by_views in zip(model_results, probabilities, strict=True):
            model_result |= evaluate_predictions(by_views[num_views], labels, top_k, real, more)
            if "center_crop" in results:
                center = evaluate_predictions(by_views[1], labels, top_k, real, more)
                model_result["center_crop"] = center
        results["members"] = model_results
        right = [is_right(by_views[num_views]) for by_views in probabilities]
        for a, b in itertools.combinations(range(len(probabilities)), 2):
            pair = {"a": names[a], "b": names[b]}
            paired.append(pair | confidence_intervals.mcnemar(right[a], right[b]))
        best = int(np.argmax([r.sum() for r in right]))
        pair = {"a": "ensemble", "b": names[best]}
        test = confidence_intervals.mcnemar(is_right(ensembles[num_views]), right[best])
        paired.append(pair | test)
    return results | ({"paired": paired} if paired else {})
