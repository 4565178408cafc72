"""The training step: forward, backward, one reduction, one decision, one update.

Per step, gradients are summed over replicas once. The sum is finite on every replica or on none,
so all of them decide alike, without a second reduction, whether the step is applied. A step that
is not applied still counts: schedules and data follow the step number.
"""

import dataclasses

import tensorflow as tf

from input_pipeline import batch_augment
from loops.step import losses, optimizers


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What the step needs to know besides its variables.

    Attributes:
      global_batch_size: images of one step, over all replicas.
      mean, std: of the training pixels, 0..255.
      label_smoothing: see `losses.cross_entropy`.
      weight_decay: L2 penalty of the decayed kernels.
      learning_rate: function from the int64 step to a float32 scalar.
    """

    global_batch_size: int
    mean: tuple
    std: tuple
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
    strategy, model, optimizer = state.strategy, state.model, state.optimizer
    loss_scale = state.loss_scale
    variables = model.trainable_variables
    decayed = {id(kernel) for kernel in state.kernels}

    def replica_step(batch, scale):
        """Returns this replica's copy of the summed gradients and sums of metrics."""
        images = batch_augment.normalize(batch["image"], settings.mean, settings.std)
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            per_example = losses.cross_entropy(batch["label"], logits, settings.label_smoothing)
            loss = tf.reduce_sum(per_example) / settings.global_batch_size
            scaled_loss = loss * scale
        gradients = tape.gradient(scaled_loss, variables)
        ranks = losses.label_ranks(batch["label"], logits)
        replaced = tf.cast(batch["replaced"] > 0, tf.float32)
        sums = tf.stack(
            [
                tf.reduce_sum(per_example),
                tf.reduce_sum(tf.cast(ranks < 1, tf.float32)),
                tf.reduce_sum(tf.cast(ranks < 5, tf.float32)),
                tf.reduce_sum(replaced),
            ]
        )
        context = tf.distribute.get_replica_context()
        *gradients, sums = context.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, sums])
        # One pass over memory: a sum of squares is finite only if every addend is.
        squares = tf.add_n([tf.nn.l2_loss(g) for g in gradients])
        return gradients, tf.math.is_finite(squares) & tf.math.is_finite(sums[0]), sums

    def with_decay(gradients):
        """Undoes the loss scale and adds the gradient of the L2 penalty."""
        inverse = 1.0 / loss_scale.scale
        weight_decay = settings.weight_decay
        return [
            g * inverse + weight_decay * v if id(v) in decayed and weight_decay else g * inverse
            for g, v in zip(gradients, variables, strict=True)
        ]

    def apply(gradients):
        gradients = strategy.run(with_decay, args=(gradients,))
        learning_rate = settings.learning_rate(state.step)
        optimizers.update(strategy, optimizer, gradients, variables, learning_rate)

    def one_step(batch):
        gradients, finite, sums = strategy.run(replica_step, args=(batch, loss_scale.scale))
        finite = strategy.experimental_local_results(finite)[0]
        sums = strategy.experimental_local_results(sums)[0]
        if finite:
            apply(gradients)
        loss_scale.update(finite)
        state.step.assign_add(1)
        state.replaced.assign_add(tf.cast(sums[_SUMS.index("replaced")], tf.int64))
        applied = tf.cast(finite, tf.float32)
        sums = dict(zip(_SUMS, tf.unstack(sums), strict=True))
        # A NaN loss of a skipped step must not become the mean of a whole log line.
        for name in ("loss", "top1", "top5"):
            sums[name] = tf.where(finite, sums[name], 0.0)
        return {"steps": tf.constant(1.0), "applied": applied, **sums}

    @tf.function
    def train_step(iterator, num_steps):
        totals = {name: tf.constant(0.0) for name in ("steps", "applied", "data_wait", *_SUMS)}
        for _ in tf.range(num_steps):
            batch, waited = timed_next(iterator)
            results = one_step(batch)
            totals = {
                name: totals[name] + (waited if name == "data_wait" else results[name])
                for name in totals
            }
            if loss_scale.hopeless():
                break
        return totals

    return train_step


def timed_next(iterator):
    """Takes a batch; returns it and the seconds waited for it."""
    before = tf.timestamp()
    with tf.control_dependencies([before]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        return batch, tf.cast(tf.timestamp() - before, tf.float32)
