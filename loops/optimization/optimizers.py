"""Optimizers and which variables decay."""

import keras
import tensorflow as tf
from absl import logging


class SGD(keras.optimizers.SGD):
    """Keras's SGD with momentum, in one fused kernel in place of eight passes over memory.

    velocity = momentum * velocity - learning_rate * gradient; then variable += velocity, or with
    Nesterov's form variable += momentum * velocity - learning_rate * gradient.
    """

    def update_step(self, gradient, variable, learning_rate):
        rate, gradient = (tf.cast(value, variable.dtype) for value in (learning_rate, gradient))
        if not self.momentum:  # Keras then keeps no velocities
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)
            return
        velocity = self.momentums[self._get_variable_index(variable)].value
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=velocity.handle,
            lr=rate,
            grad=gradient,
            momentum=tf.constant(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )


class LARS(SGD):
    """Momentum with a learning rate for each layer (You et al. 2017, algorithm 1).

    rate = learning_rate * trust * |w| / (|g| + decay * |w|); then as SGD, without Nesterov, with
    this rate and the gradient g + decay * w. Variables that do not decay (biases, norms) go
    without the layer's own rate, as in the authors' later work (You et al. 2020, appendix).
    """

    trust = 0.001

    def __init__(self, momentum, l2, decayed):
        super().__init__(0.0, momentum=momentum, nesterov=False, name="lars")
        self._l2 = l2
        self._decayed = decayed

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        if index in self._decayed:
            weight = tf.convert_to_tensor(variable)
            of_weight, of_gradient = tf.norm(weight), tf.norm(gradient)
            ratio = self.trust_coefficient * of_weight / (of_gradient + self._l2 * of_weight)
            both = (of_weight > 0.0) & (of_gradient > 0.0)
            learning_rate *= tf.where(both, ratio, 1.0)
            gradient += self._l2 * weight
        super().update_step(gradient, variable, learning_rate)


class LAMB(keras.optimizers.Adam):
    """Adam with a learning rate for each layer (You et al. 2020, algorithm 2).

    r = m' / (sqrt(v') + epsilon) + decay * w, with m' and v' the corrected moments; then
    w -= learning_rate * |w| / |r| * r. Keras's own leaves the decay out of r. Variables that do
    not decay (biases, norms) go without the layer's own rate.
    """

    def __init__(self, decoupled, decayed):
        super().__init__(0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-6, name="lamb")
        self._decoupled = decoupled
        self._decayed = decayed

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        first, second = self._momentums[index].value, self._velocities[index].value
        first.assign_add((1.0 - self.beta_1) * (gradient - first))
        second.assign_add((1.0 - self.beta_2) * (tf.square(gradient) - second))
        # In float64: 1 - 0.999 has lost five digits in float32.
        updates = tf.cast(self.iterations.value + 1, tf.float64)
        missing = [tf.cast(1.0 - b**updates, tf.float32) for b in (self.beta_1, self.beta_2)]
        direction = tf.convert_to_tensor(first) / missing[0]
        direction /= tf.sqrt(tf.convert_to_tensor(second) / missing[1]) + self.epsilon
        if index in self._decayed:
            weight = tf.convert_to_tensor(variable)
            direction += self._decoupled * weight
            of_weight, of_direction = tf.norm(weight), tf.norm(direction)
            both = (of_weight > 0.0) & (of_direction > 0.0)
            learning_rate *= tf.where(both, of_weight / of_direction, 1.0)
        variable.assign_sub(learning_rate * direction)


def build_optimizer(config, model):
    """Makes the optimizer of a config with all its variables.

    Built before anything is traced: variables made inside the first call would trace the step
    twice. Apply it with `apply_gradients`.

    Args:
      config: OptimizationConfig.
      model: keras.Model.

    Returns:
      keras.optimizers.Optimizer.
    """
    l2, decoupled = get_weight_decay(config)
    kernels = {id(kernel) for kernel in get_trainable_kernels(model)}
    variables = model.trainable_variables
    decayed = frozenset(i for i, v in enumerate(variables) if id(v) in kernels)
    makers = {
        "sgd": lambda: SGD(0.0, momentum=config.momentum, nesterov=config.nesterov, name="sgd"),
        "lars": lambda: LARS(config.momentum, l2, decayed),
        # Keras counts the updates that were applied, as the correction of the moments must.
        "adamw": lambda: keras.optimizers.Adam(0.0, epsilon=1e-8, name="adamw"),
        "lamb": lambda: LAMB(decoupled, decayed),
    }
    optimizer = makers[config.optimizer]()
    optimizer.build(variables)
    return optimizer


def get_weight_decay(config):
    """The weight decay of a config in its two forms.

    Args:
      config: OptimizationConfig.

    Returns:
      (L2 penalty, decoupled decay per unit of learning rate (Loshchilov & Hutter 2019)), of which
      one is 0.
    """
    kind = config.decay_kind
    if kind == "auto":
        kind = "l2" if config.optimizer in ("sgd", "lars") else "decoupled"
    return (config.weight_decay, 0.0) if kind == "l2" else (0.0, config.weight_decay)


def get_step_weight_decay(config):
    """The part of `get_weight_decay` that the training step applies.

    LARS and LAMB apply theirs themselves: it enters the rate of a layer.
    """
    l2, decoupled = get_weight_decay(config)
    return 0.0 if config.optimizer == "lars" else l2, (
        0.0 if config.optimizer == "lamb" else decoupled
    )


def apply_gradients(strategy, optimizer, gradients, variables, learning_rate, shrink=None):
    """Applies gradients that are already summed over replicas, on every replica alike.

    Keras's own `apply` sums gradients itself, before anybody could look at the sum or clip it.

    Args:
      strategy: tf.distribute.Strategy; called from outside its replicas.
      optimizer: built optimizer.
      gradients: one for each variable, equal on all replicas.
      variables: the keras.Variables that the optimizer was built with.
      learning_rate: float32 scalar tensor.
      shrink: (decoupled decay, ids of the variables that shrink by it), or None.
    """
    decay, shrinking = shrink or (0.0, frozenset())

    def update_one(variable, gradient, shrinks):
        if shrinks:
            variable.assign_sub(learning_rate * decay * tf.convert_to_tensor(variable))
        optimizer.update_step(gradient, variable, learning_rate)

    with strategy.scope():
        for gradient, variable in zip(gradients, variables, strict=True):
            shrinks = bool(decay) and id(variable) in shrinking
            strategy.extended.update(
                variable.value, update_one, args=(gradient, shrinks), group=False
            )
        optimizer.iterations.assign_add(1)


def select_decayed_kernels(model):
    """The kernels of convolutions and dense layers: what weight decay pulls towards zero.

    By layer type, since in Keras 3 a batch norm's scale is just named `gamma` and filters by name
    decay it unnoticed. Biases and norms are left alone.

    Returns:
      list of keras.Variable.
    """
    kernels = get_trainable_kernels(model)
    logging.info(
        "%d of %d trainable tensors decay, %.2f of %.2f million parameters",
        len(kernels),
        len(model.trainable_variables),
        sum(k.value.shape.num_elements() for k in kernels) / 1e6,
        sum(v.value.shape.num_elements() for v in model.trainable_variables) / 1e6,
    )
    return kernels


def get_trainable_kernels(model):
    """The kernels of convolutions and dense layers that are trained, from input to output."""
    kernels = [getattr(layer, "kernel", None) for layer in model.layers]
    return [kernel for kernel in kernels if kernel is not None and kernel.trainable]


def get_output_variables(model):
    """The trainable variables of the layer that makes the logits: the last one with a kernel."""
    layers = [layer for layer in model.layers if getattr(layer, "kernel", None) is not None]
    return layers[-1].trainable_variables
