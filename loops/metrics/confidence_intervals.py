"""Intervals of uncertainty, and the test of a difference between two models."""

import math

import numpy as np

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
NUM_RESAMPLES = 1000
_RESAMPLES_AT_ONCE = 50


def wilson(successes, trials):
    """95 % interval of a proportion (Wilson 1927, score interval without continuity correction).

    Returns:
      (low, high), fractions.
    """
    p = successes / trials
    z2 = _Z * _Z / trials
    middle = (p + z2 / 2) / (1 + z2)
    half = _Z / (1 + z2) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_counts(num_examples, seed=0):
    """Yields how often each image is drawn in resamples of the split, with replacement.

    The draws depend on the two arguments alone, so two models of one split are resampled alike.

    Args:
      num_examples: N.
      seed: of the draws.

    Yields:
      float64 [R, N], RESAMPLES rows in all, each of sum N.
    """
    rng = np.random.default_rng(seed)
    for _ in range(0, NUM_RESAMPLES, _RESAMPLES_AT_ONCE):
        drawn = rng.integers(0, num_examples, (_RESAMPLES_AT_ONCE, num_examples))
        drawn += num_examples * np.arange(_RESAMPLES_AT_ONCE)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size)
        yield counts.reshape(drawn.shape).astype(np.float64)


def percentile_interval(resampled):
    """The middle 95 % of a statistic's resampled values (Efron 1979): (low, high), floats."""
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), float(high)


def bootstrap_mean_intervals(values, seed=0):
    """95 % bootstrap interval of the mean of each row.

    Args:
      values: float [K, N], K figures of each of N images.
      seed: of the draws.

    Returns:
      list of K (low, high).
    """
    values = np.asarray(values, np.float64)
    total = values.shape[1]
    means = [values @ counts.T / total for counts in bootstrap_counts(total, seed)]
    return [percentile_interval(row) for row in np.concatenate(means, axis=1)]


def mcnemar(right_a, right_b):
    """Whether two models of the same images differ in accuracy (McNemar 1947).

    Exact where up to 1,000 images are judged differently: twice the smaller tail of the binomial
    distribution of those at one half. Above, chi-squared with Edwards's continuity correction.

    Args:
      right_a, right_b: bool [N], whether each model is right about each image.

    Returns:
      dict: only_a, only_b (images that one alone gets right), difference (top-1 of a minus that
      of b), difference_low, difference_high (95 % bootstrap), p_value, test ("exact" or
      "chi-squared").
    """
    right_a, right_b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    only_a = int((right_a & ~right_b).sum())
    only_b = int((right_b & ~right_a).sum())
    differ = only_a + only_b
    if differ <= 1000:
        test = "exact"
        tail = sum(math.comb(differ, k) for k in range(min(only_a, only_b) + 1))
        p_value = min(1.0, float(2 * tail / 2**differ))
    else:
        test = "chi-squared"
        statistic = max(0, abs(only_a - only_b) - 1) ** 2 / differ
        p_value = math.erfc(math.sqrt(statistic / 2))  # one degree of freedom
    differences = right_a.astype(np.float64) - right_b
    ((low, high),) = bootstrap_mean_intervals(differences[None])
    return {
        "only_a": only_a,
        "only_b": only_b,
        "difference": (only_a - only_b) / len(right_a),
        "difference_low": low,
        "difference_high": high,
        "p_value": p_value,
        "test": test,
    }
