"""Learning-rate schedules: pure functions of the step."""

import math
import sys
from collections.abc import Sequence

import tensorflow as tf

from loops.config import choices
from loops.config.training import OptimizationConfig


def learning_rate(
    config: OptimizationConfig,
    step: tf.Tensor,
    total_steps: int,
    warmup_steps: int,
    peak: float,
    final: float = 0.0,
    milestones: Sequence[int] = (),
) -> tf.Tensor:
    """Computes the learning rate of a step.

    It rises linearly from peak / warmup_steps to the peak during warm-up, then follows
    `--schedule`.

    Args:
      config: names the schedule.
      step: int64 scalar, 0 for the first step.
      total_steps: steps of the whole run.
      warmup_steps: steps of the warm-up.
      peak: learning rate at the end of the warm-up.
      final: learning rate at the end of the cosine and the linear schedule.
      milestones: steps of the drops of `step`; () for those of `step_decay`.

    Returns:
      float32 scalar.
    """
    # float64, because after a million steps consecutive steps would be equal in float32.
    step = tf.cast(step, tf.float64)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    schedule = getattr(sys.modules[__name__], choices.SCHEDULES[config.schedule])
    factor = schedule(tf.clip_by_value(progress, 0.0, 1.0), step / total_steps)
    if milestones:
        factor = _drop(step >= tf.constant(milestones, tf.float64))
    least = final if config.schedule in _WITH_FINAL_RATE else 0.0
    after_warmup = least + (peak - least) * factor
    during_warmup = peak * (step + 1.0) / max(1, warmup_steps)
    return tf.cast(tf.where(step < warmup_steps, during_warmup, after_warmup), tf.float32)


# Each schedule maps the progress since the warm-up and the progress of the whole run, float64
# scalars in [0, 1], to a factor of the peak.


def cosine(progress: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Follows half a cosine from 1 to 0 (Loshchilov & Hutter 2017, eq. 5, without restarts)."""
    return 0.5 * (1.0 + tf.cos(math.pi * progress))


def step_decay(_: tf.Tensor, run_progress: tf.Tensor) -> tf.Tensor:
    """Multiplies by 0.1 at 30, 60 and 80 of 90 epochs (He et al. 2015; Goyal et al. 2017)."""
    return _drop(run_progress >= tf.constant([1 / 3, 2 / 3, 8 / 9], tf.float64))


def _drop(is_passed: tf.Tensor) -> tf.Tensor:
    """Returns 0.1 to the power of the number of milestones that were passed."""
    drops = tf.reduce_sum(tf.cast(is_passed, tf.float64))
    return tf.pow(tf.constant(0.1, tf.float64), drops)


def constant(progress: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return tf.ones_like(progress)


def linear(progress: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Falls from 1 to 0. With a warm-up this is the triangular schedule of Smith & Topin 2018."""
    return 1.0 - progress


_WITH_FINAL_RATE = ("cosine", "linear")


def scale_by_batch_size(rate: float, config: OptimizationConfig, batch_size: int) -> float:
    """Scales a learning rate given per 256 images (Goyal et al. 2017, section 2.1)."""
    return rate * (batch_size / 256 if config.linear_scaling else 1.0)
