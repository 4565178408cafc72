"""A net of two convolutions that trains fast, for fixtures of any scope."""

import contextlib

import keras
import pytest

from nets import registry
from nets.layers.kit import Kit


def build(config, random_weights=True):
    """Builds two convolutions. Replaces `registry.build_model`."""
    kit = Kit(config.compute_dtype, config.sync_batch_norm)
    image = kit.image()
    x = kit.batch_norm_relu(kit.conv(image, 8, 3, "conv1", stride=2), "conv1")
    x = kit.batch_norm_relu(kit.conv(x, 16, 3, "conv2", stride=2), "conv2")
    x = kit.global_average_pool(x, "pool")
    return keras.Model(image, kit.logits(x, config.num_classes))


@contextlib.contextmanager
def two_convolutions():
    """Replaces every registered net by this one inside the `with` block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "build_model", build)
        yield
