"""Images that show at once whether they were flipped, turned or recoloured."""

import numpy as np

# Red, green, blue and yellow quarters: a flip, a turn or BGR shows at once.
QUARTERS = {(0, 0): (255, 0, 0), (0, 1): (0, 255, 0), (1, 0): (0, 0, 255), (1, 1): (255, 255, 0)}


def quarters(side):
    image = np.zeros((side, side, 3), np.uint8)
    half = side // 2
    for (row, column), colour in QUARTERS.items():
        image[row * half : (row + 1) * half, column * half : (column + 1) * half] = colour
    return image


def assert_quarters(cell):
    side = cell.shape[0]
    for (row, column), colour in QUARTERS.items():
        for at in (0.1, 0.25, 0.4):
            found = cell[int(side * (row / 2 + at)), int(side * (column / 2 + at))]
            np.testing.assert_array_equal(found, colour)
