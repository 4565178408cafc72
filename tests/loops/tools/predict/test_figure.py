import numpy as np
import pytest

from loops.tools.predict import figure
from loops.tools.predict.explained_prediction import Panel

_RED = (255, 0, 0)


def count_panels_of_rows(panels):
    """Counts red panels in the middle of each row of a figure."""
    pixels = figure.draw_rows([("title", "", panels)]).pixels
    red = (pixels == _RED).all(axis=-1)
    starts = [y for y in range(1, len(red)) if red[y].any() and not red[y - 1].any()]
    return [int((np.diff(red[y + 5].astype(int)) == 1).sum()) for y in starts]


@pytest.mark.parametrize(
    ("number", "rows"),
    [(1, [1]), (5, [5]), (6, [3, 3]), (11, [4, 4, 3])],  # five of 200 px fit 1120 px
)
def test_last_panel_is_not_alone_in_its_row(number, rows):
    panel = Panel(np.full((40, 40, 3), _RED, np.uint8), "view")
    assert count_panels_of_rows([panel] * number) == rows
