"""Positions and colors of grids, diagrams and matrices, and readable text."""

import numpy as np
import pytest

from loops.monitoring import plots
from tests.loops.quartered_images import assert_quarters, quarters


@pytest.mark.parametrize("side", [32, 64, 128, 224, 256])
def test_image_grid_keeps_orientation_and_colors(side):
    grid = plots.draw_image_grid(np.stack([quarters(side)] * 3), ["a", "b", "c"], columns=2)
    assert grid.dtype == np.uint8
    assert grid.shape == (2 * (128 + 18), 2 * 128, 3)
    for row, column in ((0, 0), (0, 1), (1, 0)):
        top, left = row * 146, column * 128
        assert_quarters(grid[top : top + 128, left : left + 128])
    assert (grid[146:, 128:] == 255).all()  # no fourth image


def test_image_grid_is_row_major():
    shades = np.arange(10, 190, 20, dtype=np.uint8)  # nine of them
    images = np.broadcast_to(shades[:, None, None, None], (9, 64, 64, 3))
    grid = plots.draw_image_grid(images, [str(n) for n in range(9)], columns=4, cell=32, caption=20)
    assert grid.shape == (3 * 52, 4 * 32, 3)
    drawn = [grid[n // 4 * 52 + 16, n % 4 * 32 + 16, 0] for n in range(9)]
    assert drawn == shades.tolist()


def test_titles_are_below_their_images_and_truncated():
    images = np.full((3, 64, 64, 3), 90, np.uint8)
    grid = plots.draw_image_grid(images, ["arrow", "", "a" * 60], columns=3)
    captions = grid[128:146].reshape(18, 3, 128, 3)
    dark = (captions.min(-1) < 100).sum((0, 2))
    assert dark[0] > 20 and dark[1] == 0 and dark[2] > 60
    assert (grid[:128] == 90).all()
    # Readable: equal words look equal and different words look different.
    again = plots.draw_image_grid(images[:2], ["arrow", "arrov"], columns=3)[128:146]
    np.testing.assert_array_equal(again[:, :128], captions[:, 0])
    assert (again[:, :128] != again[:, 128:256]).any()


def test_number_of_titles_must_match():
    with pytest.raises(ValueError, match="zip"):
        plots.draw_image_grid(np.zeros((2, 8, 8, 3), np.uint8), ["one"])


def test_two_line_titles():
    images = np.full((2, 64, 64, 3), 90, np.uint8)
    grid = plots.draw_image_grid(images, ["cat 90%\nis dog", "one"], columns=2)
    assert grid.shape == (128 + 2 * 18, 256, 3)
    dark = grid[128:].reshape(2, 18, 2, 128, 3).min(-1) < 100
    assert dark.sum((1, 3)).tolist()[0][0] > 20
    assert dark.sum((1, 3))[1].tolist()[0] > 10 and dark.sum((1, 3))[1].tolist()[1] == 0


def find_pixels(image, color):
    return np.argwhere((image == np.array(color)).all(-1))


def test_reliability_diagram():
    points = {"confidence": [0.2, 0.5], "accuracy": [0.8, 0.5], "num_examples": [5, 5]}
    drawn = plots.draw_reliability_diagram(points, side=200, margin=50)
    assert drawn.shape == (300, 300, 3)
    for x, y in ((0.2, 0.8), (0.5, 0.5)):
        assert drawn[50 + 200 - round(200 * y), 50 + round(200 * x)].tolist() == [31, 90, 180]
    gaps = find_pixels(drawn, (200, 60, 50))  # from the diagonal up to the first point
    assert (abs(gaps[:, 1] - 90) <= 1).all()
    assert gaps[:, 0].min() < 100 and gaps[:, 0].max() == pytest.approx(210, abs=2)


def test_confusion_matrix_of_few_and_many_classes():
    drawn = plots.draw_confusion_matrix(np.array([[4, 0], [1, 3]]), ["cat", "dog"])
    cell, margin = 48, 130
    pixels = {
        (row, column): drawn[margin + row * cell + 2, margin + column * cell + 2].tolist()
        for row in (0, 1)
        for column in (0, 1)
    }
    assert pixels[0, 0] == [31, 90, 180] and pixels[0, 1] == [255, 255, 255]
    assert pixels[1, 0][0] > pixels[1, 0][2]  # red: a mistake
    assert pixels[1, 1][2] > pixels[1, 1][0]  # blue: correct
    assert (drawn[margin:, :margin].min(-1) < 100).sum() > 40  # row names
    assert (drawn[20:margin, margin:].min(-1) < 100).sum() > 40  # column names
    many = plots.draw_confusion_matrix(np.eye(1000, dtype=int), ["x"] * 1000)
    assert many.shape == (1028, 1028, 3)
    assert (
        plots.draw_confusion_matrix(np.zeros((21, 21), int), ["x"] * 21).shape[0]
        == 24 + 21 * 47 + 4
    )


def test_filters_are_scaled_by_their_largest_weight():
    """17 filters fill a row of 16 and one cell of the next. A weight of 0 is gray."""
    kernel = np.zeros((2, 3, 3, 17), np.float32)
    kernel[1, 2, 0, 1] = -0.02  # the second filter has no red in its last pixel
    kernel[0, 0, 1, 16] = 5.0  # the last one has green in its first pixel
    image = plots.draw_filters(kernel, columns=16, zoom=2)
    assert image.shape == (2 * 2 * (2 + 1), 2 * 16 * (3 + 1), 3) and image.dtype == np.uint8
    cell = image[::2, ::2]  # one pixel for each weight
    assert cell[0, 0].tolist() == [128, 128, 128]
    assert cell[1, 4 + 2].tolist() == [0, 128, 128]
    assert cell[3, 0].tolist() == [128, 255, 128]
    assert (cell[:, 3] == 255).all() and (cell[2] == 255).all() and (cell[3:, 4:] == 255).all()


def test_curves_end_where_their_last_points_are():
    curves = {"training": [(0, 2.0), (10, 1.0)], "validation": [(5, 0.5)]}
    image = plots.draw_curves(curves, "loss", width=100, height=100, margin=50)
    assert image.shape == (200, 200, 3)
    # The axes end at step 10 and at 2.0, so step 5 is in the middle.
    blue, red = ((image == color).all(axis=-1) for color in ((31, 90, 180), (200, 60, 50)))
    assert blue[52, 52] and blue[75, 100] and not blue[60, 100] and not blue[140, 100]
    assert red[125, 100] and not red[60:120].any()
    plots.draw_curves({"training": [], "validation": []}, "loss")  # a run that has just begun
