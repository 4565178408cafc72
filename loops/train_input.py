"""Training images for the step: makes the iterator and reports images that do not decode."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import pipeline, sample_order
from input_pipeline.augmentation import batch_augment
from input_pipeline.config import DataConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.service import data_service, worker_watchdog
from input_pipeline.sources.source import Source
from loops.distribution import iterator_workarounds, strategies, workers

# Training stops if a larger fraction of the samples is unreadable, because it would then be
# training on a different data set.
MAX_REPLACED_FRACTION = 0.001
# Number of steps, from the failed one on, that are searched for the unreadable image.
_STEPS_TO_SEARCH = 4
_MAX_NAMES_SHOWN = 3


class TrainInput:
    """Feeds a train split to the replicas of a strategy.

    Args:
      strategy: distribution strategy.
      split: the train split.
      data: DataConfig with its sizes resolved.
      seed: the run's seed.
      sizes: (first step, side in pixels) of each image size, ascending. If empty, all images have
        the size of `data`.
      accumulate: number of micro-batches that a replica splits its batch into.
    """

    def __init__(
        self,
        strategy: "tf.distribute.Strategy",
        split: Source,
        data: DataConfig,
        seed: int,
        sizes: Sequence[tuple[int, int]] = (),
        accumulate: int = 1,
    ):
        self._strategy = strategy
        self._split = split
        self._data = data
        self._seed = seed
        self._sizes = dict(sizes)
        self._replica_slice = workers.get_replica_slice(strategy)
        self._per_replica = strategies.per_replica_batch_size(data.batch_size, strategy)
        batch_augment.require_even_batch(data, self._per_replica // accumulate)
        self._reported_images: set[int] = set()
        self._first_step: int | None = None

    def make_iterator(self, step: int) -> Iterator:
        """Makes an iterator that starts with the batches of a step, one batch per replica.

        Building a pipeline takes seconds, so a repeated call with the same step reuses it.
        """
        with iterator_workarounds.suspend_op_determinism():
            if step != self._first_step:
                self._first_step, self._batches = step, self._make_batches(step)
            return iter(self._batches)

    def _make_batches(self, step: int) -> "tf.data.Dataset | tf.distribute.DistributedDataset":
        first = step * self._data.batch_size
        data = dataclasses.replace(self._data, image_size=self.image_size(step))

        def make_dataset() -> tf.data.Dataset:
            load = data_service if data.data_service else pipeline
            batches = load.train_dataset(
                self._split, data, self._seed, first, self._per_replica, self._replica_slice
            )
            # Mark the dataset as infinite. Otherwise workers check for its end at every step, and
            # the batch size is unknown.
            set_infinite = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            return batches.apply(set_infinite)

        return strategies.distribute(self._strategy, make_dataset)

    def image_size(self, step: int) -> int:
        """Returns the side in pixels of the training images of a step."""
        started = [first for first in self._sizes if first <= step]
        return self._sizes[max(started)] if started else self._data.image_size

    def get_size_change_steps(self) -> tuple[int, ...]:
        """Returns the first step of each image size. Each size needs another iterator."""
        return tuple(self._sizes)

    def load_first_images(self, count: int) -> tuple[np.ndarray, batch_augment.Targets]:
        """Loads the first augmented images of training.

        Args:
          count: number of images, even.

        Returns:
          (uint8 [count, S, S, 3], Targets of numpy arrays).
        """
        data = dataclasses.replace(self._data, image_size=self.image_size(0))
        batch = pipeline.load_first_samples(self._split, data, self._seed, count)
        images, targets = batch_augment.make_preprocess_fn(data, self._seed)(batch)
        images = batch_augment.denormalize(images, data.mean, data.std)
        return np.asarray(images), batch_augment.Targets(*map(np.asarray, targets))

    def describe_sample(self, sample: int) -> str:
        """Returns the name of the image behind a global sample number."""
        return self._split.describe(int(self._get_image_indices([sample])[0]))

    def report_replaced_images(
        self, first_step: int, end_step: int, total_replaced: int, newly_replaced: int
    ) -> None:
        """Logs the names of the images that were replaced in some steps.

        Args:
          first_step, end_step: the range of steps; `end_step` is excluded.
          total_replaced: number of unreadable images since the start of the run.
          newly_replaced: number of unreadable images in these steps.

        Raises:
          DataError: the fraction of unreadable images is above `MAX_REPLACED_FRACTION`.
          UsageError: a function in a user's file has failed on an image.
        """
        batch_size = self._data.batch_size
        samples = np.arange(first_step * batch_size, end_step * batch_size)
        indices = self._get_image_indices(samples)
        candidates = [i for i in dict.fromkeys(indices) if i not in self._reported_images]
        # Images that were reported before are not searched for again in each epoch.
        unreported = newly_replaced - sum(i in self._reported_images for i in indices)
        while unreported > 0:
            unreadable = pipeline.find_first_unreadable(self._split, candidates)
            if unreadable is None:
                break
            index, reason = unreadable
            self._reported_images.add(index)
            unreported -= indices.count(index)
            candidates = candidates[candidates.index(index) + 1 :]
            logging.warning("replaced %s: %s", self._split.describe(index), reason)
        if unreported > 0:
            self._require_working_functions(first_step, samples)
        seen = max(end_step * batch_size, self._split.num_examples)
        if total_replaced > MAX_REPLACED_FRACTION * seen:
            shown = sorted(self._reported_images)[:_MAX_NAMES_SHOWN]
            names = ", ".join(self._split.describe(i) for i in shown)
            raise DataError(
                f"{total_replaced} of {seen} training samples do not decode, more than"
                f" {MAX_REPLACED_FRACTION:.1%}: {names or 'see the log'}; fix or remove the images"
            )

    def to_user_error(self, error: tf.errors.OpError, step: int) -> Exception:
        """Converts an error of the input pipeline to one that tells the user what to fix.

        Args:
          error: the error that a step raised.
          step: number of completed steps, so the failed step needed the batch after them.

        Returns:
          a UserError that names an unreadable image, a line of a user's file or the lost worker of
          the data service, or the error itself.
        """
        if self._data.data_service and (lost := worker_watchdog.to_service_lost(error)) is not None:
            return lost
        batch_size = self._data.batch_size
        first = step * batch_size
        samples = np.arange(first, first + _STEPS_TO_SEARCH * batch_size)
        unreadable = pipeline.find_first_unreadable(self._split, self._get_image_indices(samples))
        if unreadable is None:
            try:
                self._require_working_functions(step, samples)
            except UsageError as failure:
                return failure
            return worker_watchdog.to_worker_failure(error) or error
        index, reason = unreadable
        return DataError(
            f"{self._split.describe(index)} does not decode: {reason}; a step fails if"
            f" {pipeline.MAX_DECODE_ATTEMPTS} images in a row do not decode"
        )

    def _require_working_functions(self, step: int, samples: Iterable[int]) -> None:
        data = dataclasses.replace(self._data, image_size=self.image_size(step))
        pipeline.require_working_functions(self._split, data, self._seed, samples)

    def _get_image_indices(self, samples: Sequence[int] | np.ndarray) -> list[int]:
        """Returns the image index of each global sample number."""
        num_examples = self._split.num_examples
        samples = np.asarray(samples, np.int64)
        indices = np.empty_like(samples)
        for epoch in np.unique(samples // num_examples):
            in_epoch = samples // num_examples == epoch
            position = sample_order.repeat_positions(
                tf.constant(samples[in_epoch] % num_examples), self._data.repeated_augmentation
            )
            indices[in_epoch] = sample_order.image_index(self._seed, epoch, position, num_examples)
        return indices.tolist()
