"""Length of a training run in steps, its learning rate and its image sizes."""

import tensorflow as tf
from absl import logging

from input_pipeline.text import pluralize
from loops.config import flag_parsers
from loops.config.config import Config
from loops.optimization import lr_schedules


class TrainSchedule:
    """Steps, learning rate and image sizes of a training run.

    Args:
      config: resolved Config.
      num_examples: images of the train split.

    Attributes:
      total_steps: steps of the whole run.
      steps_per_epoch: a float, because an epoch may end within a batch.
      image_sizes: (first step, side in pixels) of each stage of `--image_size_schedule`.
    """

    def __init__(self, config: Config, num_examples: int):
        batch_size = config.data.batch_size
        self.total_steps = flag_parsers.compute_total_steps(config.length, num_examples, batch_size)
        self.steps_per_epoch = num_examples / batch_size
        self.image_sizes = flag_parsers.parse_image_size_schedule(
            config.data.image_size_schedule, self.steps_per_epoch
        )
        self._milestones = flag_parsers.parse_milestones(
            config.optimization.milestones, self.steps_per_epoch
        )
        self._warmup_asked = round(config.optimization.warmup_epochs * self.steps_per_epoch)
        # A short trial run of a long recipe must not consist of warm-up only.
        self._warmup_steps = min(self._warmup_asked, self.total_steps // 2)
        self._optimization = config.optimization
        self._size_schedule = config.data.image_size_schedule
        self._peak, self._final = (
            lr_schedules.scale_by_batch_size(rate, config.optimization, batch_size)
            for rate in (config.optimization.learning_rate, config.optimization.final_learning_rate)
        )
        self._batch_size = batch_size

    def log(self) -> None:
        """Logs the steps, the warm-up and the peak learning rate; warns of what is cut short."""
        logging.info(
            "%s of %s, %.1f per epoch; lr %g after %s of warm-up",
            pluralize(self.total_steps, "step"),
            pluralize(self._batch_size, "image"),
            self.steps_per_epoch,
            self._peak,
            pluralize(self._warmup_steps, "step"),
        )
        if self._warmup_steps < self._warmup_asked:
            logging.warning(
                "--warmup_epochs=%g is %s: cut to %d, half of the run",
                self._optimization.warmup_epochs,
                pluralize(self._warmup_asked, "step"),
                self._warmup_steps,
            )
        if self._optimization.schedule == "step" and max(self._milestones, default=0) >= (
            self.total_steps
        ):
            logging.warning(
                "--milestones=%s: the run ends at epoch %g, before the last of them; name earlier"
                " ones",
                self._optimization.milestones,
                round(self.total_steps / self.steps_per_epoch, 1),
            )
        for first, size in self.image_sizes:
            if first >= self.total_steps:
                logging.warning(
                    "--image_size_schedule=%s: %d px begin at step %d, but the run ends at step %d",
                    self._size_schedule,
                    size,
                    first,
                    self.total_steps,
                )

    def learning_rate(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate of a step: a float32 scalar."""
        return lr_schedules.learning_rate(
            self._optimization,
            step,
            self.total_steps,
            self._warmup_steps,
            self._peak,
            self._final,
            self._milestones,
        )
