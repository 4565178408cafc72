"""Learning-rate schedules: pure functions of the step."""

import math
from collections.abc import Sequence

import tensorflow as tf

from loops.config.training import OptimizationConfig

# Milestones of `step` as fractions of the run: 30, 60 and 80 of 90 epochs (He et al. 2015; Goyal et
# al. 2017).
_DROPS = (1 / 3, 2 / 3, 8 / 9)


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
      milestones: steps at which `step` multiplies by 0.1; () for `_DROPS`.

    Returns:
      float32 scalar.
    """
    # float64, because after a million steps consecutive steps would be equal in float32.
    step = tf.cast(step, tf.float64)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    progress = tf.clip_by_value(progress, 0.0, 1.0)
    least = final
    match config.schedule:
        case "cosine":  # Loshchilov & Hutter 2017, equation 5, without restarts
            factor = 0.5 * (1.0 + tf.cos(math.pi * progress))
        case "linear":  # with a warm-up, the triangular schedule of Smith & Topin 2018
            factor = 1.0 - progress
        case "step":
            if milestones:
                is_passed = step >= tf.constant(milestones, tf.float64)
            else:
                is_passed = step / total_steps >= tf.constant(_DROPS, tf.float64)
            num_drops = tf.reduce_sum(tf.cast(is_passed, tf.float64))
            factor, least = tf.pow(tf.constant(0.1, tf.float64), num_drops), 0.0
        case _:
            factor, least = tf.ones_like(progress), 0.0
    after_warmup = least + (peak - least) * factor
    during_warmup = peak * (step + 1.0) / max(1, warmup_steps)
    return tf.cast(tf.where(step < warmup_steps, during_warmup, after_warmup), tf.float32)


def scale_by_batch_size(rate: float, config: OptimizationConfig, batch_size: int) -> float:
    """Scales a learning rate given per 256 images (Goyal et al. 2017, section 2.1)."""
    return rate * (batch_size / 256 if config.linear_scaling else 1.0)
