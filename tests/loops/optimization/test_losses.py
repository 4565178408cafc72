"""Losses against Keras and against values computed by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augmentation import batch_augment
from input_pipeline.augmentation.batch_augment import Targets
from input_pipeline.config import DataConfig
from loops.metrics import classification
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


def test_label_ranks_equal_those_of_evaluation():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 50).astype(np.int32)
    # Small integers, so that many logits are equal.
    logits = rng.integers(0, 3, (50, 6)).astype(np.float32)
    ranks = losses.label_ranks(Targets(labels, labels, np.ones(50, np.float32)), logits)
    expected = classification.label_ranks(classification.mean_softmax(logits[:, None]), labels)
    np.testing.assert_array_equal(ranks, expected)
    by_hand = losses.label_ranks(
        Targets(np.array([0, 2]), np.array([1, 1]), np.array([0.5, 0.49], np.float32)),
        tf.constant([[1.0, 3.0, 2.0], [0.0, -1.0, 5.0]]),
    )
    assert by_hand.numpy().tolist() == [2, 2]


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.1, 1.0)])
def test_a_perfect_net_has_no_error_on_mixed_images(mixup, cutmix):
    classes, images = 100, 512
    labels = np.random.default_rng(0).integers(0, classes, images).astype(np.int32)
    data = DataConfig(mixup=mixup, cutmix=cutmix, image_size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    batch = {"image": tf.zeros([images, 16, 16, 3], tf.uint8), "label": tf.constant(labels)}
    batch["sample"] = tf.range(images, dtype=tf.int64)
    _, targets = batch_augment.make_preprocess_fn(data)(batch)
    # The logits of a perfect net are the logarithms of the true shares.
    probs = np.full((images, classes), 1e-9)
    probs[np.arange(images), labels] += targets.share.numpy()
    probs[np.arange(images), targets.partner.numpy()] += 1.0 - targets.share.numpy()
    ranks = losses.label_ranks(targets, tf.constant(np.log(probs), tf.float32))
    assert np.mean(ranks.numpy() < 1) == 1.0
    assert np.mean(targets.share.numpy() < 0.5) > 0.03  # so the partner decides for some
