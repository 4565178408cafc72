"""Optimizers, and the weight decay of each variable."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.user_code import display_name
from loops.config.choices import OPTIMIZERS
from loops.config.training import OptimizationConfig
from nets.layers.convolution import Conv

# The decorator of functions that make an optimizer from the config. With `applies_decay` they also
# get the WeightDecay and the indices of the variables with weight decay. With `takes_model` they
# also get the model.
optimizer = OPTIMIZERS


class SGD(keras.optimizers.SGD):
    """Keras's SGD with momentum as one fused kernel, which replaces eight passes over memory.

    velocity = momentum * velocity - learning_rate * gradient; then variable += velocity, or with
    Nesterov momentum variable += momentum * velocity - learning_rate * gradient.
    """

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        rate, gradient = (tf.cast(value, variable.dtype) for value in (learning_rate, gradient))
        if not self.momentum:  # Keras has no velocities in this case
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
    """SGD with momentum and a learning rate per layer (You et al. 2017, algorithm 1).

    rate = learning_rate * trust_coefficient * |w| / (|g| + decay * |w|). Then as SGD without
    Nesterov momentum, with this rate and the gradient g + decay * w. Variables without weight
    decay (biases, norms) use the global learning rate, as in the authors' later work (You et al.
    2020, appendix).

    Args:
      momentum: momentum coefficient.
      l2: weight decay, an L2 penalty.
      decayed: indices of the variables with weight decay.
    """

    trust_coefficient = 0.001

    def __init__(self, momentum: float, l2: float, decayed: Collection[int]):
        super().__init__(0.0, momentum=momentum, nesterov=False, name="lars")
        self._l2 = l2
        self._decayed = decayed

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        index = self._get_variable_index(variable)
        if index in self._decayed:
            weight = tf.convert_to_tensor(variable)
            weight_norm, gradient_norm = tf.norm(weight), tf.norm(gradient)
            ratio = self.trust_coefficient * weight_norm / (gradient_norm + self._l2 * weight_norm)
            nonzero = (weight_norm > 0.0) & (gradient_norm > 0.0)
            learning_rate *= tf.where(nonzero, ratio, 1.0)
            gradient += self._l2 * weight
        super().update_step(gradient, variable, learning_rate)


class LAMB(keras.optimizers.Adam):
    """Adam with a learning rate per layer (You et al. 2020, algorithm 2).

    r = m' / (sqrt(v') + epsilon) + decay * w, with the bias-corrected moments m' and v'. Then
    w -= learning_rate * |w| / |r| * r. Keras's LAMB omits the decay from r. Variables without
    weight decay (biases, norms) use the global learning rate.

    Args:
      decoupled: weight decay.
      decayed: indices of the variables with weight decay.
      **moments: beta_1, beta_2 and epsilon of Adam.
    """

    def __init__(self, decoupled: float, decayed: Collection[int], **moments: float):
        super().__init__(0.0, **moments, name="lamb")
        self._decoupled = decoupled
        self._decayed = decayed

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        index = self._get_variable_index(variable)
        first, second = self._momentums[index].value, self._velocities[index].value
        first.assign_add((1.0 - self.beta_1) * (gradient - first))
        second.assign_add((1.0 - self.beta_2) * (tf.square(gradient) - second))
        # float64, because 1 - 0.999 loses five digits in float32.
        updates = tf.cast(self.iterations.value + 1, tf.float64)
        corrections = [tf.cast(1.0 - b**updates, tf.float32) for b in (self.beta_1, self.beta_2)]
        direction = tf.convert_to_tensor(first) / corrections[0]
        direction /= tf.sqrt(tf.convert_to_tensor(second) / corrections[1]) + self.epsilon
        if index in self._decayed:
            weight = tf.convert_to_tensor(variable)
            direction += self._decoupled * weight
            weight_norm, direction_norm = tf.norm(weight), tf.norm(direction)
            nonzero = (weight_norm > 0.0) & (direction_norm > 0.0)
            learning_rate *= tf.where(nonzero, weight_norm / direction_norm, 1.0)
        variable.assign_sub(learning_rate * direction)


class Muon(SGD):
    """SGD whose steps of convolutions are orthogonal matrices (Jordan et al. 2024, "Muon").

    A kernel is the matrix whose rows are its filters. SGD with momentum would change it by some
    U S V^T. Muon changes it by about U V^T instead, so that all directions get the same length.
    Five Newton-Schulz iterations compute it: X = a X + (b X X^T + c (X X^T)^2) X. Then
    w -= learning_rate * sqrt(max(1, rows / columns)) * X. Each group of a convolution has its own
    matrix. SGD trains all other variables.

    Args:
      momentum, nesterov: of both kinds of variables.
      kernels: for each index of a variable that is a kernel of convolutions, the type in which the
        iterations are computed, and the number of groups. They tolerate bfloat16.
    """

    coefficients = (3.4445, -4.7750, 2.0315)
    num_iterations = 5

    def __init__(self, momentum: float, nesterov: bool, kernels: Mapping[int, tuple[str, int]]):
        super().__init__(0.0, momentum=momentum, nesterov=nesterov, name="muon")
        self._kernels = kernels

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        index = self._get_variable_index(variable)
        if index not in self._kernels:
            super().update_step(gradient, variable, learning_rate)
            return
        if self.momentum:
            velocity = self.momentums[index].value
            average = self.momentum * tf.convert_to_tensor(velocity) + gradient
            velocity.assign(average)
            gradient = gradient + self.momentum * average if self.nesterov else average
        dtype, groups = self._kernels[index]
        filters = tf.reshape(gradient, [-1, gradient.shape[-1]])  # a column is a filter
        steps = [self._orthogonalize(group, dtype) for group in tf.split(filters, groups, axis=1)]
        length = max(1.0, steps[0].shape[1] / steps[0].shape[0]) ** 0.5
        step = tf.reshape(tf.concat(steps, axis=1), gradient.shape)
        variable.assign_sub(learning_rate * length * step)

    def _orthogonalize(self, matrix: tf.Tensor, dtype: str) -> tf.Tensor:
        """Returns about U V^T of a float32 matrix U S V^T: singular values from 0.7 to 1.2."""
        is_tall = matrix.shape[0] > matrix.shape[1]
        x = matrix / (tf.norm(matrix) + 1e-7)  # no singular value is above 1
        x = tf.cast(tf.transpose(x) if is_tall else x, dtype)
        a, b, c = self.coefficients
        for _ in range(self.num_iterations):
            square = tf.matmul(x, x, transpose_b=True)
            x = a * x + tf.matmul(b * square + c * tf.matmul(square, square), x)
        return tf.cast(tf.transpose(x) if is_tall else x, tf.float32)


class WeightDecay(NamedTuple):
    """Weight decay in its two forms. At least one is 0.

    Attributes:
      l2: coefficient of the L2 penalty.
      decoupled: decay per unit of learning rate (Loshchilov & Hutter 2019).
    """

    l2: float
    decoupled: float


def build_optimizer(config: OptimizationConfig, model: keras.Model) -> keras.optimizers.Optimizer:
    """Builds the optimizer of a config with all its variables.

    The variables must exist before the training step is traced: created in the first call, they
    would make TensorFlow trace the step twice. Apply gradients with `apply_gradients`.
    """
    entry = OPTIMIZERS.get(config.optimizer)
    kernels = {id(kernel) for kernel in get_trainable_kernels(model)}
    variables = model.trainable_variables
    decayed = frozenset(i for i, v in enumerate(variables) if id(v) in kernels)
    more = (get_weight_decay(config), decayed) if entry.facts.applies_decay else ()
    if entry.facts.takes_model:
        more = (*more, model)
    made = entry.function(config, *more)
    _check_optimizer(config.optimizer, made)
    made.build(variables)
    return made


@optimizer(decay_kind="l2", fine_tuning_learning_rate=0.03)
def sgd(config: OptimizationConfig) -> keras.optimizers.Optimizer:
    """Makes SGD with momentum."""
    return SGD(0.0, momentum=config.momentum, nesterov=config.nesterov, name="sgd")


@optimizer(decay_kind="l2", learning_rate=0.6, applies_decay=True)
def lars(
    config: OptimizationConfig, decay: WeightDecay, decayed: Collection[int]
) -> keras.optimizers.Optimizer:
    """Makes SGD with a learning rate per layer."""
    return LARS(config.momentum, decay.l2, decayed)


@optimizer(decay_kind="decoupled", learning_rate=5e-4)
def adamw(config: OptimizationConfig) -> keras.optimizers.Optimizer:
    """Makes AdamW."""
    # Keras counts the updates that were applied, as the correction of the moments must.
    return keras.optimizers.Adam(0.0, **_moments(config, epsilon=1e-8), name="adamw")


def _moments(config: OptimizationConfig, epsilon: float) -> dict[str, float]:
    """Returns the constants of Adam's moments; those that no flag sets are the papers'."""
    given = {"beta_1": config.beta1, "beta_2": config.beta2, "epsilon": config.epsilon}
    usual = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": epsilon}
    return usual | {name: value for name, value in given.items() if value is not None}


# The learning rate of "ResNet strikes back" (Wightman et al. 2021), procedure A3.
@optimizer(decay_kind="decoupled", learning_rate=1e-3, applies_decay=True)
def lamb(
    config: OptimizationConfig, decay: WeightDecay, decayed: Collection[int]
) -> keras.optimizers.Optimizer:
    """Makes AdamW with a learning rate per layer."""
    return LAMB(decay.decoupled, decayed, **_moments(config, epsilon=1e-6))


@optimizer(decay_kind="decoupled", learning_rate=0.4, takes_model=True)
def muon(config: OptimizationConfig, model: keras.Model) -> keras.optimizers.Optimizer:
    """Makes SGD with orthogonal steps of convolutions, except of depthwise ones."""
    kernels = {
        id(layer.kernel): (layer.compute_dtype, layer.groups)
        for layer in model._flatten_layers()
        if isinstance(layer, (Conv, keras.layers.Conv2D)) and layer.groups < layer.filters
    }
    variables = enumerate(model.trainable_variables)
    by_index = {i: kernels[id(v)] for i, v in variables if id(v) in kernels}
    return Muon(config.momentum, config.nesterov, by_index)


# What Keras's optimizers do in `apply`, which the training step does not call.
_UNUSED_ARGUMENTS = {
    "weight_decay": "use --weight_decay",
    "clipnorm": "use --clip_norm",
    "clipvalue": "use --clip_norm",
    "global_clipnorm": "use --clip_norm",
    "use_ema": "use --ema",
    "gradient_accumulation_steps": "use --accumulate",
    "loss_scale_factor": "use --half_dtype",
}


def _check_optimizer(name: str, made: object) -> None:
    """Raises UsageError for what the training step cannot use."""
    where = f"--optimizer={display_name(name)}"
    if not isinstance(made, keras.optimizers.Optimizer):
        raise UsageError(
            f"{where}: returned {type(made).__name__}, and must return a keras.optimizers.Optimizer"
        )
    for method in ("apply", "_backend_update_step"):  # of Nadam, and of optimizers around others
        if getattr(type(made), method) is not getattr(keras.optimizers.Optimizer, method):
            raise UsageError(
                f"{where}: {type(made).__name__} does more than update each variable by itself,"
                " which the training step cannot call; choose another optimizer"
            )
    for argument, advice in _UNUSED_ARGUMENTS.items():
        if value := getattr(made, argument, None):
            raise UsageError(
                f"{where}: {argument}={value} would have no effect; set it to 0, and {advice}"
            )


def get_weight_decay(config: OptimizationConfig) -> WeightDecay:
    """Returns the weight decay of a config, in the form that `--decay_kind` selects."""
    kind = config.decay_kind
    if kind == "auto":
        kind = OPTIMIZERS.get(config.optimizer).facts.decay_kind
    if kind == "l2":
        return WeightDecay(l2=config.weight_decay, decoupled=0.0)
    return WeightDecay(l2=0.0, decoupled=config.weight_decay)


def get_step_weight_decay(config: OptimizationConfig) -> WeightDecay:
    """Returns the weight decay that the training step must apply.

    LARS applies the L2 penalty and LAMB the decoupled decay in the optimizer. Decay of the other
    kind is left to the step.
    """
    decay, facts = get_weight_decay(config), OPTIMIZERS.get(config.optimizer).facts
    if facts.applies_decay:
        return decay._replace(**{facts.decay_kind: 0.0})
    return decay


def apply_gradients(
    strategy: "tf.distribute.Strategy",
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[keras.Variable],
    learning_rate: tf.Tensor,
    decoupled_decay: float = 0.0,
    decayed_ids: Collection[int] = frozenset(),
) -> None:
    """Applies gradients that are already summed over replicas, the same way on each replica.

    Keras's `apply` sums the gradients itself, so the sum could not be checked or clipped.

    Args:
      strategy: the distribution strategy. Call this function in cross-replica context.
      optimizer: built optimizer.
      gradients: one for each variable, equal on all replicas.
      variables: the variables that the optimizer was built with.
      learning_rate: float32 scalar.
      decoupled_decay: decoupled weight decay per unit of learning rate.
      decayed_ids: `id(variable)` of the variables that get the decoupled decay.
    """

    def update_variable(variable: tf.Variable, gradient: tf.Tensor, decays: bool) -> None:
        if decays:
            decay = learning_rate * decoupled_decay
            variable.assign_sub(decay * tf.convert_to_tensor(variable))
        optimizer.update_step(gradient, variable, learning_rate)

    with strategy.scope():
        for gradient, variable in zip(gradients, variables, strict=True):
            decays = bool(decoupled_decay) and id(variable) in decayed_ids
            strategy.extended.update(
                variable.value, update_variable, args=(gradient, decays), group=False
            )
        optimizer.iterations.assign_add(1)


def select_decayed_kernels(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables with weight decay, and logs how many they are.

    These are the kernels of convolutions and dense layers, not biases and norms. They are selected
    by layer attribute, because in Keras 3 the scale of a batch norm is just named `gamma`. A
    filter on names such as "bn" would not exclude it.
    """
    kernels = get_trainable_kernels(model)
    logging.debug(
        "weight decay on %d of %d trainable tensors, %.2f of %.2f million parameters",
        len(kernels),
        len(model.trainable_variables),
        sum(k.value.shape.num_elements() for k in kernels) / 1e6,
        sum(v.value.shape.num_elements() for v in model.trainable_variables) / 1e6,
    )
    return kernels


def get_trainable_kernels(model: keras.Model) -> list[keras.Variable]:
    """Returns the trainable kernels of convolutions and dense layers, from input to output.

    Raises:
      UsageError: it is unknown whether a variable of a layer decays.
    """
    owners = {id(v): layer for layer in model._flatten_layers() for v in layer._trainable_variables}
    return [v for v in model.trainable_variables if _decays(v, owners[id(v)])]


def _decays(variable: keras.Variable, layer: keras.layers.Layer) -> bool:
    """Returns whether a variable gets weight decay, by its name or by `decays` of its layer."""
    name = variable.name
    declared = getattr(layer, "decays", {})
    if name in declared:
        return declared[name]
    if name.endswith("kernel"):
        return True
    if name in ("bias", "gamma", "beta"):
        return False
    raise UsageError(
        f"{variable.path}: weight decay of this variable is not defined; write the line"
        f' decays = {{"{name}": True}} (or False) into the class {type(layer).__name__}'
    )


def get_output_variables(model: keras.Model) -> list[keras.Variable]:
    """Returns the trainable variables of the classifier: the last layer with a kernel."""
    layers = [layer for layer in model.layers if getattr(layer, "kernel", None) is not None]
    return layers[-1].trainable_variables
