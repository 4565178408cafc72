"""Optimizers and which variables decay."""

import keras
import tensorflow as tf
from absl import logging

from nets.batch_norm import BatchNorm


class SGD(keras.optimizers.SGD):
    """Keras's SGD with momentum, in one fused kernel in place of eight passes over memory.

    velocity = momentum * velocity - learning_rate * gradient; then variable += velocity, or with
    Nesterov's form variable += momentum * velocity - learning_rate * gradient.
    """

    def update_step(self, gradient, variable, learning_rate):
        velocity = self.momentums[self._get_variable_index(variable)].value
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=velocity.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            momentum=tf.constant(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )


def build(config, model):
    """Makes the optimizer of a config with all its variables.

    Built before anything is traced: variables made inside the first call would trace the step
    twice. Apply it with `update`.

    Args:
      config: OptimizationConfig.
      model: keras.Model.

    Returns:
      keras.optimizers.Optimizer.
    """
    makers = {
        "sgd": lambda: SGD(0.0, momentum=config.momentum, nesterov=config.nesterov, name="sgd")
    }
    optimizer = makers[config.optimizer]()
    optimizer.build(model.trainable_variables)
    return optimizer


def update(strategy, optimizer, gradients, variables, learning_rate):
    """Applies gradients that are already summed over replicas, on every replica alike.

    Keras's own `apply` sums gradients itself, before anybody could look at the sum or clip it.

    Args:
      strategy: tf.distribute.Strategy; called from outside its replicas.
      optimizer: built optimizer.
      gradients: one for each variable, equal on all replicas.
      variables: the keras.Variables that the optimizer was built with.
      learning_rate: float32 scalar tensor.
    """

    def update_one(variable, gradient):
        optimizer.update_step(gradient, variable, learning_rate)

    with strategy.scope():
        for gradient, variable in zip(gradients, variables, strict=True):
            strategy.extended.update(variable.value, update_one, args=(gradient,), group=False)
        optimizer.iterations.assign_add(1)


def decayed_kernels(model):
    """The kernels of convolutions and dense layers: what weight decay pulls towards zero.

    By layer type, since in Keras 3 a batch norm's scale is just named `gamma` and filters by name
    decay it unnoticed. Biases and norms are left alone.

    Returns:
      list of keras.Variable.
    """
    kernels = [
        layer.kernel
        for layer in model.layers
        if not isinstance(layer, BatchNorm) and getattr(layer, "kernel", None) is not None
        if layer.trainable
    ]
    logging.info(
        "%d of %d trainable tensors decay, %.2f of %.2f million parameters",
        len(kernels),
        len(model.trainable_variables),
        sum(k.value.shape.num_elements() for k in kernels) / 1e6,
        sum(v.value.shape.num_elements() for v in model.trainable_variables) / 1e6,
    )
    return kernels
