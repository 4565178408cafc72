"""Activation recomputation (Chen et al. 2016, "Training deep nets with sublinear memory cost").

`keras.remat` fails on batch norm inside a `tf.function`, and `tf.recompute_grad` would move the
moving statistics twice. Here a block is a pure function of its input and its variables' values;
the statistics that its first pass yields are kept, those of the second are not looked at.
"""

import itertools

import keras
import tensorflow as tf


class RecomputingModel(keras.Model):
    """A functional net that, in training, stores the inputs of its blocks and nothing in them.

    Layers, variables and results are those of the same net without recomputation.

    Args:
      inputs, outputs: of the whole net, as for `keras.Model`.
      cuts: tensors of the net, in order, each of which all paths lead through: the first block
        goes from the first to the second of them. What lies before and behind is stored.
    """

    def __init__(self, inputs, outputs, cuts):
        super().__init__(inputs=inputs, outputs=outputs)
        stem = keras.Model(inputs, cuts[0])
        blocks = [keras.Model(a, b) for a, b in itertools.pairwise(cuts)]
        head = keras.Model(cuts[-1], outputs)

        def train(images):
            x = stem(images, training=True)
            for block in blocks:
                x = _call_with_recompute(block, x)
            return head(x, training=True)

        # In a closure: as attributes, the parts would be saved as models of their own.
        self._train = train

    def call(self, inputs, training=None, mask=None):
        if training:
            return self._train(inputs)
        return super().call(inputs, training=training, mask=mask)


def _call_with_recompute(block, x):
    """The block's output; its activations are computed again when the gradient needs them."""
    trainable, others = block.trainable_variables, block.non_trainable_variables
    constants = [tf.convert_to_tensor(v.value) for v in others]

    def forward(x, weights):
        """Returns the output and the new values of the variables that are not trained."""
        values = [*zip(trainable, weights, strict=True), *zip(others, constants, strict=True)]
        with keras.StatelessScope(state_mapping=values) as scope:
            y = block(x, training=True)
        return y, [scope.get_current_value(v) for v in others]

    @tf.custom_gradient
    def run(x, *weights):
        y, updated = forward(x, weights)

        def gradient(upstream, *_):
            # Without this edge the optimiser of the graph would find the first pass again.
            with tf.control_dependencies([upstream]):
                again = tf.identity(x)
            with tf.GradientTape() as tape:
                tape.watch([again, *weights])
                y, _ = forward(again, weights)
            return tape.gradient(y, [again, *weights], upstream)

        return (y, *updated), gradient

    y, *updated = run(x, *[tf.convert_to_tensor(v.value) for v in trainable])
    for variable, value in zip(others, updated, strict=True):
        variable.assign(value)
    return y
