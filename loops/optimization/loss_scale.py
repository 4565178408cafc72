"""Dynamic loss scaling of float16, decided once for all replicas (Micikevicius et al. 2018).

Keras's LossScaleOptimizer looks at the gradients of the first replica, before they are summed: an
overflow on another one goes into the weights. Here the step looks at the sum, which is not finite
if any addend is not.
"""

import tensorflow as tf
from absl import logging

MAX_SCALE = 2.0**24
GROWTH_INTERVAL = 2000
# Training stops here: what overflows at this scale, or this often in a row, is no rare event.
MIN_SCALE = 2.0**-5
MAX_CONSECUTIVE_SKIPS = 20
# In place of a number of good steps, where there is no scaling: checkpoints tell the two apart.
_UNSCALED = -1


class LossScale(tf.Module):
    """The scale and the record of skipped steps, checkpointed with the run.

    Args:
      dynamic: float16; without it the scale stays 1 and the first skipped step is fatal.
      initial: the first scale.
    """

    def __init__(self, dynamic, initial=2.0**15):
        super().__init__(name="loss_scale")
        self.dynamic = dynamic
        self._first = float(initial) if dynamic else 1.0

        def counter(name, start=0):
            return tf.Variable(start, trainable=False, dtype=tf.int64, name=name)

        self.scale = tf.Variable(self._first, trainable=False, dtype=tf.float32, name="scale")
        self.good_steps = counter("good_steps", 0 if dynamic else _UNSCALED)
        self.skipped_steps = counter("skipped_steps")
        self.skips_in_a_row = counter("skips_in_a_row")

    def update(self, finite):
        """Records a step: halves the scale after a bad one, doubles it after 2,000 good ones."""
        one = tf.constant(1, tf.int64)
        zero = tf.constant(0, tf.int64)
        if self.dynamic:
            good = tf.where(finite, self.good_steps + one, zero)
            grow = good >= GROWTH_INTERVAL
            factor = tf.where(finite, tf.where(grow, 2.0, 1.0), 0.5)
            self.scale.assign(tf.minimum(self.scale * factor, MAX_SCALE))
            self.good_steps.assign(tf.where(grow, zero, good))
        self.skipped_steps.assign_add(tf.where(finite, zero, one))
        self.skips_in_a_row.assign(tf.where(finite, zero, self.skips_in_a_row + one))

    def reset_if_precision_changed(self):
        """After a restore: starts anew where the checkpoint is of a run in another precision.

        A float16 run may be resumed on a device that computes in another format, and back.
        """
        was_dynamic = int(self.good_steps) != _UNSCALED
        if self.dynamic == was_dynamic:
            return
        if float(self.scale) != self._first:
            logging.info("loss scale %g, was %g", self._first, float(self.scale))
        self.scale.assign(self._first)
        self.good_steps.assign(0 if self.dynamic else _UNSCALED)
        self.skips_in_a_row.assign(0)

    def should_stop(self):
        """Whether training must stop: a bool scalar tensor."""
        if not self.dynamic:
            return self.skips_in_a_row > 0
        return (self.skips_in_a_row >= MAX_CONSECUTIVE_SKIPS) | (self.scale < MIN_SCALE)
