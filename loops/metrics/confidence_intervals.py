"""Confidence intervals of metrics, and a paired test of the difference between two models."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
NUM_RESAMPLES = 1000
_RESAMPLES_AT_ONCE = 50


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Returns the 95 % interval of a proportion as fractions (low, high).

    This is the score interval without continuity correction (Wilson 1927).
    """
    p = successes / trials
    z2 = _Z * _Z / trials
    middle = (p + z2 / 2) / (1 + z2)
    half = _Z / (1 + z2) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_counts(num_examples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yields how often each image is drawn in bootstrap resamples of the split.

    The draws depend only on the two arguments, so all models of a split use the same resamples.

    Args:
      num_examples: N.
      seed: seed of the draws.

    Yields:
      float64 [R, N] with row sums N. All blocks together have NUM_RESAMPLES rows.
    """
    rng = np.random.default_rng(seed)
    for _ in range(0, NUM_RESAMPLES, _RESAMPLES_AT_ONCE):
        drawn = rng.integers(0, num_examples, (_RESAMPLES_AT_ONCE, num_examples))
        drawn += num_examples * np.arange(_RESAMPLES_AT_ONCE)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size)
        yield counts.reshape(drawn.shape).astype(np.float64)


def percentile_interval(resampled: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Returns (low, high) of the middle 95 % of a resampled statistic (Efron 1979)."""
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), float(high)


def bootstrap_mean_intervals(values: np.ndarray, seed: int = 0) -> list[tuple[float, float]]:
    """Returns the 95 % bootstrap interval of the mean of each row.

    Args:
      values: float [K, N], K metrics of each of N images.
      seed: seed of the draws.

    Returns:
      list of K intervals (low, high).
    """
    values = np.asarray(values, np.float64)
    total = values.shape[1]
    means = [values @ counts.T / total for counts in bootstrap_counts(total, seed)]
    return [percentile_interval(row) for row in np.concatenate(means, axis=1)]


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> dict[str, float | int | str]:
    """Tests whether two models differ in accuracy on the same images (McNemar 1947).

    The test is exact if at most 1,000 images are right for one model only: the p-value is twice
    the smaller tail of a binomial distribution with probability 1/2. Otherwise it is the
    chi-squared test with Edwards's continuity correction.

    Args:
      right_a: bool [N], whether model a is right on each image.
      right_b: bool [N], the same of model b.

    Returns:
      dict:
        only_a, only_b: numbers of images that only this model gets right.
        difference: top-1 of a minus top-1 of b.
        difference_low, difference_high: its 95 % bootstrap interval.
        p_value.
        test: "exact" or "chi-squared".
    """
    right_a, right_b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    only_a = int((right_a & ~right_b).sum())
    only_b = int((right_b & ~right_a).sum())
    num_discordant = only_a + only_b
    if num_discordant <= 1000:
        test = "exact"
        tail = sum(math.comb(num_discordant, k) for k in range(min(only_a, only_b) + 1))
        p_value = min(1.0, float(2 * tail / 2**num_discordant))
    else:
        test = "chi-squared"
        statistic = max(0, abs(only_a - only_b) - 1) ** 2 / num_discordant
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
