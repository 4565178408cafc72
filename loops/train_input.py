"""Training images for the step: the iterator, and the account of images that do not decode."""

import dataclasses

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import pipeline, sample_order
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import DataError
from input_pipeline.service import data_service, worker_watchdog
from loops.distribution import iterator_workarounds, strategies, workers

# Above this share of the samples, training on what is left would be training on other data.
MAX_REPLACED_FRACTION = 0.001


class TrainInput:
    """Feeds the replicas of a strategy with a train split.

    Args:
      strategy: tf.distribute.Strategy.
      split: Source of the train split.
      data: DataConfig with its sizes resolved.
      seed: the run's seed.
      sizes: (first step, side in pixels) of each size of the images, ascending; empty for the one
        of `data` all along.
      accumulate: micro-batches that a replica cuts its batch into.
    """

    def __init__(self, strategy, split, data, seed, sizes=(), accumulate=1):
        self._strategy = strategy
        self._split = split
        self._data = data
        self._seed = seed
        self._sizes = dict(sizes)
        self._replica_slice = workers.get_replica_slice(strategy)
        self._per_replica = strategies.per_replica_batch_size(data.batch_size, strategy)
        batch_augment.require_even_batch(data, self._per_replica // accumulate)
        self._reported_images = set()

    def make_iterator(self, step):
        """An iterator over the batches from a step on, one batch for each replica at a time."""
        first = step * self._data.batch_size
        data = dataclasses.replace(self._data, image_size=self.image_size(step))

        def dataset():
            load = data_service if data.data_service else pipeline
            batches = load.train_dataset(
                self._split, data, self._seed, first, self._per_replica, self._replica_slice
            )
            # Of batches that may end, workers would first ask each other, at every step, whether
            # all have one; and of which size they are would be left open.
            without_end = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            return batches.apply(without_end)

        with iterator_workarounds.suspend_op_determinism():
            return iter(strategies.distribute(self._strategy, dataset))

    def image_size(self, step):
        """Side in pixels of the training images of a step."""
        begun = [first for first in self._sizes if first <= step]
        return self._sizes[max(begun)] if begun else self._data.image_size

    def get_size_change_steps(self):
        """The steps at which images of another size begin, and so another iterator must."""
        return tuple(self._sizes)

    def load_first_images(self, count):
        """The first images of training as the net sees them.

        Args:
          count: how many, an even number.

        Returns:
          (uint8 [count, S, S, 3], Targets), as numpy arrays.
        """
        data = dataclasses.replace(self._data, image_size=self.image_size(0))
        batch = pipeline.load_first_samples(self._split, data, self._seed, count)
        images, targets = batch_augment.make_preprocess_fn(data, self._seed)(batch)
        images = batch_augment.denormalize(images, data.mean, data.std)
        return images.numpy(), batch_augment.Targets(*(value.numpy() for value in targets))

    def describe_sample(self, sample):
        """What a person calls the image of a global sample number."""
        return self._split.describe(int(self._get_image_indices([sample])[0]))

    def report_replaced_images(self, first_step, last_step, replaced, replaced_here):
        """Names the images that were replaced in some steps.

        Args:
          first_step, last_step: the steps, last excluded.
          replaced: unreadable images since the start of the run, these steps included.
          replaced_here: those of these steps.

        Raises:
          DataError: there are more of them than training can bear.
        """
        batch = self._data.batch_size
        samples = np.arange(first_step * batch, last_step * batch)
        indices = self._get_image_indices(samples)
        fresh = [i for i in dict.fromkeys(indices) if i not in self._reported_images]
        # Images that are known are not looked for again, epoch after epoch.
        unnamed = replaced_here - sum(i in self._reported_images for i in indices)
        while (
            unnamed > 0
            and (found := pipeline.find_first_unreadable(self._split, fresh)) is not None
        ):
            index, reason = found
            self._reported_images.add(index)
            unnamed -= indices.count(index)
            fresh = fresh[fresh.index(index) + 1 :]
            logging.warning("%s is replaced: %s", self._split.describe(index), reason)
        seen = max(last_step * batch, self._split.num_examples)
        if replaced > MAX_REPLACED_FRACTION * seen:
            names = ", ".join(self._split.describe(i) for i in sorted(self._reported_images)[:3])
            raise DataError(
                f"{replaced} of {seen} training images do not decode, more than"
                f" {MAX_REPLACED_FRACTION:.1%}: {names or 'see the log'}; mend or remove them"
            )

    def explained(self, error, step):
        """The UserError that says on which image, or which worker of the data service, the pipeline
        failed, or the error itself."""
        if self._data.data_service and (lost := worker_watchdog.to_service_lost(error)) is not None:
            return lost
        first = step * self._data.batch_size
        indices = self._get_image_indices(np.arange(first, first + 4 * self._data.batch_size))
        found = pipeline.find_first_unreadable(self._split, indices)
        if found is None:
            return error
        return DataError(
            f"{self._split.describe(found[0])} and the {pipeline.MAX_DECODE_ATTEMPTS - 1} images"
            " after"
            f" it in the order of training do not decode: {found[1]}"
        )

    def _get_image_indices(self, samples):
        """Image indices of global samples, as ints."""
        total = self._split.num_examples
        samples = np.asarray(samples, np.int64)
        indices = np.empty_like(samples)
        for epoch in np.unique(samples // total):
            here = samples // total == epoch
            position = tf.constant(samples[here] % total)
            indices[here] = sample_order.image_index(self._seed, epoch, position, total)
        return indices.tolist()
