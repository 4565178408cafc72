"""The training step: forward, backward, one reduction, one decision, one update.

Per step, gradients are summed over replicas once. The sum is finite on every replica or on none,
so all of them decide alike, without a second reduction, whether the step is applied. A step that
is not applied still counts: schedules and data follow the step number.
"""

import dataclasses

import tensorflow as tf

from loops.step import losses, optimizers
from nets import random_layers


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What the step needs to know besides its variables.

    Attributes:
      global_batch_size: images of one step, over all replicas.
      prepare: function from a batch to (images, Targets), see `batch_augment.make_prepare`.
      label_smoothing: see `losses.cross_entropy`.
      weight_decay: L2 penalty of the decayed kernels.
      learning_rate: function from the int64 step to a float32 scalar.
    """

    global_batch_size: int
    prepare: object
    label_smoothing: float
    weight_decay: float
    learning_rate: object


# Sums over images that a replica reports, in this order; all are reduced in one message.
_SUMS = ("loss", "top1", "top5", "replaced")


def make_train_step(state, settings):
    """Builds the compiled training step.

    Args:
      state: TrainState, whose variables the step reads and writes.
      settings: StepSettings.

    Returns:
      tf.function (iterator, num_steps: int64 scalar tensor) -> dict of float32 scalars, summed
      over the steps done: `steps`, `applied` (steps), `loss`, `top1`, `top5` (over the images of
      applied steps), `replaced` (unreadable images), `data_wait` (seconds). Fewer steps than
      asked are done only when `loss_scale.hopeless()`.
    """
    return tf.function(_TrainStep(state, settings).run)


class _TrainStep:
    """The parts of the step, in the order in which they run."""

    def __init__(self, state, settings):
        self._state = state
        self._settings = settings
        self._variables = state.model.trainable_variables
        self._decayed = {id(kernel) for kernel in state.kernels}

    def run(self, iterator, num_steps):
        """The inner loop; see `make_train_step`."""
        totals = {name: tf.constant(0.0) for name in ("steps", "applied", "data_wait", *_SUMS)}
        for _ in tf.range(num_steps):
            batch, waited = timed_next(iterator)
            results = {"data_wait": waited, **self._one_step(batch)}
            totals = {name: total + results[name] for name, total in totals.items()}
            if self._state.loss_scale.hopeless():
                break
        return totals

    def _one_step(self, batch):
        state = self._state
        strategy = state.strategy
        gradients, finite, sums = strategy.run(
            self._replica_gradients, args=(batch, state.loss_scale.scale)
        )
        # All replicas hold the same sums: the first one's speak for all.
        finite = strategy.experimental_local_results(finite)[0]
        sums = strategy.experimental_local_results(sums)[0]
        if finite:
            self._update(gradients)
        state.loss_scale.update(finite)
        state.step.assign_add(1)
        sums = dict(zip(_SUMS, tf.unstack(sums), strict=True))
        state.replaced.assign_add(tf.cast(sums["replaced"], tf.int64))
        # A NaN loss of a skipped step must not become the mean of a whole log line.
        for name in ("loss", "top1", "top5"):
            sums[name] = tf.where(finite, sums[name], 0.0)
        return {"steps": tf.constant(1.0), "applied": tf.cast(finite, tf.float32), **sums}

    def _replica_gradients(self, batch, scale):
        """Returns the gradients summed over replicas, whether they are finite, and the sums."""
        settings = self._settings
        images, targets = settings.prepare(batch)
        random_layers.assign_samples(self._state.model, self._state.seed, batch["sample"][0])
        with tf.GradientTape() as tape:
            logits = self._state.model(images, training=True)
            per_example = losses.cross_entropy(targets, logits, settings.label_smoothing)
            scaled_loss = tf.reduce_sum(per_example) / settings.global_batch_size * scale
        gradients = tape.gradient(scaled_loss, self._variables)
        ranks = losses.label_ranks(batch["label"], logits)
        counted = (ranks < 1, ranks < 5, batch["replaced"] > 0)
        counts = [tf.reduce_sum(tf.cast(c, tf.float32)) for c in counted]
        sums = tf.stack([tf.reduce_sum(per_example), *counts])
        context = tf.distribute.get_replica_context()
        *gradients, sums = context.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, sums])
        # One pass over memory: a sum of squares is finite only if every addend is.
        squares = tf.add_n([tf.nn.l2_loss(g) for g in gradients])
        return gradients, tf.math.is_finite(squares) & tf.math.is_finite(sums[0]), sums

    def _update(self, gradients):
        state = self._state
        gradients = state.strategy.run(self._unscaled_and_decayed, args=(gradients,))
        learning_rate = self._settings.learning_rate(state.step)
        optimizers.update(
            state.strategy, state.optimizer, gradients, self._variables, learning_rate
        )

    def _unscaled_and_decayed(self, gradients):
        """Undoes the loss scale and adds the gradient of the L2 penalty."""
        loss_scale, weight_decay = self._state.loss_scale, self._settings.weight_decay
        if loss_scale.dynamic:
            inverse = 1.0 / loss_scale.scale
            gradients = [g * inverse for g in gradients]
        return [
            g + weight_decay * v if weight_decay and id(v) in self._decayed else g
            for g, v in zip(gradients, self._variables, strict=True)
        ]


def timed_next(iterator):
    """Takes a batch; returns it and the seconds waited for it."""
    before = tf.timestamp()
    with tf.control_dependencies([before]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        return batch, tf.cast(tf.timestamp() - before, tf.float32)
