"""All variables of a training run, as a checkpoint contains them."""

import keras
import tensorflow as tf

from loops.checkpointing import fine_tuning, restore
from loops.config.config import Config
from loops.distribution import strategies
from loops.optimization import ema, loss_scale, losses, mixed_precision, optimizers


class TrainState:
    """The model, the optimizer and the counters of a run.

    Args:
      strategy: distribution strategy.
      config: resolved Config.
      num_classes: number of classes, the length of the logits.

    Attributes:
      strategy: distribution strategy.
      seed: the run's seed.
      compute_dtype: compute type of the model.
      model: keras.Model.
      optimizer: keras.optimizers.Optimizer.
      kernels: variables with weight decay.
      ema: moving average of the weights, or None.
      loss_scale: loss scale and its counters.
      step: int64 tf.Variable, number of steps, skipped steps included.
      replaced: int64 tf.Variable, number of unreadable images so far.
      average_batch_norm: see `strategies.make_batch_norm_averager`.
    """

    def __init__(self, strategy: "tf.distribute.Strategy", config: Config, num_classes: int):
        self.strategy = strategy
        self.seed = config.length.seed
        self._l2 = optimizers.get_weight_decay(config.optimization).l2
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

    def variables(self) -> dict[str, dict[str, tf.Variable]]:
        """Returns all variables by group and by their names in a checkpoint."""
        variables = {
            "model": restore.variables_by_path(self.model),
            "optimizer": restore.variables_by_path(self.optimizer),
            "loss_scale": {v.name.split(":")[0]: v for v in self.loss_scale.variables},
            "counters": {"step": self.step, "replaced": self.replaced},
        }
        return {**variables, "ema": self.ema.variables()} if self.ema else variables

    def l2_penalty(self) -> float:
        """Returns the L2 penalty of the current weights."""
        return float(losses.l2_penalty(self.kernels, self._l2)) if self.kernels else 0.0
