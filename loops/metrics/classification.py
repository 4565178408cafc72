"""Classification metrics from logits, in NumPy.

Direct evaluation and evaluation of stored logits share this code.
"""

from collections.abc import Sequence

import numpy as np

from loops.config.choices import METRICS
from loops.metrics import confidence_intervals

# Index of the center crop among the ten views of `crops.extract_views`.
CENTER_CROP_INDEX = 4
_IMAGES_AT_ONCE = 64  # limits the memory of the float64 copies of logits


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Returns the mean softmax over models and views.

    The result of an image does not depend on the other images, so logits may come in batches of
    any size.

    Args:
      logits: float32 [M, N, V, C] of M models, N images, V views.

    Returns:
      float64 [N, C].
    """
    return average_probabilities([mean_softmax(model_logits) for model_logits in logits])


def mean_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the mean softmax over views: float32 [N, V, C] to float64 [N, C].

    An image with a logit that is not finite gets zero for every class.
    """
    means = np.empty((logits.shape[0], logits.shape[2]))
    for start in range(0, len(logits), _IMAGES_AT_ONCE):
        batch = np.asarray(logits[start : start + _IMAGES_AT_ONCE], np.float64)
        with np.errstate(invalid="ignore"):
            exponentials = np.exp(batch - batch.max(axis=-1, keepdims=True))
            softmax = exponentials / exponentials.sum(axis=-1, keepdims=True)
        means[start : start + len(batch)] = softmax.mean(axis=1)
    # NaN comes from logits that overflowed. Zeros make the prediction wrong for every label.
    return np.nan_to_num(means, copy=False, nan=0.0)


def count_non_finite(probs: np.ndarray) -> int:
    """Returns the number of images that have no prediction, see `mean_softmax`."""
    return int((~probs.any(axis=1)).sum())


def average_probabilities(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the mean probabilities of several models.

    If the logits of one model overflowed on an image, the image gets zeros: see `mean_softmax`.

    Args:
      probabilities: float64 [N, C] of each model.

    Returns:
      float64 [N, C].
    """
    if len(probabilities) == 1:
        return probabilities[0]
    mean = np.mean(probabilities, axis=0)
    overflowed = ~np.all([model.any(axis=1) for model in probabilities], axis=0)
    mean[overflowed] = 0.0
    return mean


def label_ranks(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the number of classes that rank before the label: int [N].

    Ties go to the lower class index, so a model with constant outputs scores at chance level. A
    row of zeros (see `mean_softmax`) is wrong for every k.

    Args:
      probs: float [N, C].
      labels: int [N].
    """
    label_probs = probs[np.arange(len(labels)), labels][:, None]
    has_lower_index = np.arange(probs.shape[1])[None] < labels[:, None]
    ranks = ((probs > label_probs) | ((probs == label_probs) & has_lower_index)).sum(axis=1)
    return np.where(probs.any(axis=1), ranks, np.iinfo(ranks.dtype).max)


@METRICS(label="NLL", per_image=True, tensorboard_group="", higher_is_better=False)
def nlls(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the negative log-likelihood of each image in nats: float64 [N]."""
    return -np.log(np.maximum(probs[np.arange(len(labels)), labels], 1e-300))


@METRICS(label="Brier", per_image=True, tensorboard_group="calibration", higher_is_better=False)
def brier_scores(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the Brier score of each image, 0..2: float64 [N].

    The score is the squared distance between the probabilities and the one-hot label (Brier 1950,
    equation 2).
    """
    label_probs = probs[np.arange(len(labels)), labels]
    return (probs**2).sum(axis=1) - label_probs**2 + (1.0 - label_probs) ** 2


def score(
    probs: np.ndarray, labels: np.ndarray, top_k: Sequence[int] = (1, 5)
) -> dict[str, float | int]:
    """Returns top-k accuracies with 95 % Wilson intervals, and the negative log-likelihood.

    Args:
      probs: float [N, C].
      labels: int [N].
      top_k: the values of k to report.

    Returns:
      dict with top<k>, top<k>_error, top<k>_low, top<k>_high (fractions), nll (nats) and
      num_examples.
    """
    results = {}
    ranks = label_ranks(probs, labels)
    total = len(labels)
    for k in top_k:
        num_correct = int((ranks < k).sum())
        low, high = confidence_intervals.wilson(num_correct, total)
        results[f"top{k}"] = num_correct / total
        results[f"top{k}_error"] = 1.0 - num_correct / total
        results[f"top{k}_low"], results[f"top{k}_high"] = low, high
    results["nll"] = float(nlls(probs, labels).mean())
    results["num_examples"] = total
    return results
