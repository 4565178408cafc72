"""Steps of a run and of its parts, and what follows from them."""

from absl import logging

from input_pipeline.text import pluralize
from loops.config import flag_parsers
from loops.optimization import lr_schedules


class TrainSchedule:
    """Steps of a run and of its parts, the learning rate, and the size of the images.

    Args:
      config: resolved Config.
      num_examples: images of the train split.

    Attributes:
      total_steps: of the whole run.
      steps_per_epoch: float.
      image_sizes: (first step, side in pixels) of each stage of `--image_size_schedule`.
    """

    def __init__(self, config, num_examples):
        batch_size = config.data.batch_size
        self.total_steps = flag_parsers.compute_total_steps(config.length, num_examples, batch_size)
        self.steps_per_epoch = num_examples / batch_size
        self.image_sizes = flag_parsers.parse_image_size_schedule(
            config.data.image_size_schedule, self.steps_per_epoch
        )
        warmup = round(config.optimization.warmup_epochs * self.steps_per_epoch)
        # A short trial run of a long recipe would otherwise be all warm-up.
        self._warmup_steps = min(warmup, self.total_steps // 2)
        self._optimization = config.optimization
        self._peak, self._final = (
            lr_schedules.scale_by_batch_size(rate, config.optimization, batch_size)
            for rate in (config.optimization.learning_rate, config.optimization.final_learning_rate)
        )
        self._batch_size = batch_size

    def log(self):
        """Says what the run's length amounts to."""
        logging.info(
            "%s of %s, %.1f steps an epoch, %s of warm-up to learning rate %g",
            pluralize(self.total_steps, "step"),
            pluralize(self._batch_size, "image"),
            self.steps_per_epoch,
            pluralize(self._warmup_steps, "step"),
            self._peak,
        )

    def learning_rate(self, step):
        """Learning rate of a step: float32 scalar tensor."""
        return lr_schedules.learning_rate(
            self._optimization, step, self.total_steps, self._warmup_steps, self._peak, self._final
        )
