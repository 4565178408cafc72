"""Tests the Wilson interval against published values and SciPy."""

import pytest
from scipy import stats

from loops.metrics import confidence_intervals


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_against_published_values(successes, trials, low, high):
    assert confidence_intervals.wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("trials", [1, 2, 7, 500, 50_000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.77, 1.0])
def test_wilson_interval_against_scipy(trials, share):
    successes = round(share * trials)
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    low, high = confidence_intervals.wilson(successes, trials)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0.0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1.0
