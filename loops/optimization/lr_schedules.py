"""The learning rate as a pure function of the step."""

import math

import tensorflow as tf


def learning_rate(config, step, total_steps, warmup_steps, peak, final=0.0):
    """Learning rate of a step.

    Linear from peak / warmup_steps up to the peak during warm-up, then as `--schedule` says.

    Args:
      config: OptimizationConfig.
      step: int64 scalar tensor, 0 for the first.
      total_steps: steps of the whole run.
      warmup_steps: steps of the warm-up.
      peak: learning rate at the end of the warm-up.
      final: learning rate at the end of the cosine and the linear schedule.

    Returns:
      float32 scalar tensor.
    """
    # In float64: at a million steps, neighbours would be equal in float32.
    step = tf.cast(step, tf.float64)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    factor = _FACTORS[config.schedule](tf.clip_by_value(progress, 0.0, 1.0), step / total_steps)
    least = final if config.schedule in _WITH_FINAL_RATE else 0.0
    after = least + (peak - least) * factor
    rate = tf.where(step < warmup_steps, peak * (step + 1.0) / max(1, warmup_steps), after)
    return tf.cast(rate, tf.float32)


def _cosine(progress, _):
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017, eq. 5, without restarts)."""
    return 0.5 * (1.0 + tf.cos(math.pi * progress))


def _step_decay(_, share_of_run):
    """Times 0.1 at 30, 60 and 80 of 90 epochs (He et al. 2015; Goyal et al. 2017)."""
    drops = tf.add_n([tf.cast(share_of_run >= at, tf.float64) for at in (1 / 3, 2 / 3, 8 / 9)])
    return tf.pow(tf.constant(0.1, tf.float64), drops)


def _constant(progress, _):
    return tf.ones_like(progress)


def _linear(progress, _):
    """From 1 to 0; with a warm-up, the triangle of Smith & Topin 2018."""
    return 1.0 - progress


_FACTORS = {"cosine": _cosine, "step": _step_decay, "constant": _constant, "linear": _linear}
_WITH_FINAL_RATE = ("cosine", "linear")


def scale_by_batch_size(rate, config, batch_size):
    """A learning rate per 256 images, for a batch (Goyal et al. 2017, section 2.1)."""
    return rate * (batch_size / 256 if config.linear_scaling else 1.0)
