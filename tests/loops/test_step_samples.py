"""The step tells the net which samples it sees: dropout does not depend on the replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from loops.train_step import TrainStep
from nets import registry
from nets.layers.kit import Kit
from tests.loops.test_train_step import BATCH, batches, make_state, random_images, settings


@pytest.fixture
def dropping_net(monkeypatch):
    """A net with dropout and stochastic depth, small enough for any test."""

    def build(config):
        kit = Kit(config.compute_dtype, dropout=0.4, stochastic_depth=0.5)
        image = kit.image()
        x = kit.begin_residual_blocks(kit.conv(image, 8, 3, "conv0", stride=2), 1)
        x = kit.add(kit.conv(kit.relu(x, "relu"), 8, 3, "conv1"), x, "block")
        x = kit.dropout(kit.global_average_pool(x, "pool"), "dropout")
        return keras.Model(image, kit.logits(x, config.num_classes))

    monkeypatch.setattr(registry, "build_model", build)


def trained(strategy, *words):
    state = make_state(strategy, *words)
    step = TrainStep(state, settings())
    step(batches(strategy, random_images(3)), tf.constant(3, tf.int64))
    return {v.path: v.numpy() for v in state.model.trainable_variables}


def test_two_replicas_drop_what_one_drops(one_device, mirrored, dropping_net):
    one, two = trained(one_device), trained(mirrored)
    for path, value in one.items():
        np.testing.assert_allclose(two[path], value, atol=1e-6, err_msg=path)


def test_the_seed_of_the_run_decides(one_device, dropping_net):
    state = make_state(one_device)
    step = TrainStep(state, settings())
    iterator = batches(one_device, random_images(2))
    step(iterator, tf.constant(2, tf.int64))
    layer = state.model.get_layer("dropout")
    assert layer.samples.numpy().tolist() == [3, BATCH]  # --seed=3, first sample of step 1
    saved = state.variables()["model"]
    assert not any("samples" in name for name in saved)
