"""Runs the training step of a command line on batches in memory, without the training loop."""

import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

import flags
from loops import train_setup
from loops.config import resolve
from loops.distribution import strategies
from loops.train_state import TrainState

_NUM_BATCHES = 4


class BareStep:
    """The state, step and input of a training.

    Args:
      argv: command line of `main.py`, with image size and batch size.
      num_classes: length of the logits.

    Attributes:
      config: Config of the training.
      strategy: its tf.distribute.Strategy.
      state: its TrainState.
    """

    def __init__(self, argv: Sequence[str], num_classes: int) -> None:
        self.config = resolve.resolve(flags.parse(argv))
        data = self.config.data
        self.strategy = strategies.make_strategy(self.config.distribution)
        self.state = TrainState(self.strategy, self.config, num_classes)
        self._step = train_setup.make_step(self.config, self.state, lambda step: tf.constant(1e-3))
        per_replica = strategies.per_replica_batch_size(data.batch_size, self.strategy)
        num_batches = _NUM_BATCHES * self.strategy.num_replicas_in_sync
        self._iterator = iter(
            strategies.distribute(
                self.strategy,
                lambda: make_random_batches(data.image_size, per_replica, num_classes, num_batches),
            )
        )

    def sums(self, num_steps: int) -> dict[str, float]:
        """Runs steps; returns the sums that they report."""
        sums = self._step(self._iterator, tf.constant(num_steps, tf.int64))
        return {name: float(value) for name, value in sums.items()}

    def __call__(self, num_steps: int) -> dict[str, float]:
        """Runs steps and returns their sums.

        Raises:
          FloatingPointError: a step was skipped, which is faster than a normal step.
        """
        sums = self.sums(num_steps)
        if sums["applied"] != num_steps:
            raise FloatingPointError("gradients are not finite")
        return sums

    def measure_speed(self, warm_up: int, steps: int, steps_per_call: int) -> dict[str, float]:
        """Times steps, after `warm_up` untimed ones.

        Returns:
          A dict: images_per_second, data_wait (share of the time spent waiting for data), and
          cpu_seconds per step of all threads, which other processes hardly affect.
        """
        self(warm_up)
        started, cpu_started = time.perf_counter(), time.process_time()
        sums = [self(steps_per_call) for _ in range(steps // steps_per_call)]
        seconds = time.perf_counter() - started
        num_steps = len(sums) * steps_per_call
        return {
            "images_per_second": num_steps * self.config.data.batch_size / seconds,
            "data_wait": sum(call["data_wait"] for call in sums) / seconds,
            "cpu_seconds": (time.process_time() - cpu_started) / num_steps,
        }


def make_random_batches(
    size: int, batch_size: int, num_classes: int, num_batches: int = _NUM_BATCHES
) -> tf.data.Dataset:
    """Repeats random batches endlessly, in the format that the input pipeline passes to the step.

    Args:
      size: image size in pixels.
      batch_size: images per batch of one replica.
      num_classes: labels are below it.
      num_batches: number of different batches. The sequence of images depends only on
        num_batches * batch_size.
    """
    rng = np.random.default_rng(0)
    shape = (num_batches, batch_size)
    data = {
        "image": rng.integers(0, 256, (*shape, size, size, 3), np.uint8),
        "label": rng.integers(0, num_classes, shape, np.int32),
        "sample": np.arange(num_batches * batch_size).reshape(shape),
        "replaced": np.zeros(shape, np.int64),
    }
    return tf.data.Dataset.from_tensor_slices(data).repeat().prefetch(2)
