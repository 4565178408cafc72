"""The training step: forward, backward, one all-reduce, one check for finite gradients, one update.

Reading order: `TrainStep.__call__` runs steps in a graph loop, `_train_one_step` runs one of them,
`loss_and_gradients` defines what is optimized. Losses, clipping and optimizers are in
`loops/optimization/`.

Gradients are summed over replicas once per step. The sum is finite on all replicas or on none, so
all replicas make the same decision whether to apply it, without a second all-reduce. A skipped step
counts as a step: schedules and data follow the step number.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import keras
import tensorflow as tf

from input_pipeline.augmentation.batch_augment import Targets
from input_pipeline.config import DataConfig
from input_pipeline.errors import UsageError
from loops.checkpointing import restore, run_folder
from loops.config.choices import STEPS
from loops.config.training import OptimizationConfig
from loops.optimization import gradient_clipping, losses, optimizers
from loops.train_state import TrainState
from nets.layers import random_layers

Batch = dict[str, tf.Tensor]
# Type of `StepSettings.preprocess`.
PreprocessFunction = Callable[[Batch], tuple[tf.Tensor, Targets]]
# Type of `TrainStep.__call__`.
StepFunction = Callable[[Iterator[Batch], tf.Tensor], dict[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What the step needs besides its variables.

    Attributes:
      global_batch_size: images per step, over all replicas and micro-batches.
      preprocess: batch -> (images, Targets), see `batch_augment.make_preprocess_fn`.
      learning_rate: int64 step -> float32 scalar.
      optimization: loss, weight decay, clipping, accumulation.
      xla: compile the forward and backward pass.
      log_norms: return the norm of every gradient.
      replicas_synchronize: replicas wait for each other in the forward pass, for batch norm.
      data: how images are read and normalized.
      deterministic: TensorFlow runs with deterministic operations.
    """

    global_batch_size: int
    preprocess: PreprocessFunction
    learning_rate: Callable[[tf.Tensor], tf.Tensor]
    optimization: OptimizationConfig
    xla: bool = False
    log_norms: bool = False
    replicas_synchronize: bool = False
    data: DataConfig = DataConfig()
    deterministic: bool = False


# Names of the per-replica sums over images, in this order. One all-reduce sums all of them.
_SUM_NAMES = ("loss", "cross_entropy", "top1", "top5", "replaced")


# The decorator of subclasses of TrainStep.
step = STEPS


@step
class TrainStep:
    """The compiled training step.

    A subclass, in a file that `--step` names, overrides `compute_loss` or `loss_and_gradients` to
    change what is optimized, `measure` to log more, or `after_update`.

    Args:
      state: variables that the step reads and writes.
      settings: everything else.

    Attributes:
      measured: names of the values that `measure` returns.
      function: the tf.function behind `__call__`.
    """

    measured: ClassVar[Sequence[str]] = ()

    def __init__(self, state: TrainState, settings: StepSettings):
        self._state = state
        self._settings = settings
        self._sum_names = (*_SUM_NAMES, *(f"measured/{name}" for name in self.measured))
        self._variables = state.model.trainable_variables
        self._decayed_ids = frozenset(id(kernel) for kernel in state.kernels)
        self._output_variable_ids = frozenset(
            id(v) for v in optimizers.get_output_variables(state.model)
        )
        self._l2, self._decoupled_decay = optimizers.get_step_weight_decay(settings.optimization)
        self._clock = _python_clock if settings.deterministic else tf.timestamp
        # XLA compiles the passes of one replica. It cannot compile the all-reduce.
        self._compiled_loss_and_gradients = self.loss_and_gradients
        if settings.xla:
            self._compiled_loss_and_gradients = tf.function(
                self.loss_and_gradients, jit_compile=True, autograph=False
            )
        # AutoGraph would convert everything that is called from here, the model included, which
        # takes as long as tracing.
        self.function = tf.function(self._run, autograph=False)

    def __call__(self, iterator: Iterator[Batch], num_steps: tf.Tensor) -> dict[str, tf.Tensor]:
        """Runs `num_steps` steps; fewer only if `LossScale.should_stop` becomes true.

        Args:
          iterator: batches of the replicas, see `TrainInput.make_iterator`.
          num_steps: int64 scalar.

        Returns:
          dict of float32 scalars, summed over the steps:
            steps, applied: numbers of steps and of applied steps.
            loss: what is optimized. Sums over images skip steps that were not applied.
            cross_entropy, top1, top5: by the rules of evaluation.
            measured/NAME: what `measure` returns.
            replaced: number of unreadable images.
            data_wait: seconds.
            gradient_norms: with `log_norms`. Norms in the last step, before clipping, float32
              [number of trainable variables]; zeros if it was skipped.
        """
        return self.function(iterator, num_steps)

    def compute_loss(self, images: tf.Tensor, targets: Targets, logits: tf.Tensor) -> tf.Tensor:
        """Computes the loss of each image of a micro-batch: float32 [B].

        Args:
          images, targets: see `loss_and_gradients`.
          logits: float32 [B, C].
        """
        optimization = self._settings.optimization
        return losses.compute(optimization.loss, targets, logits, optimization.label_smoothing)

    def measure(
        self, images: tf.Tensor, targets: Targets, logits: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Returns values of the images to log, float32 [B], by the names in `measured`.

        Their means since the last log line are `measured/NAME` in TensorBoard and metrics.jsonl.
        `loss_and_gradients` can return others of these names.

        Args:
          images, targets, logits: see `compute_loss`.
        """
        return {}

    def forward(self, images: tf.Tensor, pass_number: int) -> tf.Tensor:
        """Returns the logits of one of several forward passes of the same images in training.

        Dropout and stochastic depth draw the same masks in passes of the same number.

        Args:
          images: see `loss_and_gradients`.
          pass_number: 0 draws the masks of a step with a single pass.

        Returns:
          float32 [B, C].
        """
        random_layers.start_pass(self._state.model, pass_number)
        return self._state.model(images, training=True)

    def after_update(self) -> None:
        """Called after each update of the weights, once for all replicas. Does nothing."""

    def load_model(self, run: str) -> keras.Model:
        """Loads the model of another run, such as the teacher of a distillation.

        Its variables are not trained, and are not part of the checkpoints of this run.

        Args:
          run: RUN, RUN/best or a step folder.

        Raises:
          UsageError: it has other classes, or was trained on images with another normalization.
        """
        run_dir, step_dir = run_folder.find_checkpoint(run, "--step")
        record, data = run_folder.read_record(run_dir), self._settings.data
        classes = self._state.model.output.shape[-1]
        if len(record.class_names) != classes:
            raise UsageError(
                f"--step: {run} has {len(record.class_names)} classes, and this run has {classes}"
            )
        theirs = (record.config.data.mean, record.config.data.std)
        if theirs != (data.mean, data.std):
            raise UsageError(
                f"--step: {run} was trained with another normalization; start this run with"
                f" --init_from={run}, or normalize the images again in the step"
            )
        return restore.restore_model(
            self._state.strategy, record, step_dir, self._state.compute_dtype
        )

    def loss_and_gradients(
        self, images: tf.Tensor, targets: Targets, scale: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Computes the loss of one micro-batch and its gradients on one replica.

        This is the method to override: the other parts of the step do not depend on what the loss
        is. The gradients must be those of `sum(loss) / global_batch_size * scale`. They are then
        summed over micro-batches and replicas, unscaled and clipped.

        Args:
          images: float32 [B, S, S, 3], normalized and augmented.
          targets: labels of the B images, and of their partners in mixup and CutMix.
          scale: float32 scalar, the loss scale.

        Returns:
          (float32 loss [B], float32 logits [B, C], gradients of `model.trainable_variables`). A
          fourth item may be a dict of values to log, like that of `measure`.
        """
        with tf.GradientTape() as tape:
            logits = self._state.model(images, training=True)
            per_example = self.compute_loss(images, targets, logits)
            _require_per_image("compute_loss returned a loss", per_example, images)
            scaled_loss = tf.reduce_sum(per_example) / self._settings.global_batch_size * scale
        return per_example, logits, tape.gradient(scaled_loss, self._variables)

    def _run(self, iterator, num_steps):
        """Loops over steps in the graph, see `__call__`."""

        def should_continue(step, should_stop, *_):
            return (step < num_steps) & ~should_stop

        def run_step(step, _, totals, __):
            batch, waited = time_next_batch(iterator, self._clock)
            results, norms = self._train_one_step(batch)
            results = {"data_wait": waited, **results}
            totals = {name: total + results[name] for name, total in totals.items()}
            return step + 1, self._state.loss_scale.should_stop(), totals, norms

        names = ("steps", "applied", "data_wait", *self._sum_names)
        totals = {name: tf.constant(0.0) for name in names}
        norms = tf.zeros([len(self._variables)])
        start = (tf.constant(0, tf.int64), tf.constant(False), totals, norms)
        _, _, totals, norms = tf.while_loop(should_continue, run_step, start)
        return {**totals, "gradient_norms": norms} if self._settings.log_norms else totals

    def _train_one_step(self, batch):
        state = self._state
        strategy = state.strategy
        # XLA cannot read variables that are on other devices.
        scale = tf.convert_to_tensor(state.loss_scale.scale)
        gradients, finite, sums = strategy.run(self._compute_reduced_gradients, args=(batch, scale))
        # All replicas hold the same sums; take the first replica's.
        finite = strategy.experimental_local_results(finite)[0]
        sums = strategy.experimental_local_results(sums)[0]
        norms = tf.cond(
            finite, lambda: self._update(gradients), lambda: tf.zeros([len(self._variables)])
        )
        state.loss_scale.update(finite)
        state.step.assign_add(1)
        sums = dict(zip(self._sum_names, tf.unstack(sums), strict=True))
        state.replaced.assign_add(tf.cast(sums["replaced"], tf.int64))
        # A NaN loss of a skipped step would make the mean of a whole log line NaN.
        for name in sums.keys() - {"replaced"}:
            sums[name] = tf.where(finite, sums[name], 0.0)
        applied = tf.cast(finite, tf.float32)
        return {"steps": tf.constant(1.0), "applied": applied, **sums}, norms

    def _compute_reduced_gradients(self, batch, scale):
        """Returns gradients summed over replicas, whether they are finite, and the sums."""
        gradients, sums = self._accumulate_gradients(batch, scale)
        context = tf.distribute.get_replica_context()
        *gradients, sums = context.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, sums])
        # One pass over memory: a sum of squares is finite only if every addend is.
        squares = tf.add_n([tf.nn.l2_loss(g) for g in gradients])
        return gradients, tf.math.is_finite(squares) & tf.math.is_finite(sums[0]), sums

    def _accumulate_gradients(self, batch, scale):
        """Returns gradients and sums of a replica's batch, summed over its micro-batches.

        R replicas with K micro-batches each compute what R x K replicas compute: batch norm takes
        its moments over one micro-batch, and augmentation mixes images within one micro-batch.
        """
        count = self._settings.optimization.accumulate
        if count == 1:
            return self._compute_micro_batch_gradients(batch, scale)

        size = batch["label"].shape[0] // count
        micro_batches = {k: tf.reshape(v, [count, size, *v.shape[1:]]) for k, v in batch.items()}

        def add(index, totals, sums):
            micro_batch = {name: values[index] for name, values in micro_batches.items()}
            gradients, more = self._compute_micro_batch_gradients(micro_batch, scale)
            totals = [t + g for t, g in zip(totals, gradients, strict=True)]
            return index + 1, totals, sums + more

        totals = (tf.constant(0), [tf.zeros(v.shape) for v in self._variables])
        totals = (*totals, tf.zeros([len(self._sum_names)]))
        if self._settings.replicas_synchronize:
            # Collectives do not work in a loop of the graph, so the loop is unrolled.
            for _ in range(count):
                with tf.control_dependencies(tf.nest.flatten(totals)):
                    totals = add(tf.identity(totals[0]), *totals[1:])
        else:
            totals = tf.while_loop(
                lambda index, *_: index < count, add, totals, parallel_iterations=1
            )
        return totals[1:]

    def _compute_micro_batch_gradients(self, batch, scale):
        images, targets = self._settings.preprocess(batch)
        random_layers.assign_samples(self._state.model, self._state.seed, batch["sample"][0])
        results = self._compiled_loss_and_gradients(images, targets, scale)
        if not isinstance(results, (tuple, list)) or len(results) not in (3, 4):
            raise UsageError(
                "--step: loss_and_gradients must return the loss of each image, the logits and the"
                " gradients, and may return a dict of values to log"
            )
        per_example, logits, gradients, *more = results
        _require_per_image("loss_and_gradients returned a loss", per_example, images)
        ranks = losses.label_ranks(targets, logits)
        events = (ranks < 1, ranks < 5, batch["replaced"] > 0)
        values = [per_example, losses.cross_entropy(targets, logits)]
        values += [tf.cast(event, tf.float32) for event in events]
        values += self._measure(images, targets, logits, *more)
        return gradients, tf.stack([tf.reduce_sum(value) for value in values])

    def _measure(self, images, targets, logits, *computed):
        """Returns the values to log in the order of `measured`."""
        values = {}
        for more in (self.measure(images, targets, logits), *computed):
            if not isinstance(more, dict):
                kind = type(more).__name__
                raise UsageError(f"--step: measure returned {kind}, and must return a dict")
            values |= more
        if values.keys() != {*self.measured}:
            raise UsageError(
                f"--step: measure returned {', '.join(values) or 'nothing'}, but measured is"
                f" {', '.join(self.measured) or 'empty'}"
            )
        for name, value in values.items():
            _require_per_image(f"measure returned {name}", value, images)
        return [tf.cast(values[name], tf.float32) for name in self.measured]

    def _update(self, gradients):
        """Updates the weights; returns the norms of the gradients."""
        state = self._state
        gradients, norms = state.strategy.run(self._postprocess_gradients, args=(gradients,))
        learning_rate = self._settings.learning_rate(state.step)
        optimizers.apply_gradients(
            state.strategy,
            state.optimizer,
            gradients,
            self._variables,
            learning_rate,
            decoupled_decay=self._decoupled_decay,
            decayed_ids=self._decayed_ids,
        )
        if state.ema is not None:
            state.strategy.run(state.ema.update, args=(state.step,))
        self.after_update()
        return state.strategy.experimental_local_results(norms)[0]

    def _postprocess_gradients(self, gradients):
        """Removes the loss scale, clips, and adds the gradient of the L2 penalty."""
        loss_scale, optimization = self._state.loss_scale, self._settings.optimization
        if loss_scale.dynamic:
            inverse = 1.0 / loss_scale.scale
            gradients = [g * inverse for g in gradients]
        norms = tf.zeros([len(gradients)])
        if self._settings.log_norms:
            norms = gradient_clipping.compute_norms(gradients)
        if optimization.clip_factor:
            gradients = self._clip_adaptively(gradients, optimization.clip_factor)
        if optimization.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, optimization.clip_norm)
        gradients = [
            g + self._l2 * v if self._l2 and id(v) in self._decayed_ids else g
            for g, v in zip(gradients, self._variables, strict=True)
        ]
        return gradients, norms

    def _clip_adaptively(self, gradients, clip_factor):
        """Applies AGC to all but the gradients of the output layer, as in Brock et al. 2021."""
        indices = [
            i for i, v in enumerate(self._variables) if id(v) not in self._output_variable_ids
        ]
        weights = [tf.convert_to_tensor(self._variables[i]) for i in indices]
        clipped = gradient_clipping.adaptive_grad_clip(
            [gradients[i] for i in indices], weights, clip_factor
        )
        gradients = [*gradients]
        for i, gradient in zip(indices, clipped, strict=True):
            gradients[i] = gradient
        return gradients


def _require_per_image(what, value, images):
    """Raises UsageError unless a tensor of user code has one number for each image."""
    shape = tf.convert_to_tensor(value).shape
    if shape.as_list() != [images.shape[0]]:
        raise UsageError(
            f"--step: {what} of shape {shape}, and must return one number for each of the"
            f" {images.shape[0]} images"
        )


def _python_clock():
    """Stands in for tf.timestamp, which raises an error under op determinism."""
    now = tf.numpy_function(time.time, [], tf.float64)
    return tf.ensure_shape(now, [])


def time_next_batch(
    iterator: Iterator[Batch], clock: Callable[[], tf.Tensor] = tf.timestamp
) -> tuple[Batch, tf.Tensor]:
    """Returns the next batch and the seconds waited for it, float32.

    Args:
      iterator: of batches, inside a tf.function.
      clock: returns float64 seconds.
    """
    before = clock()
    with tf.control_dependencies([before]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        after = clock()
    # Read the clock before the batch is used. With a single thread for operations, the step would
    # otherwise run first and count as waiting.
    with tf.control_dependencies([after]):
        batch = tf.nest.map_structure(_identity_on_own_device, batch, expand_composites=True)
    return batch, tf.cast(after - before, tf.float32)


def _identity_on_own_device(tensor):
    with tf.device(tensor.device):
        return tf.identity(tensor)
