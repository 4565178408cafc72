"""Batch norm's statistics for evaluations and checkpoints.

Moving averages lag behind the weights. Early in training, weights change so fast that the averages
do not fit them. On the built-in data set, the loss of ResNetV2-50 after one epoch is 118 with
moving averages and 1.9 with measured statistics.
"""

import tensorflow as tf
from absl import logging

from input_pipeline.arithmetic import ceil_div
from input_pipeline.errors import UserError
from input_pipeline.text import summarize_error
from loops.distribution import strategies
from loops.train_setup import TrainSetup
from nets.layers import batch_norm, random_layers

EARLY_STEPS = 1000
_NUM_IMAGES = 512


class TrainStatistics:
    """Prepares the statistics of a run's model, and of its EMA, for use outside of training.

    In the first `EARLY_STEPS` steps, the statistics are measured on the first images of training
    with the current weights (Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3). They
    depend on nothing else, so they are the same in a run that was interrupted or made longer. Later
    steps use the moving averages, averaged over the replicas.

    Args:
      setup: `build` was called.
    """

    def __init__(self, setup: TrainSetup):
        self._state = setup.state
        self._workers = setup.workers
        self._input = setup.train_input
        self._preprocess = setup.preprocess
        self._micro_batches = setup.config.optimization.accumulate
        num_images = min(_NUM_IMAGES, setup.train_split.num_examples)
        self._num_batches = ceil_div(num_images, setup.config.data.batch_size)
        self._has_statistics = bool(strategies.moving_statistics(self._state.model))
        self._forward = tf.function(self._run_forward, autograph=False)
        self._measured_at: int | None = None
        # Step that the image size of the batches began at, and the batches.
        self._batches: tuple[int, list] | None = None

    def will_measure(self, step: int) -> bool:
        """Returns whether `update` would measure statistics, which takes a while."""
        return step <= EARLY_STEPS and self._has_statistics and step != self._measured_at

    def update(self, step: int) -> None:
        """Call this before each evaluation and each save, and at `EARLY_STEPS`."""
        if step > EARLY_STEPS or not self._has_statistics:
            self._batches = None
            self._state.average_batch_norm()
        elif self.will_measure(step):
            # All workers must join each sum over the replicas.
            (failed,) = self._workers.all_reduce_max(not self._load_batches(step))
            if failed:
                self._state.average_batch_norm()
            else:
                self._measure()
            self._measured_at = step

    def _load_batches(self, step: int) -> bool:
        """Loads the batches unless they are loaded; returns False if an image cannot be read."""
        first = max((s for s in self._input.get_size_change_steps() if s < step), default=0)
        if self._batches is None or self._batches[0] != first:
            try:
                iterator = self._input.make_iterator(first)
                self._batches = first, [next(iterator) for _ in range(self._num_batches)]
            except (tf.errors.OpError, UserError) as error:  # the step must still be saved
                logging.warning("batch norm's statistics: %s", summarize_error(error))
                return False
        return True

    def _measure(self) -> None:
        self._measure_current_weights()
        if self._state.ema is not None:
            with self._state.ema.swap_weights():
                self._measure_current_weights()

    def _measure_current_weights(self) -> None:
        """Sets the statistics of the model's current weights to their means over all batches."""
        count = 0
        for batch in self._batches[1]:
            for index in range(self._micro_batches):
                self._forward(batch, tf.constant(index), tf.constant(count / (count + 1)))
                count += 1
        self._state.average_batch_norm()

    def _run_forward(self, batch, index, momentum):
        """Adds a micro-batch to the mean; `momentum` is the weight of those before."""
        model, count = self._state.model, self._micro_batches

        def forward(batch):
            size = batch["label"].shape[0] // count
            micro_batch = {
                name: tf.reshape(values, [count, size, *values.shape[1:]])[index]
                for name, values in batch.items()
            }
            images, _ = self._preprocess(micro_batch)
            random_layers.assign_samples(model, self._state.seed, micro_batch["sample"][0])
            model(images, training=True)

        with batch_norm.override_momentum(model, momentum):
            self._state.strategy.run(forward, args=(batch,))
