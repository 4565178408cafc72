"""The fused optimizer against Keras's, and which variables decay."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from loops.step import optimizers
from loops.step.config import OptimizationConfig
from nets import registry


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_equals_keras(nesterov):
    rng = np.random.default_rng(1)
    start = rng.normal(size=(5, 3)).astype(np.float32)
    ours, theirs = keras.Variable(start), keras.Variable(start)
    fused = optimizers.SGD(0.1, momentum=0.9, nesterov=nesterov)
    plain = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=nesterov)
    for _ in range(5):
        gradient = tf.constant(rng.normal(size=start.shape).astype(np.float32))
        fused.apply([gradient], [ours])
        plain.apply([gradient], [theirs])
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6, atol=1e-6)
    assert np.abs(ours.numpy() - start).max() > 0.1


def test_only_kernels_decay():
    model = registry.build(registry.NetConfig(model="resnetse_18", num_classes=10))
    decayed = optimizers.decayed_kernels(model)
    # 20 convolutions (17 of 3 x 3 and 7 x 7, 3 shortcuts), 8 gates of two dense layers, the head.
    assert len(decayed) == 20 + 16 + 1
    assert all(len(kernel.shape) in (2, 4) for kernel in decayed)
    undecayed = {v.name for v in model.trainable_variables} - {k.name for k in decayed}
    assert undecayed == {"gamma", "beta", "bias"}


def test_every_optimizer_is_built_with_its_variables():
    model = registry.build(registry.NetConfig(model="resnet_18", num_classes=10))
    optimizer = optimizers.build(OptimizationConfig(), model)
    assert len(optimizer.momentums) == len(model.trainable_variables)
    paths = [variable.path for variable in optimizer.variables]
    assert len(set(paths)) == len(paths)
