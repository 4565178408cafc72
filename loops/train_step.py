"""The training step: forward, backward, one reduction, one decision, one update.

Per step, gradients are summed over replicas once. The sum is finite on every replica or on none,
so all of them decide alike, without a second reduction, whether the step is applied. A step that
is not applied still counts: schedules and data follow the step number.
"""

import dataclasses
import time

import tensorflow as tf

from loops.optimization import gradient_clipping, losses, optimizers
from nets.layers import random_layers


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What the step needs to know besides its variables.

    Attributes:
      global_batch_size: images of one step, over all replicas and micro-batches.
      prepare: function from a batch to (images, Targets), see `batch_augment.make_preprocess_fn`.
      learning_rate: function from the int64 step to a float32 scalar.
      optimization: OptimizationConfig: loss, decay, clipping, accumulation.
      xla: compile forward and backward pass.
      log_norms: return the norm of every gradient.
      replicas_meet: the forward pass waits for the other replicas, as synchronised batch norm does.
      deterministic: TensorFlow was told to be.
    """

    global_batch_size: int
    prepare: object
    learning_rate: object
    optimization: object
    xla: bool = False
    log_norms: bool = False
    replicas_meet: bool = False
    deterministic: bool = False


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
      asked are done only when `loss_scale.hopeless()`. With `log_norms` also `gradient_norms`,
      float32 [number of trainable variables] of the last step, before any clipping.
    """
    # AutoGraph would convert everything below, the net among it, which takes as long as tracing.
    return tf.function(_TrainStep(state, settings).run, autograph=False)


class _TrainStep:
    """The parts of the step, in the order in which they run."""

    def __init__(self, state, settings):
        self._state = state
        self._settings = settings
        self._variables = state.model.trainable_variables
        self._decayed = frozenset(id(kernel) for kernel in state.kernels)
        self._output_variable_ids = frozenset(
            id(v) for v in optimizers.get_output_variables(state.model)
        )
        self._l2, self._decoupled_decay = optimizers.get_step_weight_decay(settings.optimization)
        self._loss = losses.LOSSES[settings.optimization.loss]
        self._clock = _python_clock if settings.deterministic else tf.timestamp
        # XLA takes the passes of one replica, and not the reduction over all of them.
        self._compute_gradients = self._forward_and_backward
        if settings.xla:
            self._compute_gradients = tf.function(
                self._forward_and_backward, jit_compile=True, autograph=False
            )

    def run(self, iterator, num_steps):
        """The inner loop; see `make_train_step`."""

        def another(done, hopeless, *_):
            return (done < num_steps) & ~hopeless

        def step(done, _, totals, __):
            batch, waited = time_next_batch(iterator, self._clock)
            results, norms = self._train_one_step(batch)
            results = {"data_wait": waited, **results}
            totals = {name: total + results[name] for name, total in totals.items()}
            return done + 1, self._state.loss_scale.should_stop(), totals, norms

        totals = {name: tf.constant(0.0) for name in ("steps", "applied", "data_wait", *_SUMS)}
        norms = tf.zeros([len(self._variables)])
        start = (tf.constant(0, tf.int64), tf.constant(False), totals, norms)
        _, _, totals, norms = tf.while_loop(another, step, start)
        return {**totals, "gradient_norms": norms} if self._settings.log_norms else totals

    def _train_one_step(self, batch):
        state = self._state
        strategy = state.strategy
        scale = tf.convert_to_tensor(state.loss_scale.scale)  # XLA reads no variable of a neighbour
        gradients, finite, sums = strategy.run(self._compute_reduced_gradients, args=(batch, scale))
        # All replicas hold the same sums: the first one's speak for all.
        finite = strategy.experimental_local_results(finite)[0]
        sums = strategy.experimental_local_results(sums)[0]
        norms = tf.cond(
            finite, lambda: self._update(gradients), lambda: tf.zeros([len(self._variables)])
        )
        state.loss_scale.update(finite)
        state.step.assign_add(1)
        sums = dict(zip(_SUMS, tf.unstack(sums), strict=True))
        state.replaced.assign_add(tf.cast(sums["replaced"], tf.int64))
        # A NaN loss of a skipped step must not become the mean of a whole log line.
        for name in ("loss", "top1", "top5"):
            sums[name] = tf.where(finite, sums[name], 0.0)
        applied = tf.cast(finite, tf.float32)
        return {"steps": tf.constant(1.0), "applied": applied, **sums}, norms

    def _compute_reduced_gradients(self, batch, scale):
        """Returns the gradients summed over replicas, whether they are finite, and the sums."""
        gradients, sums = self._accumulate_gradients(batch, scale)
        context = tf.distribute.get_replica_context()
        *gradients, sums = context.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, sums])
        # One pass over memory: a sum of squares is finite only if every addend is.
        squares = tf.add_n([tf.nn.l2_loss(g) for g in gradients])
        return gradients, tf.math.is_finite(squares) & tf.math.is_finite(sums[0]), sums

    def _accumulate_gradients(self, batch, scale):
        """Gradients and sums of a replica's images, one micro-batch of them after the other.

        The replica's images are cut into equal runs. With R replicas and K micro-batches these
        are the runs of R x K replicas without accumulation: batch norm takes its moments over
        each of them, and augmentation mixes images only within them.
        """
        parts = self._settings.optimization.accumulate
        if parts == 1:
            return self._compute_micro_batch_gradients(batch, scale)

        size = batch["label"].shape[0] // parts
        runs = {k: tf.reshape(v, [parts, size, *v.shape[1:]]) for k, v in batch.items()}

        def add(number, totals, sums):
            run = {name: values[number] for name, values in runs.items()}
            gradients, more = self._compute_micro_batch_gradients(run, scale)
            totals = [t + g for t, g in zip(totals, gradients, strict=True)]
            return number + 1, totals, sums + more

        totals = (tf.constant(0), [tf.zeros(v.shape) for v in self._variables])
        totals = (*totals, tf.zeros([len(_SUMS)]))
        if self._settings.replicas_meet:
            # Replicas cannot meet inside of a loop of the graph: one micro-batch after another.
            for _ in range(parts):
                with tf.control_dependencies(tf.nest.flatten(totals)):
                    totals = add(tf.identity(totals[0]), *totals[1:])
        else:
            totals = tf.while_loop(
                lambda number, *_: number < parts, add, totals, parallel_iterations=1
            )
        return totals[1:]

    def _compute_micro_batch_gradients(self, batch, scale):
        images, targets = self._settings.prepare(batch)
        random_layers.assign_samples(self._state.model, self._state.seed, batch["sample"][0])
        gradients, logits, per_example = self._compute_gradients(images, targets, scale)
        ranks = losses.label_ranks(batch["label"], logits)
        counted = (ranks < 1, ranks < 5, batch["replaced"] > 0)
        counts = [tf.reduce_sum(tf.cast(c, tf.float32)) for c in counted]
        return gradients, tf.stack([tf.reduce_sum(per_example), *counts])

    def _forward_and_backward(self, images, targets, scale):
        """Returns the gradients of the scaled loss, the logits, and the loss of each image."""
        settings = self._settings
        smoothing = settings.optimization.label_smoothing
        with tf.GradientTape() as tape:
            logits = self._state.model(images, training=True)
            per_example = self._loss(targets, logits, smoothing)
            scaled_loss = tf.reduce_sum(per_example) / settings.global_batch_size * scale
        return tape.gradient(scaled_loss, self._variables), logits, per_example

    def _update(self, gradients):
        """Changes the weights; returns the norms of the gradients."""
        state = self._state
        gradients, norms = state.strategy.run(self._finished, args=(gradients,))
        learning_rate = self._settings.learning_rate(state.step)
        optimizers.apply_gradients(
            state.strategy,
            state.optimizer,
            gradients,
            self._variables,
            learning_rate,
            decoupled_decay=self._decoupled_decay,
            decayed_ids=self._decayed,
        )
        if state.ema is not None:
            state.strategy.run(state.ema.update, args=(state.step,))
        return state.strategy.experimental_local_results(norms)[0]

    def _finished(self, gradients):
        """Undoes the loss scale, clips, and adds the gradient of the L2 penalty."""
        loss_scale, optimization = self._state.loss_scale, self._settings.optimization
        if loss_scale.dynamic:
            inverse = 1.0 / loss_scale.scale
            gradients = [g * inverse for g in gradients]
        norms = tf.zeros([len(gradients)])
        if self._settings.log_norms:
            norms = gradient_clipping.compute_norms(gradients)
        if optimization.clip_factor:
            clipped = [
                i for i, v in enumerate(self._variables) if id(v) not in self._output_variable_ids
            ]
            weights = [tf.convert_to_tensor(self._variables[i]) for i in clipped]
            smaller = gradient_clipping.adaptive_grad_clip(
                [gradients[i] for i in clipped], weights, optimization.clip_factor
            )
            gradients = [*gradients]
            for i, gradient in zip(clipped, smaller, strict=True):
                gradients[i] = gradient
        if optimization.clip_norm:
            gradients = gradient_clipping.clip_by_global_norm(gradients, optimization.clip_norm)
        gradients = [
            g + self._l2 * v if self._l2 and id(v) in self._decayed else g
            for g, v in zip(gradients, self._variables, strict=True)
        ]
        return gradients, norms


def _python_clock():
    """As tf.timestamp, which refuses to run where operations must be deterministic."""
    now = tf.numpy_function(time.time, [], tf.float64)
    return tf.ensure_shape(now, [])


def time_next_batch(iterator, clock=tf.timestamp):
    """Takes a batch; returns it and the seconds waited for it, by a function like tf.timestamp."""
    before = clock()
    with tf.control_dependencies([before]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        after = clock()
    # Nobody gets the batch before the clock is read: with a single thread for operations, the
    # step would be computed first and counted as waiting.
    with tf.control_dependencies([after]):
        batch = tf.nest.map_structure(_identity_on_own_device, batch, expand_composites=True)
    return batch, tf.cast(after - before, tf.float32)


def _identity_on_own_device(tensor):
    with tf.device(tensor.device):
        return tf.identity(tensor)
