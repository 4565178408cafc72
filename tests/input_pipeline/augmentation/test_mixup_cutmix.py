"""Mixup, CutMix and random erasing: pairs, boxes and shares."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from input_pipeline.augmentation import mixup_cutmix, random_erasing


def test_swap_within_pairs_maps_g_to_g_xor_1():
    values = np.arange(8 * 3).reshape(8, 3)
    expected = values[np.arange(8) ^ 1]
    np.testing.assert_array_equal(mixup_cutmix.swap_within_pairs(tf.constant(values)), expected)
    np.testing.assert_array_equal(mixup_cutmix.swap_within_pairs(tf.range(6)), np.arange(6) ^ 1)


def test_mix_pairs():
    images = np.random.default_rng(0).normal(size=(4, 5, 5, 3)).astype(np.float32)
    weights = np.array([0.25, 0.25, 1.0, 1.0], np.float32).reshape(4, 1, 1, 1)
    expected = (1 - weights) * images + weights * images[[1, 0, 3, 2]]
    np.testing.assert_allclose(
        mixup_cutmix.mix_pairs(tf.constant(images), weights), expected, atol=1e-6
    )


def _boxes(share, centers, size):
    corners, clipped_share = mixup_cutmix.cutmix_boxes(
        tf.constant(share), tf.constant(centers), size
    )
    masks = mixup_cutmix.boxes_to_masks(corners, size)
    return corners.numpy(), clipped_share.numpy(), masks.numpy()


@pytest.mark.parametrize(
    ("share", "center", "corners"),
    [
        (0.75, (0.5, 0.5), (8, 24, 8, 24)),  # half of each side
        (0.75, (0.0, 0.99), (0, 8, 23, 32)),  # clipped at two borders
        (1.0, (0.3, 0.3), (9, 9, 9, 9)),
        (0.0, (0.5, 0.5), (0, 32, 0, 32)),
        (0.999, (0.5, 0.5), (16, 16, 16, 16)),  # less than two pixels: empty
    ],
)
def test_cutmix_boxes_equal_boxes_computed_by_hand(share, center, corners):
    boxes, clipped_share, inside = _boxes(np.float32([share]), np.float32([center]), 32)
    assert tuple(boxes[0]) == corners
    expected = np.zeros((32, 32), bool)
    expected[corners[0] : corners[1], corners[2] : corners[3]] = True
    np.testing.assert_array_equal(inside[0], expected)
    assert clipped_share[0] == pytest.approx(1 - expected.mean())


def test_cutmix_share_equals_the_fraction_of_pixels():
    rng = np.random.default_rng(0)
    share = rng.uniform(size=500).astype(np.float32)
    _, clipped_share, inside = _boxes(share, rng.uniform(size=(500, 2)).astype(np.float32), 37)
    np.testing.assert_allclose(clipped_share, 1 - inside.mean((1, 2)), atol=1e-6)
    assert np.all(clipped_share >= share - 1e-6)  # clipping only shrinks a box
    assert clipped_share.min() < 0.3 and clipped_share.max() > 0.95


def _erased_boxes(number, size):
    draws = np.random.default_rng(1).uniform(size=(number, 5)).astype(np.float32)
    return random_erasing.boxes(tf.constant(draws), size, 0.25, 0.02, 1 / 3, 1 / 0.3).numpy()


def test_erased_boxes_have_the_stated_distribution():
    corners = _erased_boxes(20_000, 224).astype(float)
    top, bottom, left, right = corners.T
    assert corners.min() == 0 and corners.max() == 224
    erased = bottom > top
    assert np.all((right > left) == erased)
    assert erased.mean() == pytest.approx(0.25, abs=0.012)
    heights, widths = (bottom - top)[erased], (right - left)[erased]
    whole = (heights < 224) & (widths < 224)  # not clipped
    assert whole.mean() > 0.95
    share = (heights * widths / 224**2)[whole]
    assert share.min() > 0.018 and share.max() < 0.34
    assert stats.kstest(share[share < 0.25], stats.uniform(0.02, 0.23).cdf).pvalue > 1e-4
    aspect = np.log(widths / heights)[whole]
    assert abs(aspect.mean()) < 0.05 and np.abs(aspect).max() < np.log(1 / 0.3) + 0.1
    room = 224 - heights
    position = (top[erased] + 0.5) / (room + 1)
    assert stats.kstest(position[room > 20], "uniform").pvalue > 1e-4


def test_erase_sets_boxes_to_the_mean():
    images = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype(np.float32)
    corners = np.array([[1, 4, 2, 8], [0, 0, 0, 0]], np.float32)
    expected = images.copy()
    expected[0, 1:4, 2:8] = 0
    np.testing.assert_array_equal(random_erasing.erase(tf.constant(images), corners), expected)
