"""Multiply-adds against counts computed by hand and published counts."""

import math

import keras
import pytest
import tensorflow as tf

from nets import registry
from nets.macs import count_multiply_adds
from tests.nets.test_registry import BLOCKS, split_name

# Published with torchvision's weights, in units of 10^9.
TORCHVISION = {
    "resnet_18": 1.814,
    "resnet_34": 3.664,
    "resnet_50": 4.089,
    "resnet_101": 7.801,
    "resnet_152": 11.514,
}


@pytest.fixture(autouse=True)
def zero_weights(monkeypatch):
    """Initializes weights with zeros, because random numbers take time and no test needs them."""
    monkeypatch.setattr(
        keras.initializers.VarianceScaling, "__call__", lambda _, shape, **__: tf.zeros(shape)
    )


def count(model, size):
    input_size = size if registry.has_fixed_input_size(model) else 0
    net = registry.build_model(
        registry.NetConfig(model=model, num_classes=1000, input_size=input_size)
    )
    return count_multiply_adds(net, size)


def residual_multiply_adds(family, layer_count, size):
    """Computes by hand: k * k * in * out weights, applied at each output position."""
    expansion = 4 if layer_count >= 50 else 1
    side = math.ceil(size / 2)
    total = side**2 * 7 * 7 * 3 * 64
    if family == "resnetd":
        total = side**2 * (27 * 32 + 9 * 32 * 32 + 9 * 32 * 64)
    side, channels = math.ceil(side / 2), 64
    for stage, blocks in enumerate(BLOCKS[layer_count]):
        width, out = 64 * 2**stage, 64 * 2**stage * expansion
        input_side, side = side, math.ceil(side / (2 if stage else 1))
        for block in range(blocks):
            if expansion == 4:
                conv1_side = input_side if block == 0 else side  # the stride is on the 3 x 3
                total += conv1_side**2 * channels * width
                total += side**2 * (9 * width * width + width * out)
            else:
                total += side**2 * 9 * (channels * width + width * out)
            if block == 0 and channels != out:
                total += side**2 * channels * out
            if family == "resnetse":
                total += 2 * out * (out // 16)
            channels = out
    return total + channels * 1000


def test_multiply_adds_of_alexnet_and_zfnet():
    dense = 6 * 6 * 256 * 4096 + 4096 * 4096 + 4096 * 1000
    convolutions = (
        55**2 * 11 * 11 * 3 * 96
        + 27**2 * 25 * 48 * 256
        + 13**2 * 9 * (256 * 384 + 192 * 384 + 192 * 256)
    )
    assert count("alexnet", 224) == count("alexnet_bn", 224) == convolutions + dense
    convolutions = (
        55**2 * 11 * 11 * 3 * 64
        + 27**2 * 25 * 64 * 192
        + 13**2 * 9 * (192 * 384 + 384 * 256 + 256 * 256)
    )
    assert count("alexnet_owt", 224) == convolutions + dense
    convolutions = (
        110**2 * 7 * 7 * 3 * 96
        + 26**2 * 25 * 96 * 256
        + 13**2 * 9 * (256 * 384 + 384 * 384 + 384 * 256)
    )
    assert count("zfnet", 224) == count("zfnet_bn", 224) == convolutions + dense


@pytest.mark.parametrize(
    ("model", "size"),
    [
        *(("resnet_18", size) for size in (224, 75)),
        *(("resnet_50", size) for size in (224, 160, 299)),
        ("resnetv2_34", 224),
        ("resnetv2_50", 224),
        ("resnetse_50", 96),
        ("resnet_50d", 75),
    ],
)
def test_multiply_adds_of_residual_nets(model, size):
    family, layers = split_name(model)
    assert count(model, size) == residual_multiply_adds(family, int(layers), size)


@pytest.mark.parametrize("model", TORCHVISION)
def test_hand_computed_multiply_adds_match_torchvision(model):
    family, layers = model.split("_")
    multiply_adds = residual_multiply_adds(family, int(layers), 224)
    assert multiply_adds / 1e9 == pytest.approx(TORCHVISION[model], abs=6e-4)


@pytest.mark.faults
@pytest.mark.parametrize(
    "model", [m for m in registry.names() if not registry.has_fixed_input_size(m)]
)
def test_multiply_adds_of_every_residual_net(model):
    family, layers = split_name(model)
    assert count(model, 224) == residual_multiply_adds(family, int(layers), 224)
