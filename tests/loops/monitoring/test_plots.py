"""What is drawn is where it should be, in its colours, and readable."""

import numpy as np
import pytest

from loops.monitoring import plots
from tests.loops.quartered_images import assert_quarters, quarters


@pytest.mark.parametrize("side", [32, 64, 128, 224, 256])
def test_images_are_right_side_up_and_in_their_colours(side):
    grid = plots.draw_image_grid(np.stack([quarters(side)] * 3), ["a", "b", "c"], columns=2)
    assert grid.dtype == np.uint8
    assert grid.shape == (2 * (128 + 18), 2 * 128, 3)
    for row, column in ((0, 0), (0, 1), (1, 0)):
        top, left = row * 146, column * 128
        assert_quarters(grid[top : top + 128, left : left + 128])
    assert (grid[146:, 128:] == 255).all()  # no fourth image


def test_images_are_placed_row_by_row():
    shades = np.arange(10, 190, 20, dtype=np.uint8)  # nine of them
    images = np.broadcast_to(shades[:, None, None, None], (9, 64, 64, 3))
    grid = plots.draw_image_grid(images, [str(n) for n in range(9)], columns=4, cell=32, caption=20)
    assert grid.shape == (3 * 52, 4 * 32, 3)
    found = [grid[n // 4 * 52 + 16, n % 4 * 32 + 16, 0] for n in range(9)]
    assert found == shades.tolist()


def test_titles_stand_below_their_images_and_stay_there():
    images = np.full((3, 64, 64, 3), 90, np.uint8)
    grid = plots.draw_image_grid(images, ["arrow", "", "a" * 60], columns=3)
    captions = grid[128:146].reshape(18, 3, 128, 3)
    dark = (captions.min(-1) < 100).sum((0, 2))
    assert dark[0] > 20 and dark[1] == 0 and dark[2] > 60
    assert (grid[:128] == 90).all()
    # Readable: the same word gives the same picture, another word another one.
    again = plots.draw_image_grid(images[:2], ["arrow", "arrov"], columns=3)[128:146]
    np.testing.assert_array_equal(again[:, :128], captions[:, 0])
    assert (again[:, :128] != again[:, 128:256]).any()


def test_as_many_titles_as_images():
    with pytest.raises(ValueError, match="zip"):
        plots.draw_image_grid(np.zeros((2, 8, 8, 3), np.uint8), ["one"])


def test_titles_of_two_lines():
    images = np.full((2, 64, 64, 3), 90, np.uint8)
    grid = plots.draw_image_grid(images, ["cat 90%\nis dog", "one"], columns=2)
    assert grid.shape == (128 + 2 * 18, 256, 3)
    dark = grid[128:].reshape(2, 18, 2, 128, 3).min(-1) < 100
    assert dark.sum((1, 3)).tolist()[0][0] > 20
    assert dark.sum((1, 3))[1].tolist()[0] > 10 and dark.sum((1, 3))[1].tolist()[1] == 0


def points_of(image, colour):
    return np.argwhere((image == np.array(colour)).all(-1))


def test_reliability_diagram_puts_points_where_they_belong():
    points = {"confidence": [0.2, 0.5], "accuracy": [0.8, 0.5], "num_examples": [5, 5]}
    drawn = plots.draw_reliability_diagram(points, side=200, margin=50)
    assert drawn.shape == (300, 300, 3)
    for x, y in ((0.2, 0.8), (0.5, 0.5)):
        assert drawn[50 + 200 - round(200 * y), 50 + round(200 * x)].tolist() == [31, 90, 180]
    gaps = points_of(drawn, (200, 60, 50))  # from the diagonal up to the first point
    assert (abs(gaps[:, 1] - 90) <= 1).all()
    assert gaps[:, 0].min() < 100 and gaps[:, 0].max() == pytest.approx(210, abs=2)


def test_confusion_matrix_of_few_and_of_many_classes():
    drawn = plots.draw_confusion_matrix(np.array([[4, 0], [1, 3]]), ["cat", "dog"])
    cell, margin = 48, 130
    at = {
        (row, column): drawn[margin + row * cell + 2, margin + column * cell + 2].tolist()
        for row in (0, 1)
        for column in (0, 1)
    }
    assert at[0, 0] == [31, 90, 180] and at[0, 1] == [255, 255, 255]
    assert at[1, 0][0] > at[1, 0][2] and at[1, 1][2] > at[1, 1][0]  # red a mistake, blue right
    assert (drawn[margin:, :margin].min(-1) < 100).sum() > 40  # names of the rows
    assert (drawn[20:margin, margin:].min(-1) < 100).sum() > 40  # and of the columns
    many = plots.draw_confusion_matrix(np.eye(1000, dtype=int), ["x"] * 1000)
    assert many.shape == (1028, 1028, 3)
    assert (
        plots.draw_confusion_matrix(np.zeros((21, 21), int), ["x"] * 21).shape[0]
        == 24 + 21 * 47 + 4
    )
