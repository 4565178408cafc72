"""Losses against Keras and against values computed by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augmentation.batch_augment import Targets
from loops.optimization import losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_equals_keras(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(7, 5)).astype(np.float32) * 4
    labels = rng.integers(0, 5, 7).astype(np.int32)
    keras_loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing, reduction="none"
    )
    expected = keras_loss(np.eye(5, dtype=np.float32)[labels], logits)
    unmixed = Targets(labels, labels, np.ones(7, np.float32))
    loss = losses.cross_entropy(unmixed, tf.constant(logits), smoothing)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    partners = rng.integers(0, 5, 7).astype(np.int32)
    share = rng.uniform(size=7).astype(np.float32)
    mixture = np.eye(5)[labels] * share[:, None] + np.eye(5)[partners] * (1 - share[:, None])
    loss = losses.cross_entropy(Targets(labels, partners, share), tf.constant(logits), smoothing)
    np.testing.assert_allclose(loss, keras_loss(mixture, logits), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_equals_keras(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 5)).astype(np.float32) * 4
    share = np.array([1.0, 0.5, 0.9, 0.15], np.float32)
    targets = Targets(np.array([0, 1, 2, 3]), np.array([4, 4, 4, 4]), share)
    # Both classes of a mixed image are positive targets, unless the share is at most 0.2.
    expected_targets = np.zeros((4, 5))
    for image, label in [(0, 0), (1, 1), (1, 4), (2, 2), (3, 4)]:
        expected_targets[image, label] = 1.0
    expected_targets = expected_targets * (1 - smoothing) + smoothing / 5
    loss = losses.binary_cross_entropy(targets, tf.constant(logits), smoothing)
    expected = keras.losses.binary_crossentropy(expected_targets, logits, from_logits=True)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    x, y = logits.astype(np.float64), expected_targets
    by_hand = -(y * -np.log1p(np.exp(-x)) + (1 - y) * -np.log1p(np.exp(x))).mean(1)
    np.testing.assert_allclose(loss, by_hand, rtol=1e-5)


def test_l2_penalty_is_half_the_sum_of_squares():
    kernels = [tf.constant([[1.0, 2.0]]), tf.constant([3.0])]
    assert float(losses.l2_penalty(kernels, 0.1)) == pytest.approx(0.1 * (1 + 4 + 9) / 2)


def test_label_ranks_count_the_classes_with_higher_logits():
    logits = tf.constant([[1.0, 3.0, 2.0], [0.0, -1.0, 5.0]])
    assert losses.label_ranks(tf.constant([0, 2]), logits).numpy().tolist() == [2, 0]
