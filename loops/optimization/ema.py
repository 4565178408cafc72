"""The exponential moving average of a net's weights and statistics (Polyak & Juditsky 1992)."""

import contextlib

import tensorflow as tf


class Ema:
    """Averages of all float variables of a model, batch norm's moving statistics included.

    After step t (0 for the first) average += (1 - d) (variable - average), with d the smaller of
    the decay and (1 + t) / (10 + t): a young average must not cling to the random start.

    Args:
      strategy: tf.distribute.Strategy of the model.
      model: keras.Model.
      decay: share of the old average that a step keeps, 0..1.
    """

    def __init__(self, strategy, model, decay):
        self._strategy = strategy
        self._decay = decay
        self._sources = [v for v in model.variables if tf.as_dtype(v.dtype).is_floating]
        with strategy.scope():
            self._averages = [
                tf.Variable(v.value, trainable=False, name="ema_" + v.name) for v in self._sources
            ]
        self._swap = tf.function(lambda: strategy.run(self._swap_on_replica), autograph=False)

    def variables(self):
        """The averages by the paths of the variables that they are averages of."""
        return {s.path: a for s, a in zip(self._sources, self._averages, strict=True)}

    def reset(self):
        """Gives the averages the values of the variables, which were read from elsewhere."""
        self._strategy.run(tf.function(self._reset_on_replica, autograph=False))

    def _reset_on_replica(self):
        for source, average in zip(self._sources, self._averages, strict=True):
            average.assign(tf.convert_to_tensor(source))

    def update(self, step):
        """Moves the averages after a step; called in a replica.

        Args:
          step: int64 scalar tensor, 0 for the first.
        """
        step = tf.cast(step, tf.float32)
        share = 1.0 - tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        for source, average in zip(self._sources, self._averages, strict=True):
            value = tf.convert_to_tensor(source)
            average.assign(average + tf.cast(share, value.dtype) * (value - average))

    @contextlib.contextmanager
    def swap_weights(self):
        """While entered, the model holds the averages, and the averages' place holds its own."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap_on_replica(self):
        for source, average in zip(self._sources, self._averages, strict=True):
            value, mean = tf.identity(source.value), tf.identity(average)
            with tf.control_dependencies([value, mean]):
                source.value.assign(mean)
                average.assign(value)
