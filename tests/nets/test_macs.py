"""Multiply-adds against counts added up by hand and those that others publish."""

import math

import keras
import pytest
import tensorflow as tf

from nets import registry
from nets.macs import count_multiply_adds
from tests.nets.test_registry import BLOCKS

# In units of 10^9, as torchvision lists them with its weights.
TORCHVISION = {
    "resnet_18": 1.814,
    "resnet_34": 3.664,
    "resnet_50": 4.089,
    "resnet_101": 7.801,
    "resnet_152": 11.514,
}


@pytest.fixture(autouse=True)
def quick_net(monkeypatch):
    """No random numbers for weights that are never looked at."""
    monkeypatch.setattr(
        keras.initializers.VarianceScaling, "__call__", lambda _, shape, **__: tf.zeros(shape)
    )


def counted(model, size):
    input_size = size if registry.has_fixed_input_size(model) else 0
    net = registry.build_model(
        registry.NetConfig(model=model, num_classes=1000, input_size=input_size)
    )
    return count_multiply_adds(net, size)


def residual(family, layer_count, size):
    """By hand: k * k * in * out weights act at each of the output's positions."""
    expansion = 4 if layer_count >= 50 else 1
    side = math.ceil(size / 2)
    total = side**2 * 7 * 7 * 3 * 64
    side, channels = math.ceil(side / 2), 64
    for stage, blocks in enumerate(BLOCKS[layer_count]):
        width, out = 64 * 2**stage, 64 * 2**stage * expansion
        before, side = side, math.ceil(side / (2 if stage else 1))
        for block in range(blocks):
            if expansion == 4:
                first = before if block == 0 else side  # the stride is on the 3 x 3
                total += first**2 * channels * width
                total += side**2 * (9 * width * width + width * out)
            else:
                total += side**2 * 9 * (channels * width + width * out)
            if block == 0 and channels != out:
                total += side**2 * channels * out
            if family == "resnetse":
                total += 2 * out * (out // 16)
            channels = out
    return total + channels * 1000


def test_alexnet_and_zfnet_by_hand():
    dense = 6 * 6 * 256 * 4096 + 4096 * 4096 + 4096 * 1000
    convolutions = (
        55**2 * 11 * 11 * 3 * 96
        + 27**2 * 25 * 48 * 256
        + 13**2 * 9 * (256 * 384 + 192 * 384 + 192 * 256)
    )
    assert counted("alexnet", 224) == counted("alexnet_bn", 224) == convolutions + dense
    convolutions = (
        110**2 * 7 * 7 * 3 * 96
        + 26**2 * 25 * 96 * 256
        + 13**2 * 9 * (256 * 384 + 384 * 384 + 384 * 256)
    )
    assert counted("zfnet", 224) == counted("zfnet_bn", 224) == convolutions + dense


@pytest.mark.parametrize(
    ("model", "size"),
    [
        *(("resnet_18", size) for size in (224, 75)),
        *(("resnet_50", size) for size in (224, 160, 299)),
        ("resnetv2_34", 224),
        ("resnetv2_50", 224),
        ("resnetse_50", 96),
    ],
)
def test_residual_nets_by_hand(model, size):
    family, layers = model.split("_")
    assert counted(model, size) == residual(family, int(layers), size)


@pytest.mark.parametrize("model", TORCHVISION)
def test_counts_by_hand_are_those_of_torchvision(model):
    family, layers = model.split("_")
    assert residual(family, int(layers), 224) / 1e9 == pytest.approx(TORCHVISION[model], abs=6e-4)


@pytest.mark.faults
@pytest.mark.parametrize(
    "model", [m for m in registry.names() if not registry.has_fixed_input_size(m)]
)
def test_every_residual_net(model):
    family, layers = model.split("_")
    assert counted(model, 224) == residual(family, int(layers), 224)
