"""All variables of a training run, together: what a checkpoint holds."""

import keras
import tensorflow as tf

from loops.checkpointing import fine_tuning, restore
from loops.distribution import strategies
from loops.optimization import ema, loss_scale, losses, mixed_precision, optimizers


class TrainState:
    """The net, the optimizer, and the counters of a run.

    Args:
      strategy: tf.distribute.Strategy.
      config: resolved Config.
      num_classes: length of the logits.

    Attributes:
      seed, compute_dtype, model, optimizer, kernels (the decayed ones), loss_scale; ema: Ema, or
      None; step: int64 tf.Variable, steps done, skipped ones included; replaced: int64
      tf.Variable, unreadable images so far; average_batch_norm: see
      `strategies.make_batch_norm_averager`.
    """

    def __init__(self, strategy, config, num_classes):
        self.strategy = strategy
        self.seed = config.length.seed
        self._l2 = optimizers.get_weight_decay(config.optimization)[0]
        self.compute_dtype = dtype = mixed_precision.resolve_compute_dtype(config.precision)
        keras.utils.set_random_seed(config.length.seed)
        self.model = restore.build_model(strategy, config.net, num_classes, dtype)
        if config.fine_tuning.freeze == "backbone":
            fine_tuning.freeze_backbone(self.model)
        with strategy.scope():
            self.optimizer = optimizers.build_optimizer(config.optimization, self.model)
        decay = config.optimization.ema
        self.ema = ema.Ema(strategy, self.model, decay) if decay else None
        self.average_batch_norm = strategies.make_batch_norm_averager(
            strategy, self.model, self.ema.variables() if self.ema else {}
        )
        self.kernels = optimizers.select_decayed_kernels(self.model)
        self.loss_scale = loss_scale.LossScale(
            dynamic=dtype == "float16", initial=config.precision.initial_loss_scale
        )
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64, name="step")
        self.replaced = tf.Variable(0, trainable=False, dtype=tf.int64, name="replaced")

    def variables(self):
        """Nested dicts of all tf.Variables, by the names that they have in a checkpoint."""
        variables = {
            "model": restore.variables_by_path(self.model),
            "optimizer": restore.variables_by_path(self.optimizer),
            "loss_scale": {v.name.split(":")[0]: v for v in self.loss_scale.variables},
            "counters": {"step": self.step, "replaced": self.replaced},
        }
        return {**variables, "ema": self.ema.variables()} if self.ema else variables

    def l2_penalty(self):
        """The L2 penalty of the weights now, as a float."""
        return float(losses.l2_penalty(self.kernels, self._l2)) if self.kernels else 0.0
