"""Color augmentation compared with colorsys, OpenCV and the formula of the paper."""

import colorsys

import cv2
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import datasets
from input_pipeline.augmentation import color

# Primaries, grays, black and white, ties between channels, and noise.
PIXELS = np.array(
    [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]]
    + [[0, 255, 255], [255, 0, 255], [128, 128, 128], [1, 0, 0], [0, 0, 1], [254, 255, 255]]
    + [[10, 200, 200], [200, 10, 200], [200, 200, 10], [90, 91, 90]],
    np.uint8,
)
NOISE = np.random.default_rng(0).integers(0, 256, (3 * 64 * 64 - len(PIXELS), 3)).astype(np.uint8)
IMAGES = np.concatenate([PIXELS, NOISE]).reshape(3, 64, 64, 3)
CHANGES = np.array([[0.0, 1.0, 1.0], [36.0, 1.4, 0.6], [-36.0, 0.6, 1.4]], np.float32)


def _adjust_hsv(images, changes):
    return color.adjust_hsv(tf.constant(images, tf.float32), tf.constant(changes)).numpy()


def test_adjust_hsv_with_neutral_changes_is_the_identity():
    np.testing.assert_allclose(_adjust_hsv(IMAGES, CHANGES[[0, 0, 0]]), IMAGES, atol=2e-4)


def test_adjust_hsv_equals_colorsys():
    results = _adjust_hsv(IMAGES, CHANGES)
    for image, result, (degrees, saturation, value) in zip(IMAGES, results, CHANGES, strict=True):
        for pixel, changed in zip(
            image.reshape(-1, 3)[:999], result.reshape(-1, 3)[:999], strict=True
        ):
            h, s, v = colorsys.rgb_to_hsv(*(pixel / 255.0))
            h, s, v = (h + degrees / 360.0) % 1.0, min(s * saturation, 1.0), min(v * value, 1.0)
            expected = 255.0 * np.array(colorsys.hsv_to_rgb(h, s, v))
            np.testing.assert_allclose(changed, expected, atol=1e-3)


def test_adjust_hsv_equals_opencv():
    results = _adjust_hsv(IMAGES, CHANGES)
    for image, result, (degrees, saturation, value) in zip(IMAGES, results, CHANGES, strict=True):
        hsv = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + degrees) % 360.0
        hsv[..., 1] = np.minimum(hsv[..., 1] * saturation, 1.0)
        hsv[..., 2] = np.minimum(hsv[..., 2] * value, 255.0)
        np.testing.assert_allclose(result, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), atol=0.02)


@pytest.mark.parametrize("degrees", [-120.0, -60.0, 60.0, 120.0])
def test_adjust_hsv_rotates_hue_up_to_120_degrees(degrees):
    changes = np.array([[degrees, 1.0, 1.0]] * 3, np.float32)
    for image, result in zip(IMAGES, _adjust_hsv(IMAGES, changes), strict=True):
        hsv = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + degrees) % 360.0
        np.testing.assert_allclose(result, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), atol=0.02)


def test_hsv_jitter_covers_its_range():
    factors = color.hsv_jitter(tf.constant([[0.0] * 3, [0.5] * 3, [1.0] * 3]), 36, 0.6, 1.4).numpy()
    expected = [[-36, 0.6, 0.6], [0, 1, 1], [36, 1.4, 1.4]]
    np.testing.assert_allclose(factors, expected, rtol=1e-6, atol=1e-5)


def test_to_grayscale_equals_opencv():
    images = np.random.default_rng(3).uniform(0, 255, (2, 5, 4, 3)).astype(np.float32)
    gray = color.to_grayscale(tf.constant(images)).numpy()
    for image, result in zip(images, gray, strict=True):
        luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        np.testing.assert_allclose(result, np.stack([luma] * 3, -1), rtol=1e-5)


def test_lighting_equals_the_formula_of_the_paper():
    draws = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    # As published, for pixels in 0..1.
    values = np.array([0.2175, 0.0188, 0.0045])
    vectors = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    expected = 255.0 * (vectors @ (0.1 * draws * values).T).T
    components = (datasets.IMAGENET_PCA_VALUES, datasets.IMAGENET_PCA_VECTORS)
    shift = color.lighting_shift(draws, *components, 0.1)
    np.testing.assert_allclose(shift, expected, rtol=1e-5)


def test_imagenet_pca_vectors_are_orthonormal():
    vectors = np.reshape(datasets.IMAGENET_PCA_VECTORS, (3, 3))
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=5e-4)
