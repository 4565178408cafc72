"""A net that is built and traced in a second, for tests of what is around it."""

import keras
import pytest

from nets import layers, registry


@pytest.fixture
def tiny_net(monkeypatch):
    """Two convolutions in place of the registered net.

    Also small enough that no ReLU's input lies within rounding error of zero: in a deep net one
    such element goes the other way on two replicas and moves weights by more than 1e-6.
    """

    def build(config):
        kit = layers.Kit(config.compute_dtype, config.sync_batch_norm)
        image = kit.image()
        x = kit.batch_norm_relu(kit.conv(image, 8, 3, "conv1", stride=2), "conv1")
        x = kit.batch_norm_relu(kit.conv(x, 16, 3, "conv2", stride=2), "conv2")
        x = kit.global_average_pool(x, "pool")
        return keras.Model(image, kit.logits(x, config.num_classes))

    monkeypatch.setattr(registry, "build", build)
