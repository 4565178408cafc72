"""Tests of integer arithmetic."""

import pytest

from input_pipeline.arithmetic import ceil_div


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(0, 4, 0), (1, 4, 1), (4, 4, 1), (5, 4, 2), (7, 1, 7), (2**60 + 1, 2, 2**59 + 1)],
)
def test_ceil_div_rounds_up(a, b, expected):
    assert ceil_div(a, b) == expected
