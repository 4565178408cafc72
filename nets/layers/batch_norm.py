"""Batch normalization with TensorFlow's fused kernel.

Keras 3 computes moments and normalization as separate float32 operations. The fused kernel reads
half-precision inputs directly and keeps its statistics in float32. This makes a ResNet step about
1.6 times as fast on a CPU.
"""

import contextlib
import math
from collections.abc import Iterator

import keras
import tensorflow as tf

from nets.layers import output_shapes


def count_values_per_image(model: keras.Model, image_size: int) -> int | None:
    """Returns how many values per channel an image adds to the moments: those of the smallest map.

    Args:
      model: functional model made by `registry.build_model`.
      image_size: side of the image in pixels.

    Returns:
      the smallest H x W over the inputs of all trainable batch norms; None without any.

    Raises:
      UsageError: see `compute_output_shapes`.
    """
    layers = [layer for layer in _list_batch_norms(model) if layer.trainable]
    if not layers:
        return None
    shapes = output_shapes.compute_output_shapes(model, layers, image_size)
    return min(math.prod(tensor.shape[1:-1]) for tensor in shapes)


def _list_batch_norms(model: keras.Model) -> list[keras.layers.Layer]:
    """Lists the layers with moving statistics: those of Keras, too."""
    return [layer for layer in model.layers if hasattr(layer, "moving_mean")]


@contextlib.contextmanager
def override_momentum(model: keras.Model, momentum: tf.Tensor) -> Iterator[None]:
    """Sets the momentum of all batch norms while the model is traced in the `with` block."""
    layers = _list_batch_norms(model)
    old = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = momentum
    try:
        yield
    finally:
        for layer, value in zip(layers, old, strict=True):
            layer.momentum = value


class BatchNorm(keras.layers.Layer):
    """Normalizes over all axes except the last (Ioffe & Szegedy 2015, algorithm 1).

    The variables have the names, shapes and meaning of `keras.layers.BatchNormalization`:
    `gamma`, `beta`, `moving_mean`, and `moving_variance` (the biased variance), all float32 [C].

    Args:
      momentum: fraction of the old moving statistics that a training step keeps.
      epsilon: added to the variance.
      gamma_initializer: "ones", or "zeros" for the last batch norm of a residual branch.
      synchronized: compute the moments over the batch of all replicas.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        gamma_initializer: str = "ones",
        synchronized: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.gamma_initializer = gamma_initializer
        self.synchronized = synchronized

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (input_shape[-1],)

        def add_weight(name: str, initializer: str, trainable: bool) -> keras.Variable:
            # No autocast: statistics and scale stay in float32 for every compute dtype.
            return self.add_weight(
                shape=shape,
                name=name,
                initializer=initializer,
                trainable=trainable,
                autocast=False,
            )

        self.gamma = add_weight("gamma", self.gamma_initializer, True)
        self.beta = add_weight("beta", "zeros", True)
        self.moving_mean = add_weight("moving_mean", "zeros", False)
        self.moving_variance = add_weight("moving_variance", "ones", False)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps [B, H, W, C] to the same shape and dtype; in training, updates the statistics."""
        if not (training and self.trainable):
            outputs, _, _ = self._fused_batch_norm(inputs, self.moving_mean, self.moving_variance)
            return outputs
        if self.synchronized and tf.distribute.get_strategy().num_replicas_in_sync > 1:
            outputs, mean, variance = self._synchronized_batch_norm(inputs)
        else:
            outputs, mean, variance = self._fused_batch_norm(inputs)
            # The kernel returns the unbiased variance, but Keras keeps the biased one.
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
            variance *= (count - 1.0) / count
        self._update_statistics(mean, variance)
        return outputs

    def _fused_batch_norm(
        self,
        inputs: tf.Tensor,
        mean: keras.Variable | None = None,
        variance: keras.Variable | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Runs the kernel with the moments of the batch, or with given ones for inference.

        Returns:
          (outputs, mean, variance).
        """
        inference = mean is not None
        return tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta),
            mean=tf.convert_to_tensor(mean) if inference else None,
            variance=tf.convert_to_tensor(variance) if inference else None,
            epsilon=self.epsilon,
            is_training=not inference,
        )

    def _synchronized_batch_norm(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Normalizes with the moments of the inputs of all replicas, which have equal shapes.

        Takes two passes, the mean first. The difference of the mean square and the squared mean
        loses precision if the mean is large.

        Returns:
          (outputs, mean, variance).
        """
        context = tf.distribute.get_replica_context()
        x = tf.cast(inputs, tf.float32)
        axes = list(range(x.shape.rank - 1))
        mean = context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(x, axes))
        squares = tf.reduce_mean(tf.math.squared_difference(x, mean), axes)
        variance = context.all_reduce(tf.distribute.ReduceOp.MEAN, squares)
        outputs = tf.nn.batch_normalization(
            x,
            mean,
            variance,
            tf.convert_to_tensor(self.beta),
            tf.convert_to_tensor(self.gamma),
            self.epsilon,
        )
        return tf.cast(outputs, inputs.dtype), mean, variance

    def _update_statistics(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Moves the statistics toward the moments of the batch, if these are finite.

        The forward pass updates them before the step is known to be skipped. A NaN written here
        would stay in the statistics forever.
        """
        finite = tf.reduce_all(tf.math.is_finite(mean) & tf.math.is_finite(variance))
        for variable, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = tf.convert_to_tensor(variable)
            updated = old * self.momentum + new * (1.0 - self.momentum)
            variable.assign(tf.where(finite, updated, old))
