"""Tests seam carving against an exhaustive search over all seams and against plain loops."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augmentation import crops
from loops.tools.predict import seam_carving


def plain_energy(image):
    """Computes |dI/dx| + |dI/dy| over the channels pixel by pixel, with replicated borders."""
    image = image.astype(int)
    height, width, _ = image.shape
    energies = np.zeros((height, width), int)
    for y, x in itertools.product(range(height), range(width)):
        left, right = image[y, max(x - 1, 0)], image[y, min(x + 1, width - 1)]
        above, below = image[max(y - 1, 0), x], image[min(y + 1, height - 1), x]
        energies[y, x] = np.abs(right - left).sum() + np.abs(below - above).sum()
    return energies


def all_seams(height, width):
    """Yields every connected path from top to bottom, from left to right."""
    for first in range(width):
        for turns in itertools.product((-1, 0, 1), repeat=height - 1):
            seam = np.cumsum((first, *turns))
            if seam.min() >= 0 and seam.max() < width:
                yield seam


def searched_seam(energies):
    """Finds the leftmost of the cheapest seams by trying all seams."""
    rows = np.arange(energies.shape[0])
    return min(all_seams(*energies.shape), key=lambda seam: energies[rows, seam].sum())


def noise(height, width, levels=256, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, levels, (height, width, 3)) * (255 // (levels - 1))).astype(np.uint8)


def planes(image):
    return np.moveaxis(image, -1, 0).astype(np.int16)


@pytest.mark.parametrize("shape", [(7, 5), (1, 4), (4, 1), (2, 2)])
def test_energy_against_plain_loop(shape):
    image = noise(*shape)
    np.testing.assert_array_equal(seam_carving.energy(planes(image)), plain_energy(image))


def test_largest_energy_does_not_overflow():
    image = np.indices((6, 6)).sum(axis=0)[..., None] // 2 % 2 * np.full(3, 255, int)
    energies = seam_carving.energy(planes(image.astype(np.uint8)))
    np.testing.assert_array_equal(energies, plain_energy(image))
    assert energies.max() == 6 * 255


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("levels", [2, 256])  # two levels give many ties
def test_each_removed_seam_is_the_cheapest(seed, levels):
    image = noise(5, 6, levels, seed)
    kept = seam_carving.find_kept_columns(image, 2)
    left, columns = image, np.tile(np.arange(6), (5, 1))
    for _ in range(4):
        seam = searched_seam(plain_energy(left))
        left = np.stack([np.delete(row, x, axis=0) for row, x in zip(left, seam, strict=True)])
        columns = np.stack([np.delete(row, x) for row, x in zip(columns, seam, strict=True)])
    np.testing.assert_array_equal(kept, columns)


def test_carving_rows_equals_carving_columns_of_the_transposed_image():
    image = noise(9, 6)
    wide = seam_carving.carve(image.swapaxes(0, 1), 6)
    np.testing.assert_array_equal(seam_carving.carve(image, 6), wide.swapaxes(0, 1))


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (5, 5), (1, 3)])
def test_carved_image_contains_the_pixels_that_are_not_removed(shape):
    image = noise(*shape)
    size = min(shape)
    mask = seam_carving.find_removed_pixels(image, size)
    assert mask.sum() == image.shape[0] * image.shape[1] - size * size
    carved = seam_carving.carve(image, size)
    lines = [image[y][~mask[y]] for y in range(shape[0])]
    if shape[0] > shape[1]:
        columns = [image[:, x][~mask[:, x]] for x in range(shape[1])]
        lines = np.stack(columns, axis=1)
    np.testing.assert_array_equal(carved, np.stack(list(lines)))


def test_seams_avoid_textured_regions():
    image = np.full((32, 60, 3), 90, np.uint8)
    image[6:26, 38:58] = noise(20, 20)
    mask = seam_carving.find_removed_pixels(image, 32)
    assert not mask[6:26, 38:58].any()
    assert mask.sum(axis=1).tolist() == [28] * 32


@pytest.mark.parametrize(
    ("shape", "resized"),
    [
        ((375, 500), (224, 299)),  # 75 seams
        ((500, 375), (299, 224)),
        ((100, 100), (224, 224)),
        ((10, 1000), (224, 672)),  # limited to three times the side
        ((1, 1), (224, 224)),
    ],
)
def test_resize_short_side(shape, resized):
    image = tf.constant(noise(*shape))
    assert tuple(seam_carving.resize_short_side(image, 224).shape[:2]) == resized


def test_carve_to_square_in_a_dataset_equals_eager():
    image = noise(40, 61)
    expected = seam_carving.carve(crops.resize(image, 32, 49, "bicubic").numpy(), 32)
    eager = seam_carving.carve_to_square(tf.constant(image), 32, "bicubic")
    dataset = tf.data.Dataset.from_tensors(image)
    dataset = dataset.map(lambda pixels: seam_carving.carve_to_square(pixels, 32, "bicubic"))
    assert dataset.element_spec.shape == (32, 32, 3)
    np.testing.assert_array_equal(eager, expected)
    np.testing.assert_array_equal(next(iter(dataset)), expected)
