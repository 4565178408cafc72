"""Activation recomputation (Chen et al. 2016, "Training deep nets with sublinear memory cost").

`keras.remat` fails on batch norm inside a `tf.function`, and `tf.recompute_grad` would update the
moving statistics twice. In this module a block is a pure function of its input and the values of
its variables. The statistics of the first pass are kept, those of the second are discarded.
"""

import itertools
from collections.abc import Sequence

import keras
import tensorflow as tf

from nets.layers.random_layers import find_samples


class RecomputingModel(keras.Model):
    """Functional model that stores only the inputs of its blocks during training.

    Layers, variables and results are the same as without recomputation.

    Args:
      inputs, outputs: of the whole net, as for `keras.Model`.
      block_boundaries: tensors of the net, in order. All paths must pass through each of them.
        The first block lies between the first two. Activations before the first and after the
        last are stored.
    """

    def __init__(
        self,
        inputs: keras.KerasTensor,
        outputs: keras.KerasTensor,
        block_boundaries: Sequence[keras.KerasTensor],
    ):
        super().__init__(inputs=inputs, outputs=outputs)
        stem = keras.Model(inputs, block_boundaries[0])
        blocks = [keras.Model(a, b) for a, b in itertools.pairwise(block_boundaries)]
        head = keras.Model(block_boundaries[-1], outputs)

        def train(images: tf.Tensor) -> tf.Tensor:
            x = stem(images, training=True)
            for block in blocks:
                x = _call_with_recompute(block, x)
            return head(x, training=True)

        # The parts are in a closure, because Keras would save attributes as separate models.
        self._train = train

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        if training:
            return self._train(inputs)
        return super().call(inputs, training=training, mask=mask)


def _call_with_recompute(block: keras.Model, x: tf.Tensor) -> tf.Tensor:
    """Returns the block's output. The gradient computes its activations again."""
    trainable, others = block.trainable_variables, block.non_trainable_variables
    constants = [tf.convert_to_tensor(v.value) for v in others]
    drawn = [(samples, tf.convert_to_tensor(samples)) for samples in find_samples(block)]

    def forward(x, weights):
        """Returns the output and the new values of the non-trainable variables."""
        values = [*zip(trainable, weights, strict=True), *zip(others, constants, strict=True)]
        with keras.StatelessScope(state_mapping=values) as scope:
            y = block(x, training=True)
        return y, [scope.get_current_value(v) for v in others]

    @tf.custom_gradient
    def run(x, *weights):
        y, updated = forward(x, weights)

        def gradient(upstream, *_):
            # Without this edge, TensorFlow's graph optimizer would reuse the first pass.
            with tf.control_dependencies([upstream]):
                x_again = tf.identity(x)
            for samples, value in drawn:  # another pass may have begun
                samples.assign(value)
            with tf.GradientTape() as tape:
                tape.watch([x_again, *weights])
                y, _ = forward(x_again, weights)
            return tape.gradient(y, [x_again, *weights], upstream)

        return (y, *updated), gradient

    y, *updated = run(x, *[tf.convert_to_tensor(v.value) for v in trainable])
    for variable, value in zip(others, updated, strict=True):
        variable.assign(value)
    return y
