"""Dynamic loss scaling for float16, with one scale for all replicas (Micikevicius et al. 2018).

Keras's LossScaleOptimizer checks the gradients of the first replica before the all-reduce, so an
overflow on another replica reaches the weights. Here the training step checks the reduced sum,
which is not finite if the gradient of any replica is not finite.
"""

import tensorflow as tf
from absl import logging

MAX_SCALE = 2.0**24
GROWTH_INTERVAL = 2000
# Training stops below this scale, or after this many consecutive overflows.
MIN_SCALE = 2.0**-5
MAX_CONSECUTIVE_SKIPS = 20
# Value of `good_steps` without scaling. It marks checkpoints of runs that did not use float16.
_UNSCALED = -1


class LossScale(tf.Module):
    """The loss scale and the counters of skipped steps, saved in the run's checkpoints.

    Args:
      dynamic: True for float16. Otherwise the scale stays 1 and training stops at the first
        skipped step.
      initial: the initial scale.
    """

    def __init__(self, dynamic: bool, initial: float = 2.0**15):
        super().__init__(name="loss_scale")
        self.dynamic = dynamic
        self._initial = float(initial) if dynamic else 1.0

        def make_counter(name: str, start: int = 0) -> tf.Variable:
            return tf.Variable(start, trainable=False, dtype=tf.int64, name=name)

        self.scale = tf.Variable(self._initial, trainable=False, dtype=tf.float32, name="scale")
        self.good_steps = make_counter("good_steps", 0 if dynamic else _UNSCALED)
        self.skipped_steps = make_counter("skipped_steps")
        self.skips_in_a_row = make_counter("skips_in_a_row")

    def update(self, finite: tf.Tensor) -> None:
        """Records a step. A skipped one halves the scale, 2,000 good ones in a row double it.

        Args:
          finite: bool scalar, whether the gradients of the step are finite.
        """
        one = tf.constant(1, tf.int64)
        zero = tf.constant(0, tf.int64)
        if self.dynamic:
            good_steps = tf.where(finite, self.good_steps + one, zero)
            grow = good_steps >= GROWTH_INTERVAL
            factor = tf.where(finite, tf.where(grow, 2.0, 1.0), 0.5)
            self.scale.assign(tf.minimum(self.scale * factor, MAX_SCALE))
            self.good_steps.assign(tf.where(grow, zero, good_steps))
        self.skipped_steps.assign_add(tf.where(finite, zero, one))
        self.skips_in_a_row.assign(tf.where(finite, zero, self.skips_in_a_row + one))

    def reset_if_precision_changed(self) -> None:
        """Resets the scale if the restored checkpoint was written in another precision.

        A float16 run may be resumed on a device that computes in another format, or vice versa.
        """
        was_dynamic = int(self.good_steps) != _UNSCALED
        if self.dynamic == was_dynamic:
            return
        if float(self.scale) != self._initial:
            logging.info(
                "loss scale reset from %g to %g, because the precision changed",
                float(self.scale),
                self._initial,
            )
        self.scale.assign(self._initial)
        self.good_steps.assign(0 if self.dynamic else _UNSCALED)
        self.skips_in_a_row.assign(0)

    def should_stop(self) -> tf.Tensor:
        """Returns whether training must stop: a bool scalar."""
        if not self.dynamic:
            return self.skips_in_a_row > 0
        return (self.skips_in_a_row >= MAX_CONSECUTIVE_SKIPS) | (self.scale < MIN_SCALE)
