"""Everything that is said about predictions: of one model, of several, and of their difference."""

import itertools

import numpy as np

from loops.metrics import calibration, classification, confidence_intervals


def evaluate_predictions(probs, labels, top_k=(1, 5), real=None):
    """All figures of one predictor, with 95 % bootstrap intervals.

    Args:
      probs: float64 [N, C].
      labels: int [N].
      top_k: the ks to report.
      real: for each image the set of labels that ImageNet-ReaL accepts, or None.

    Returns:
      dict of numbers: top<k>, top<k>_error (fractions), nll (nats), brier (0..2), ece (0..1, see
      `calibration`), each but the error with _low and _high; top<k>_wilson_low and _high, which
      also stand in where every image is right, or none; num_examples; and those of
      `evaluate_temperature_scaling`
      and `real_accuracy`.
    """
    rank = classification.label_ranks(probs, labels)
    columns = {f"top{k}": rank < k for k in top_k}
    columns |= {
        "nll": classification.nlls(probs, labels),
        "brier": classification.brier_scores(probs, labels),
    }
    bounds = confidence_intervals.bootstrap_mean_intervals(np.stack(list(columns.values())))
    results = {}
    for (name, values), (low, high) in zip(columns.items(), bounds, strict=True):
        results[name] = float(values.mean())
        if name.startswith("top"):
            results[f"{name}_error"] = 1.0 - results[name]
            wilson = confidence_intervals.wilson(int(values.sum()), len(labels))
            results[f"{name}_wilson_low"], results[f"{name}_wilson_high"] = wilson
            low, high = _replace_empty_interval(low, high, wilson)
        results[f"{name}_low"], results[f"{name}_high"] = low, high
    results["ece"] = calibration.expected_error(probs, labels)
    low, high = calibration.expected_error_interval(probs, labels)
    results |= {"ece_low": low, "ece_high": high, "num_examples": len(labels)}
    results |= evaluate_temperature_scaling(probs, labels)
    return results | (real_accuracy(probs, real) if real is not None else {})


def _replace_empty_interval(low, high, wilson):
    """A bootstrap interval, or Wilson's where all are right or wrong, as then every resample is."""
    return wilson if low == high else (low, high)


def evaluate_temperature_scaling(probs, labels):
    """A temperature fitted on the images at even positions, and what it does for the others.

    Returns:
      dict: temperature; nll_odd, ece_odd (before) and nll_calibrated, ece_calibrated (after), of
      the odd positions. Empty where there is one image.
    """
    if len(labels) < 2:
        return {}
    temperature = calibration.fit_temperature(probs[::2], labels[::2])
    before, labels = probs[1::2], labels[1::2]
    after = calibration.apply_temperature(before, temperature)
    return {
        "temperature": temperature,
        "nll_odd": float(classification.nlls(before, labels).mean()),
        "ece_odd": calibration.expected_error(before, labels),
        "nll_calibrated": float(classification.nlls(after, labels).mean()),
        "ece_calibrated": calibration.expected_error(after, labels),
    }


def real_accuracy(probs, real):
    """Top-1 by the reassessed labels (Beyer et al. 2020, "Are we done with ImageNet?").

    An image counts where it has any label; it is right where the prediction is one of them.

    Args:
      probs: float [N, C].
      real: N sets of labels.

    Returns:
      dict: real_top1, real_top1_low, real_top1_high, real_num_examples.
    """
    predicted = probs.argmax(axis=1)
    spoken = probs.any(axis=1)
    pairs = zip(predicted, spoken, real, strict=True)
    right = np.array([said and int(p) in accepted for p, said, accepted in pairs if accepted])
    if not len(right):
        return {"real_num_examples": 0}
    ((low, high),) = confidence_intervals.bootstrap_mean_intervals(right[None])
    wilson = confidence_intervals.wilson(int(right.sum()), len(right))
    low, high = _replace_empty_interval(low, high, wilson)
    return {
        "real_top1": float(right.mean()),
        "real_top1_low": low,
        "real_top1_high": high,
        "real_num_examples": len(right),
    }


def per_class_accuracy(probs, labels, class_names):
    """Accuracy of each class, and what its images were taken for: the confusion matrix by rows.

    Returns:
      dict from class name to num_examples, top1 (None where there is no image), and predicted_as,
      the number of images by predicted class, the most frequent first.
    """
    matrix = confusion_matrix(probs, labels, len(class_names))
    found = {}
    for label, row in enumerate(matrix):
        total = int(row.sum())
        order = [i for i in np.argsort(-row, kind="stable") if row[i]]
        found[class_names[label]] = {
            "num_examples": total,
            "top1": row[label] / total if total else None,
            "predicted_as": {class_names[i]: int(row[i]) for i in order},
        }
    return found


def confusion_matrix(probs, labels, num_classes):
    """Confusion matrix: int64 [C, C], images by true class (rows) and predicted one."""
    pairs = np.asarray(labels, np.int64) * num_classes + probs.argmax(axis=1)
    counts = np.bincount(pairs, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes)


def find_confident_mistakes(probs, labels, most=32):
    """The wrong predictions that the model is surest of, the surest first.

    Returns:
      list of dicts: position (in the split), label, predicted (class numbers), probability.
    """
    confidence, predicted = calibration.confidences(probs)
    wrong = np.flatnonzero((predicted != labels) & probs.any(axis=1))
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    return [
        {
            "position": int(i),
            "label": int(labels[i]),
            "predicted": int(predicted[i]),
            "probability": float(confidence[i]),
        }
        for i in order
    ]


def compare_models(members, names, labels, class_names, top_k=(1, 5), real=None):
    """Judges several models, their ensemble, and ten crops against the centre.

    Args:
      members: for each model a dict from number of views to probabilities float64 [N, C]; all
        have the same keys: what is judged, and 1 for the centre crop if that is another.
      names: what each model is called.
      labels: int [N].
      class_names: C strings.
      top_k: the ks to report.
      real: see `evaluate_predictions`.

    Returns:
      dict: the figures of `evaluate_predictions` for the ensemble at the most views,
      `per_class_accuracy`, `find_confident_mistakes`,
      `reliability` (see `calibration`), and where there is something to compare: `center_crop`
      (figures), `members` (figures of each model and its name), and `paired`, a list of McNemar
      tests (see `intervals.mcnemar`) of `a` and `b`.
    """
    most = max(members[0])
    ensembles = {
        views: classification.average_probabilities([m[views] for m in members])
        for views in members[0]
    }

    def right(probs):
        return classification.label_ranks(probs, labels) < 1

    results = evaluate_predictions(ensembles[most], labels, top_k, real)
    results["reliability"] = calibration.reliability(ensembles[most], labels)
    results["mistakes"] = find_confident_mistakes(ensembles[most], labels)
    results["per_class"] = per_class_accuracy(ensembles[most], labels, class_names)
    paired = []
    if most > 1 and 1 in ensembles:
        results["center_crop"] = evaluate_predictions(ensembles[1], labels, top_k, real)
        pair = {"a": f"{most} crops", "b": "centre crop"}
        paired.append(
            pair | confidence_intervals.mcnemar(right(ensembles[most]), right(ensembles[1]))
        )
    if len(members) > 1:
        judged = [{"model": n} for n in names]
        for found, member in zip(judged, members, strict=True):
            found |= evaluate_predictions(member[most], labels, top_k, real)
            if "center_crop" in results:
                found["center_crop"] = evaluate_predictions(member[1], labels, top_k, real)
        results["members"] = judged
        hits = [right(member[most]) for member in members]
        for a, b in itertools.combinations(range(len(members)), 2):
            pair = {"a": names[a], "b": names[b]}
            paired.append(pair | confidence_intervals.mcnemar(hits[a], hits[b]))
        best = int(np.argmax([hit.sum() for hit in hits]))
        pair = {"a": "ensemble", "b": names[best]}
        paired.append(pair | confidence_intervals.mcnemar(right(ensembles[most]), hits[best]))
    return results | ({"paired": paired} if paired else {})
