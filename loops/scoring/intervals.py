"""Intervals of uncertainty."""

import math

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


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
