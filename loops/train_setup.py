"""Sets up a training run: the same code for training, replay, benchmarks and `--auto_batch`."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from input_pipeline.augmentation import batch_augment
from input_pipeline.sources import source
from loops import worker_agreement
from loops.config.config import Config
from loops.distribution import strategies, workers
from loops.optimization.train_schedule import TrainSchedule
from loops.train_input import TrainInput
from loops.train_state import TrainState
from loops.train_step import StepFunction, StepSettings, TrainStep


class TrainSetup:
    """Everything that a training run needs except a run folder.

    It is made in two stages. The constructor opens the data, so that errors appear before a run
    folder exists. `build` then makes the model, the optimizer and the step.

    Args:
      config: resolved Config.
      class_names: class names of a run that is resumed or replayed. If empty, those of the train
        split.
      with_val: whether to open the val split.
      strategy: distribution strategy. None: make the one that the config names.

    Attributes:
      config, strategy, workers, train_split, schedule, train_input.
      val_split: None if it was not opened.
      state, step: None until `build`.
    """

    def __init__(
        self,
        config: Config,
        class_names: Sequence[str] = (),
        with_val: bool = True,
        strategy: tf.distribute.Strategy | None = None,
    ):
        data, accumulate = config.data, config.optimization.accumulate
        self.config = config
        self.val_split: source.Source | None = None
        self.strategy = strategy or strategies.make_strategy(config.distribution)
        self.workers = workers.Workers(self.strategy)
        strategies.require_equal_micro_batches(data.batch_size, self.strategy, accumulate)

        def open_splits() -> None:
            self.train_split = source.open_split(data, "train", class_names)
            if with_val:
                self.val_split = source.open_split(data, "val", self.train_split.class_names)
                source.warn_of_missing_classes(self.train_split, self.val_split)

        self.workers.agree(
            open_splits,
            lambda: worker_agreement.describe_images(
                config, train=self.train_split, val=self.val_split
            ),
        )
        self.schedule = TrainSchedule(config, self.train_split.num_examples)
        self.train_input = TrainInput(
            self.strategy,
            self.train_split,
            data,
            config.length.seed,
            self.schedule.image_sizes,
            accumulate,
        )
        self.state: TrainState | None = None
        self.step: StepFunction | None = None

    def build(self, step_class: type[TrainStep] = TrainStep) -> None:
        """Makes the model with initial weights, the optimizer and the step."""
        self.state = TrainState(self.strategy, self.config, len(self.train_split.class_names))
        self.step = make_step(self.config, self.state, self.schedule.learning_rate, step_class)


def make_step(
    config: Config,
    state: TrainState,
    learning_rate: Callable[[tf.Tensor], tf.Tensor],
    step_class: type[TrainStep] = TrainStep,
) -> TrainStep:
    """Makes the training step of a config.

    Args:
      config: resolved Config.
      state: variables of the run.
      learning_rate: int64 step -> float32 scalar.
      step_class: TrainStep or a subclass.
    """
    replicas = state.strategy.num_replicas_in_sync
    settings = StepSettings(
        global_batch_size=config.data.batch_size,
        preprocess=batch_augment.make_preprocess_fn(
            config.data, config.length.seed, config.precision.xla
        ),
        learning_rate=learning_rate,
        optimization=config.optimization,
        xla=config.precision.xla,
        log_norms=config.run.log_norms,
        replicas_synchronize=config.net.sync_batch_norm and replicas > 1,
        deterministic=config.distribution.deterministic,
    )
    return step_class(state, settings)
