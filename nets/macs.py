"""Counts the multiply-adds of a net."""

import math
from collections.abc import Sequence

import keras

from nets.layers.convolution import Conv


def count_multiply_adds(model: keras.Model, image_size: int) -> int:
    """Counts the multiply-adds of convolutions and dense layers for one image, forward pass only.

    Normalization, activations, pooling and additions do not count, as in torchvision and timm. A
    multiplication and the addition that follows it count as one.

    Args:
      model: functional model made by `registry.build_model`.
      image_size: side of the image in pixels.
    """
    layers = [x for x in model.layers if isinstance(x, Conv | keras.layers.Dense)]
    outputs = keras.Model(model.input, [layer.output for layer in layers])
    image = keras.KerasTensor((1, image_size, image_size, 3))
    shapes = [tensor.shape for tensor in outputs.compute_output_spec(image)]
    return sum(map(_count_layer_multiply_adds, layers, shapes))


def _count_layer_multiply_adds(layer: Conv | keras.layers.Dense, shape: Sequence[int]) -> int:
    """Returns the multiply-adds of a layer with output shape [1, H, W, C] or [1, C].

    The kernel is applied once at each of the H x W positions.
    """
    return math.prod(shape[1:-1]) * math.prod(layer.kernel.shape)
