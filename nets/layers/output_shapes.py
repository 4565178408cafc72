"""Computes the shapes of a net's layers for images of a size."""

from collections.abc import Sequence
from typing import Any

import keras

from input_pipeline.errors import UsageError


def compute_output_shapes(
    model: keras.Model, layers: Sequence[keras.layers.Layer], image_size: int
) -> list[Any]:
    """Returns the outputs of layers for one image, as Keras tensors without values.

    A net is built for any height and width, so maps of different sizes that meet in a layer are
    found only here.

    Args:
      model: functional model made by `registry.build_model`.
      layers: some of its layers.
      image_size: side of the image in pixels.

    Raises:
      UsageError: the inputs of a layer have shapes that do not fit; names the layer.
    """
    image = keras.KerasTensor((1, image_size, image_size, 3))
    try:
        outputs = keras.Model(model.input, [layer.output for layer in layers])
        shapes = outputs.compute_output_spec(image)
    except ValueError:
        for layer in model.layers:
            _require_shapes(model, layer, image)
        raise
    return shapes if isinstance(shapes, list) else [shapes]


def _require_shapes(
    model: keras.Model, layer: keras.layers.Layer, image: keras.KerasTensor
) -> None:
    try:
        keras.Model(model.input, layer.output).compute_output_spec(image)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{layer.name} of the net at {image.shape[1]} px: {reason}") from None
