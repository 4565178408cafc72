"""Exponential moving average (EMA) of a net's weights and statistics (Polyak & Juditsky 1992)."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


class Ema:
    """Averages all float variables of a model, including batch norm's moving statistics.

    After step t (0 for the first): average += (1 - d) (variable - average). Here d is the minimum
    of the decay and (1 + t) / (10 + t), so that an early average forgets the initialization.

    Args:
      strategy: the model's distribution strategy.
      model: the model to average.
      decay: fraction of the old average that a step keeps, 0..1.
    """

    def __init__(self, strategy: "tf.distribute.Strategy", model: keras.Model, decay: float):
        self._strategy = strategy
        self._decay = decay
        self._sources = [v for v in model.variables if tf.as_dtype(v.dtype).is_floating]
        with strategy.scope():
            self._averages = [
                tf.Variable(v.value, trainable=False, name="ema_" + v.name) for v in self._sources
            ]
        self._swap = tf.function(lambda: strategy.run(self._swap_on_replica), autograph=False)

    def variables(self) -> dict[str, tf.Variable]:
        """Returns the averages by the paths of the model's variables."""
        return {s.path: a for s, a in zip(self._sources, self._averages, strict=True)}

    def reset(self) -> None:
        """Sets the averages to the current variables, for example after weights were loaded."""
        self._strategy.run(tf.function(self._reset_on_replica, autograph=False))

    def _reset_on_replica(self) -> None:
        for source, average in zip(self._sources, self._averages, strict=True):
            average.assign(tf.convert_to_tensor(source))

    def update(self, step: tf.Tensor) -> None:
        """Updates the averages after a training step. Call it in replica context.

        Args:
          step: int64 scalar, 0 for the first step.
        """
        step = tf.cast(step, tf.float32)
        fraction = 1.0 - tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        for source, average in zip(self._sources, self._averages, strict=True):
            value = tf.convert_to_tensor(source)
            average.assign(average + tf.cast(fraction, value.dtype) * (value - average))

    @contextlib.contextmanager
    def swap_weights(self) -> Iterator[None]:
        """Swaps the model's variables with the averages inside the `with` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap_on_replica(self) -> None:
        for source, average in zip(self._sources, self._averages, strict=True):
            value, mean = tf.identity(source.value), tf.identity(average)
            with tf.control_dependencies([value, mean]):
                source.value.assign(mean)
                average.assign(value)
