"""Figures of merit from logits, in numpy: the same code for every way to get logits."""

import numpy as np

from loops.scoring import intervals


def probabilities(logits):
    """Mean over models and views of the softmax.

    Args:
      logits: float32 [M, N, V, C] of M models, N images, V views.

    Returns:
      float64 [N, C].
    """
    logits = np.asarray(logits, np.float64)
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        softmax = exponentials / exponentials.sum(axis=-1, keepdims=True)
    # A net that overflowed says nothing about the image: no class gets a share.
    return np.nan_to_num(softmax.mean(axis=(0, 2)), nan=0.0)


def ranks(probs, labels):
    """How many classes come before the label: int [N].

    Of equally likely classes the lower one comes first, so that a net without an opinion does
    not score; a row of zeros (see `probabilities`) is wrong for every k.
    """
    rows = np.arange(len(labels))
    of_label = probs[rows, labels][:, None]
    before = np.arange(probs.shape[1])[None] < labels[:, None]
    found = ((probs > of_label) | ((probs == of_label) & before)).sum(axis=1)
    return np.where(probs.any(axis=1), found, np.iinfo(found.dtype).max)


def score(probs, labels, top_k=(1, 5)):
    """Accuracies with 95 % intervals, and the negative log-likelihood.

    Args:
      probs: float [N, C].
      labels: int [N].
      top_k: the ks to report.

    Returns:
      dict: top<k>, top<k>_error, top<k>_low, top<k>_high (fractions), nll (nats), num_examples.
    """
    results = {}
    rank = ranks(probs, labels)
    total = len(labels)
    for k in top_k:
        right = int((rank < k).sum())
        low, high = intervals.wilson(right, total)
        results[f"top{k}"] = right / total
        results[f"top{k}_error"] = 1.0 - right / total
        results[f"top{k}_low"], results[f"top{k}_high"] = low, high
    of_label = probs[np.arange(total), labels]
    results["nll"] = float(-np.log(np.maximum(of_label, 1e-300)).mean())
    results["num_examples"] = total
    return results
