"""Fixtures for imports: two files of weights, which no test changes, and faster nets."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors import numpy as safetensors

from nets import registry
from tests.loops.tools.weights.small_imports import CLASSES, tensors


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A file like timm's resnet18 with 7 classes, and its content."""
    path = tmp_path_factory.mktemp("published") / "resnet18.safetensors"
    content = tensors("resnet_18", CLASSES)
    safetensors.save_file(content, path)
    return path, content


@pytest.fixture
def quick_net(monkeypatch):
    """Initializes kernels with zeros, which is faster, for tests that do not need their values."""
    monkeypatch.setattr(
        keras.initializers.VarianceScaling,
        "__call__",
        lambda _, shape, dtype=None, **__: tf.zeros(shape),
    )


@pytest.fixture(scope="session")
def own_file(tmp_path_factory):
    """A `.weights.h5` as the export writes it, and its variables with random values."""
    keras.utils.set_random_seed(5)
    net = registry.build_model(registry.NetConfig(model="resnetse_18", num_classes=CLASSES))
    rng = np.random.default_rng(1)
    for variable in net.variables:
        variable.assign(rng.uniform(0.1, 0.2, variable.shape))
    path = tmp_path_factory.mktemp("own") / "a.weights.h5"
    net.save_weights(path)
    return path, {v.path: v.numpy() for v in net.variables}
