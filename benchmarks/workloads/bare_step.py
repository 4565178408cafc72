"""The training step of a command line on batches in memory, without the loop around it."""

import time

import numpy as np
import tensorflow as tf

import flags
from loops import train_setup
from loops.config import resolve
from loops.distribution import strategies
from loops.train_state import TrainState

_KEPT_BATCHES = 4


class BareStep:
    """State, step and input of a training.

    Args:
      argv: command line of `main.py`, with the size of images and batch.
      num_classes: length of the logits.

    Attributes:
      config, strategy, state: of the training.
    """

    def __init__(self, argv, num_classes):
        self.config = resolve.resolve(flags.parse(argv))
        data = self.config.data
        self.strategy = strategies.make_strategy(self.config.distribution)
        self.state = TrainState(self.strategy, self.config, num_classes)
        self._step = train_setup.make_step(self.config, self.state, lambda step: tf.constant(1e-3))
        per_replica = strategies.per_replica_batch_size(data.batch_size, self.strategy)
        kept = _KEPT_BATCHES * self.strategy.num_replicas_in_sync
        self._iterator = iter(
            strategies.distribute(
                self.strategy,
                lambda: make_random_batches(data.image_size, per_replica, num_classes, kept),
            )
        )

    def sums(self, num_steps):
        """Does steps; returns the sums that they report, as floats."""
        sums = self._step(self._iterator, tf.constant(num_steps, tf.int64))
        return {name: float(value) for name, value in sums.items()}

    def __call__(self, num_steps):
        """Does steps and returns their sums.

        Raises:
          FloatingPointError: a step was skipped, which costs less than others.
        """
        sums = self.sums(num_steps)
        if sums["applied"] != num_steps:
            raise FloatingPointError("gradients are not finite")
        return sums

    def measure_speed(self, warm_up, steps, at_once):
        """Times steps in calls of `at_once`.

        Returns:
          dict: images_per_second over all timed steps, data_wait (the share of time waiting), and
          cpu_seconds of a step, of all threads: other processes hardly change these.
        """
        self(warm_up)
        started, used = time.perf_counter(), time.process_time()
        sums = [self(at_once) for _ in range(steps // at_once)]
        seconds = time.perf_counter() - started
        done = len(sums) * at_once
        return {
            "images_per_second": done * self.config.data.batch_size / seconds,
            "data_wait": sum(of_call["data_wait"] for of_call in sums) / seconds,
            "cpu_seconds": (time.process_time() - used) / done,
        }


def make_random_batches(size, batch_size, num_classes, kept=_KEPT_BATCHES):
    """Endless batches of noise in the form that the input pipeline gives them to the step.

    Args:
      size: side of the images in pixels.
      batch_size: images of a batch, of one replica.
      num_classes: labels are below it.
      kept: batches that are repeated; the images in a row depend on kept * batch_size alone.
    """
    rng = np.random.default_rng(0)
    shape = (kept, batch_size)
    data = {
        "image": rng.integers(0, 256, (*shape, size, size, 3), np.uint8),
        "label": rng.integers(0, num_classes, shape, np.int32),
        "sample": np.arange(kept * batch_size).reshape(shape),
        "replaced": np.zeros(shape, np.int64),
    }
    return tf.data.Dataset.from_tensor_slices(data).repeat().prefetch(2)
