"""Tests that dropout and stochastic depth depend on sample numbers and not on replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from loops.train_step import TrainStep
from nets import registry
from nets.layers.kit import Kit
from tests.loops.small_steps import (
    BATCH,
    batches,
    make_state,
    random_images,
    settings,
    weights,
)


@pytest.fixture
def dropping_net(monkeypatch):
    """Replaces the registered net by a small one with dropout and stochastic depth."""

    def build(config, random_weights=True):
        kit = Kit(config.compute_dtype, dropout=0.4, stochastic_depth=0.5)
        image = kit.image()
        x = kit.begin_residual_blocks(kit.conv(image, 8, 3, "conv0", stride=2), 1)
        x = kit.add(kit.conv(kit.relu(x, "relu"), 8, 3, "conv1"), x, "block")
        x = kit.dropout(kit.global_average_pool(x, "pool"), "dropout")
        return keras.Model(image, kit.logits(x, config.num_classes))

    monkeypatch.setattr(registry, "build_model", build)


def train_weights(strategy, *words):
    """Trains for three steps; returns the weights."""
    state = make_state(strategy, *words)
    step = TrainStep(state, settings())
    step(batches(strategy, random_images(3)), tf.constant(3, tf.int64))
    return weights(state)


def test_dropout_is_equal_on_one_and_two_replicas(one_device, mirrored, dropping_net):
    one, two = train_weights(one_device), train_weights(mirrored)
    for path, value in one.items():
        np.testing.assert_allclose(two[path], value, atol=1e-6, err_msg=path)


def test_dropout_layer_has_seed_and_sample_number(one_device, dropping_net):
    state = make_state(one_device)
    step = TrainStep(state, settings())
    iterator = batches(one_device, random_images(2))
    step(iterator, tf.constant(2, tf.int64))
    layer = state.model.get_layer("dropout")
    assert layer.samples.numpy().tolist() == [3, BATCH, 0]  # --seed=3, first sample of step 1
    saved = state.variables()["model"]
    assert not any("samples" in name for name in saved)
