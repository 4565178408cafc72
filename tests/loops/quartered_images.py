"""Images that reveal flips, rotations and swapped color channels."""

import numpy as np

# Red, green, blue and yellow, by (row, column).
QUARTERS = {(0, 0): (255, 0, 0), (0, 1): (0, 255, 0), (1, 0): (0, 0, 255), (1, 1): (255, 255, 0)}


def quarters(side):
    """Draws a quarter of each color: uint8 [side, side, 3]."""
    image = np.zeros((side, side, 3), np.uint8)
    half = side // 2
    for (row, column), color in QUARTERS.items():
        image[row * half : (row + 1) * half, column * half : (column + 1) * half] = color
    return image


def assert_quarters(cell):
    """Asserts that an image shows `quarters`, at any size."""
    side = cell.shape[0]
    for (row, column), color in QUARTERS.items():
        for offset in (0.1, 0.25, 0.4):
            pixel = cell[int(side * (row / 2 + offset)), int(side * (column / 2 + offset))]
            np.testing.assert_array_equal(pixel, color)
