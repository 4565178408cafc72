"""Explains predictions: Grad-CAM (Selvaraju et al. 2017) and occlusion (Zeiler & Fergus 2014).

Both return numbers. `loops.tools.predict.overlays` draws them.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from input_pipeline.errors import UsageError
from loops.metrics import classification

# Views of one call of the net. Small, because images are explained one at a time.
_BATCH_SIZE = 20
# Coarser maps say little: of 2 x 2 positions, the brightest is the same corner in most images.
_MIN_MAP_SIDE = 5


class Occlusion(NamedTuple):
    """Result of `occlusion`.

    Attributes:
      drop: float64 [positions, positions], probability without the patch minus with it.
      starts: int [positions], first row of each patch; the first columns are the same.
    """

    drop: np.ndarray
    starts: np.ndarray


def find_feature_map(model: keras.Model, size: int) -> keras.KerasTensor:
    """Finds the last tensor of a net that is a map of at least 5 x 5 positions.

    The logits depend on the images only through it. For large images this is the input of the
    global average pool or of the flatten layer, otherwise the output of an earlier block. If all
    maps are coarser, it is the last one of the finest.

    Args:
      model: functional keras.Model from images to logits.
      size: side of the images in pixels.

    Raises:
      UsageError: there is no such tensor.
    """
    outputs = [layer.output for layer in reversed(model.layers)]
    maps = [x for x in outputs if isinstance(x, keras.KerasTensor) and len(x.shape) == 4]
    shapes = keras.Model(model.input, maps).compute_output_shape((1, size, size, 3)) if maps else []
    pairs = zip(maps, shapes, strict=True)
    sides = [(min(shape[1:3]), tensor) for tensor, shape in pairs]
    # Sorting is stable, so later tensors stay ahead of earlier ones of equal side.
    sides.sort(key=lambda pair: -min(pair[0], _MIN_MAP_SIDE))
    for _, tensor in sides:
        if tensor is model.input:
            continue
        with contextlib.suppress(ValueError):  # there is a way around this tensor
            keras.Model(tensor, model.output)
            return tensor
    raise UsageError(
        "Grad-CAM needs a tensor [B, H, W, C] that all ways from the images to the logits cross;"
        " this net has none, so leave out --explain and --report"
    )


def make_grad_cam(model: keras.Model, size: int) -> Callable[[tf.Tensor, int], np.ndarray]:
    """Makes the Grad-CAM function of a net.

    Args:
      model: float32 model from normalized images to logits.
      size: side of the images in pixels.

    Returns:
      function from normalized float32 images [B, S, S, 3] and a class index to float32 [B, h, w].
      The map is ReLU(sum_k a_k A_k), where A [h, w, K] is the tensor of `find_feature_map`. The
      weight a_k is the mean gradient of the class's logit with respect to A_k (equations 1 and 2).
    """
    features = find_feature_map(model, size)
    trunk, head = keras.Model(model.input, features), keras.Model(features, model.output)

    @tf.function(reduce_retracing=True, autograph=False)
    def grad_cam(images: tf.Tensor, class_index: tf.Tensor) -> tf.Tensor:
        maps = trunk(images, training=False)  # [B, h, w, K]
        with tf.GradientTape() as tape:
            tape.watch(maps)
            score = tf.reduce_sum(head(maps, training=False)[:, class_index])
        weights = tf.reduce_mean(tape.gradient(score, maps), axis=[1, 2], keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))

    return lambda images, class_index: grad_cam(images, tf.constant(class_index)).numpy()


def occlusion(
    logits: Callable[[tf.Tensor], tf.Tensor],
    image: np.ndarray,
    class_index: int,
    window: int,
    fill: Sequence[float],
    positions: int = 10,
) -> Occlusion:
    """Measures how much the probability of a class drops when a patch hides a part of the image.

    A patch in the mean color is placed at `positions` x `positions` places, evenly spaced and
    flush with the borders (Zeiler & Fergus 2014, section 4.2).

    Args:
      logits: function from uint8 [B, 1, S, S, 3] to float32 logits [B, 1, C].
      image: uint8 [S, S, 3].
      class_index: the class.
      window: side of the patch in pixels.
      fill: color of the patch, three numbers 0..255.
      positions: number of patches along each side.
    """
    starts = np.round(np.linspace(0, image.shape[0] - window, positions)).astype(int)
    # The last copy stays without a patch.
    images = np.tile(image, (positions * positions + 1, 1, 1, 1))
    corners = [(top, left) for top in starts for left in starts]
    for occluded, (top, left) in zip(images, corners, strict=False):
        occluded[top : top + window, left : left + window] = np.round(fill)
    batches = [
        classification.probabilities(logits(tf.constant(batch)[:, None]).numpy()[None])
        for batch in _padded_batches(images)
    ]
    probability = np.concatenate(batches)[: len(images), class_index]
    drop = (probability[-1] - probability[:-1]).reshape(positions, positions)
    return Occlusion(drop, starts)


def project_to_pixels(drop: np.ndarray, starts: np.ndarray, window: int, size: int) -> np.ndarray:
    """Returns the mean drop over the patches that hide each pixel.

    Args:
      drop, starts: see `Occlusion`.
      window: side of the patch in pixels.
      size: side of the image in pixels.

    Returns:
      float64 [size, size], zero where no patch was placed.
    """
    total, count = np.zeros((size, size)), np.zeros((size, size))
    for row, top in enumerate(starts):
        for column, left in enumerate(starts):
            total[top : top + window, left : left + window] += drop[row, column]
            count[top : top + window, left : left + window] += 1
    return total / np.maximum(count, 1)


def _padded_batches(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yields batches of equal size, so that nets trace once. The last one repeats its images."""
    for start in range(0, len(images), _BATCH_SIZE):
        batch = images[start : start + _BATCH_SIZE]
        yield np.resize(batch, (_BATCH_SIZE, *batch.shape[1:]))
