"""Figures of merit from logits, in numpy: the same code for every way to get logits."""

import numpy as np

from loops.metrics import confidence_intervals

# Where the upper left, ..., centre of `crops.extract_views` stand: the centre crop of ten.
CENTER_CROP_INDEX = 4
_IMAGES_AT_ONCE = 64  # float64 copies of this many images' logits are made at a time


def probabilities(logits):
    """Mean over models and views of the softmax.

    What an image gets does not depend on the images beside it, so logits may come in any
    portions.

    Args:
      logits: float32 [M, N, V, C] of M models, N images, V views.

    Returns:
      float64 [N, C].
    """
    return average_probabilities([mean_softmax(of_model) for of_model in logits])


def mean_softmax(logits):
    """Mean over views of the softmax: float32 [N, V, C] to float64 [N, C]."""
    found = np.empty((logits.shape[0], logits.shape[2]))
    for start in range(0, len(logits), _IMAGES_AT_ONCE):
        some = np.asarray(logits[start : start + _IMAGES_AT_ONCE], np.float64)
        with np.errstate(invalid="ignore"):
            exponentials = np.exp(some - some.max(axis=-1, keepdims=True))
            softmax = exponentials / exponentials.sum(axis=-1, keepdims=True)
        found[start : start + len(some)] = softmax.mean(axis=1)
    # A net that overflowed says nothing about the image: no class gets a share.
    return np.nan_to_num(found, copy=False, nan=0.0)


def average_probabilities(members):
    """Mean over models of their probabilities; an image about which one says nothing gets none.

    Args:
      members: list of float64 [N, C].

    Returns:
      float64 [N, C].
    """
    if len(members) == 1:
        return members[0]
    mean = np.mean(members, axis=0)
    silent = ~np.all([member.any(axis=1) for member in members], axis=0)
    mean[silent] = 0.0
    return mean


def label_ranks(probs, labels):
    """How many classes come before the label: int [N].

    Of equally likely classes the lower one comes first, so that a net without an opinion does
    not score; a row of zeros (see `probabilities`) is wrong for every k.
    """
    rows = np.arange(len(labels))
    of_label = probs[rows, labels][:, None]
    before = np.arange(probs.shape[1])[None] < labels[:, None]
    found = ((probs > of_label) | ((probs == of_label) & before)).sum(axis=1)
    return np.where(probs.any(axis=1), found, np.iinfo(found.dtype).max)


def nlls(probs, labels):
    """Negative log-likelihood of each image in nats: float64 [N]."""
    return -np.log(np.maximum(probs[np.arange(len(labels)), labels], 1e-300))


def brier_scores(probs, labels):
    """Brier score of each image, 0..2: float64 [N].

    The sum over classes of the squared difference between the probability and what came to
    pass (Brier 1950, equation 2).
    """
    of_label = probs[np.arange(len(labels)), labels]
    return (probs**2).sum(axis=1) - of_label**2 + (1.0 - of_label) ** 2


def score(probs, labels, top_k=(1, 5)):
    """Accuracies with 95 % intervals (Wilson's), and the negative log-likelihood.

    Args:
      probs: float [N, C].
      labels: int [N].
      top_k: the ks to report.

    Returns:
      dict: top<k>, top<k>_error, top<k>_low, top<k>_high (fractions), nll (nats), num_examples.
    """
    results = {}
    rank = label_ranks(probs, labels)
    total = len(labels)
    for k in top_k:
        right = int((rank < k).sum())
        low, high = confidence_intervals.wilson(right, total)
        results[f"top{k}"] = right / total
        results[f"top{k}_error"] = 1.0 - right / total
        results[f"top{k}_low"], results[f"top{k}_high"] = low, high
    results["nll"] = float(nlls(probs, labels).mean())
    results["num_examples"] = total
    return results
