"""Counts the multiply-adds and the parameters of a net.

A layer of a user's class says its count in a method: `count_multiply_adds(self, shape)`, with the
shape of its output for one image, [1, H, W, C] or [1, C].
"""

import math

import keras

from input_pipeline.errors import UsageError
from nets.layers import output_shapes
from nets.layers.batch_norm import BatchNorm
from nets.layers.convolution import Conv

_WITH_KERNELS = (
    Conv,
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)
_NORMS = (
    BatchNorm,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


def count_parameters(model: keras.Model) -> int:
    """Returns the number of trainable parameters."""
    return sum(v.value.shape.num_elements() for v in model.trainable_variables)


def count_multiply_adds(model: keras.Model, image_size: int) -> int:
    """Counts the multiply-adds of convolutions and dense layers for one image, forward pass only.

    Normalization, activations, pooling and additions do not count, as in torchvision and timm. A
    multiplication and the addition that follows it count as one.

    Args:
      model: functional model made by `registry.build_model`.
      image_size: side of the image in pixels.

    Raises:
      UsageError: the count of a layer is not defined, or see `compute_output_shapes`.
    """
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    specs = output_shapes.compute_output_shapes(model, layers, image_size)
    return sum(map(_count_layer_multiply_adds, layers, specs))


def _count_layer_multiply_adds(layer: keras.layers.Layer, output: keras.KerasTensor) -> int:
    """Returns the multiply-adds of a layer.

    A kernel is applied once at each position of the output, H x W for [1, H, W, C].
    """
    if hasattr(layer, "count_multiply_adds"):
        return layer.count_multiply_adds(output.shape)
    positions = math.prod(output.shape[1:-1]) if hasattr(output, "shape") else 0
    if isinstance(layer, _WITH_KERNELS):
        kernels = [v.shape for v in layer.weights if v.name.endswith("kernel")]
        return positions * sum(map(math.prod, kernels))
    # What other layers compute is unknown if they have weights, or are not Keras's or ours.
    is_known = type(layer).__module__.startswith(("keras.", "nets.layers."))
    if not is_known or (layer.weights and not isinstance(layer, _NORMS)):
        raise UsageError(
            f"{layer.name}: the multiply-adds of {type(layer).__name__} are not defined; write into"
            " this class: def count_multiply_adds(self, shape): return ..."
        )
    return 0
