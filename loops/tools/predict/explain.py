"""What an answer rests on: Grad-CAM (Selvaraju et al. 2017) and occlusion (Zeiler & Fergus 2014).

Both return numbers; colours are the matter of `loops.tools.predict.overlays`.
"""

import keras
import numpy as np
import tensorflow as tf

from loops.metrics import classification

# Views of one call of the net: small, since explanations are made one picture at a time.
_BATCH_SIZE = 20


def find_feature_map(model, size):
    """The last tensor of a net that still has a height and a width.

    It is found by the layers' connections: from the logits back to the first tensor [B, H, W, C]
    that is larger than one pixel, which is what a global average pool takes, or what is flattened.
    The way back ends where layers join; a net whose map has shrunk to a pixel gives that pixel.

    Args:
      model: keras.Model from images to logits, of layers in the functional form.
      size: side of the images in pixels.

    Returns:
      keras.KerasTensor.

    Raises:
      ValueError: no tensor on the way has four axes.
    """
    made_by = {id(layer.output): layer for layer in model.layers}
    tensor, found = model.output, []
    while True:
        if len(tensor.shape) == 4:
            found.append(tensor)
        inputs = made_by[id(tensor)].input
        if not isinstance(inputs, keras.KerasTensor) or tensor is inputs:
            break
        tensor = inputs
    if not found:
        raise ValueError("no layer on the way from the logits has a feature map")
    shapes = keras.Model(model.input, found).compute_output_shape((1, size, size, 3))
    for tensor, shape in zip(found, shapes, strict=True):
        if shape[1] * shape[2] > 1:
            return tensor
    return found[0]


def make_grad_cam(model, size):
    """Makes the function that says where a net sees a class.

    Args:
      model: keras.Model in float32, from normalised images to logits.
      size: side of the images in pixels.

    Returns:
      function from normalised float32 images [B, S, S, 3] and a class index to float32
      [B, h, w], at least 0: ReLU(sum_k a_k A_k), where A [h, w, K] is the last feature map and
      a_k the mean over it of the gradient of the class's logit by A_k (equations 1 and 2).
    """
    features = find_feature_map(model, size)
    trunk, head = keras.Model(model.input, features), keras.Model(features, model.output)

    @tf.function(reduce_retracing=True, autograph=False)
    def grad_cam(images, class_index):
        maps = trunk(images, training=False)  # [B, h, w, K]
        with tf.GradientTape() as tape:
            tape.watch(maps)
            score = tf.reduce_sum(head(maps, training=False)[:, class_index])
        weights = tf.reduce_mean(tape.gradient(score, maps), axis=[1, 2], keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))

    return lambda images, class_index: grad_cam(images, tf.constant(class_index)).numpy()


def occlusion(logits, image, class_index, window, fill, positions=10):
    """How much less probable a class is when a patch hides a part of the picture.

    Zeiler & Fergus 2014, section 4.2: a patch in the pictures' mean colour stands at each of
    `positions` x `positions` places, evenly spread and flush with the borders.

    Args:
      logits: function from uint8 [B, 1, S, S, 3] to float32 logits [B, 1, C].
      image: uint8 array [S, S, 3].
      class_index: int.
      window: side of the patch in pixels.
      fill: three numbers, 0..255, the patch's colour.
      positions: patches along each side.

    Returns:
      (drop, float64 [positions, positions]: probability without patch minus with it; starts, int
      [positions]: where patches begin, down and across alike).
    """
    starts = np.round(np.linspace(0, image.shape[0] - window, positions)).astype(int)
    hidden = np.tile(image, (positions * positions + 1, 1, 1, 1))
    for number, (top, left) in enumerate((t, l) for t in starts for l in starts):  # noqa: E741
        hidden[number, top : top + window, left : left + window] = np.round(fill)
    found = [
        classification.probabilities(logits(tf.constant(batch)[:, None]).numpy()[None])
        for batch in _padded_batches(hidden)
    ]
    probability = np.concatenate(found)[: len(hidden), class_index]
    return (probability[-1] - probability[:-1]).reshape(positions, positions), starts


def project_to_pixels(drop, starts, window, size):
    """Gives every pixel the mean drop of the patches that hide it.

    Args:
      drop, starts: of `occlusion`.
      window: side of the patch in pixels.
      size: side of the picture in pixels.

    Returns:
      float64 [size, size]; zero where no patch has been.
    """
    total, count = np.zeros((size, size)), np.zeros((size, size))
    for row, top in enumerate(starts):
        for column, left in enumerate(starts):
            total[top : top + window, left : left + window] += drop[row, column]
            count[top : top + window, left : left + window] += 1
    return total / np.maximum(count, 1)


def _padded_batches(images):
    """Batches of one size, the last filled up with its own images, so that nets trace once."""
    for start in range(0, len(images), _BATCH_SIZE):
        batch = images[start : start + _BATCH_SIZE]
        yield np.resize(batch, (_BATCH_SIZE, *batch.shape[1:]))
