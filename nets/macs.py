"""How much arithmetic a net does."""

import keras

from nets.layers.convolution import Conv


def count_multiply_adds(model, image_size):
    """Multiply-adds of the convolutions and dense layers of one forward pass of one image.

    Norms, activations, pooling and additions are left out, as torchvision's and timm's counts
    leave them out; a multiplication and the addition behind it count as one.

    Args:
      model: keras.Model made by `registry.build_model`.
      image_size: S, side of the image in pixels.

    Returns:
      int.
    """
    counted = [x for x in model.layers if isinstance(x, Conv | keras.layers.Dense)]
    outputs = keras.Model(model.input, [layer.output for layer in counted])
    image = keras.KerasTensor((1, image_size, image_size, 3))
    shapes = [tensor.shape for tensor in outputs.compute_output_spec(image)]
    return sum(map(_count_layer_multiply_adds, counted, shapes))


def _count_layer_multiply_adds(layer, shape):
    """Every output [1, H, W, C] or [1, C] is a sum over the kernel of its own filter."""
    positions = 1
    for side in shape[1:-1]:
        positions *= side
    kernel = 1
    for side in layer.kernel.shape:
        kernel *= side
    return positions * kernel
