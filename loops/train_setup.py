"""Sets up a training run: the same code for training, replay, benchmarks and `--auto_batch`."""

from collections.abc import Callable, Sequence

import tensorflow as tf
from absl import logging

from input_pipeline import user_code
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import source
from input_pipeline.text import pluralize
from loops import worker_agreement
from loops.config.choices import STEPS
from loops.config.config import Config
from loops.distribution import strategies, workers
from loops.optimization.train_schedule import TrainSchedule
from loops.train_input import TrainInput
from loops.train_state import TrainState
from loops.train_step import PreprocessFunction, StepFunction, StepSettings, TrainStep
from nets.layers import batch_norm

# With fewer values per channel than this, the moments of batch norm are mostly noise.
_FEW_VALUES = 8


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
      state, preprocess, step: None until `build`. `preprocess` is that of `StepSettings`.
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
            if len(self.train_split.class_names) < 2:
                raise DataError(
                    f"{source.get_data_dir(data)}: train has only the class"
                    f" {self.train_split.class_names[0]}; a classifier needs two"
                )
            if with_val:
                self.val_split = source.open_split(data, "val", self.train_split.class_names)
                source.warn_of_missing_classes(self.train_split, self.val_split)

        self.workers.agree(
            open_splits,
            lambda: worker_agreement.describe_images(
                config, train=self.train_split, val=self.val_split
            ),
        )
        num_examples = self.train_split.num_examples
        if data.batch_size > num_examples:
            logging.warning(
                "--batch_size=%d: a batch repeats images, because train has only %d",
                data.batch_size,
                num_examples,
            )
        self.schedule = TrainSchedule(config, num_examples)
        self.train_input = TrainInput(
            self.strategy,
            self.train_split,
            data,
            config.length.seed,
            self.schedule.image_sizes,
            accumulate,
        )
        self.state: TrainState | None = None
        self.preprocess: PreprocessFunction | None = None
        self.step: StepFunction | None = None

    def build(self) -> None:
        """Makes the model with initial weights, the optimizer and the step.

        Raises:
          UsageError: batch norm would have one value per channel to normalize.
        """
        self.state = TrainState(self.strategy, self.config, len(self.train_split.class_names))
        self._require_batch_norm_values(self.state)
        self.preprocess = make_preprocess_fn(self.config, self.train_split.num_examples)
        self.step = make_step(self.config, self.state, self.schedule.learning_rate, self.preprocess)

    def _require_batch_norm_values(self, state: TrainState) -> None:
        """Refuses batches whose moments are of one value, which becomes 0; warns of a few."""
        data, replicas = self.config.data, self.strategy.num_replicas_in_sync
        size = min([data.image_size, *(size for _, size in self.schedule.image_sizes)])
        per_image = batch_norm.count_values_per_image(state.model, size)
        if per_image is None:
            return
        images = data.batch_size // replicas // self.config.optimization.accumulate
        count = images * per_image * (replicas if self.config.net.sync_batch_norm else 1)
        subject = f"--batch_size={data.batch_size}: with {pluralize(images, 'image')} of {size} px"
        subject += f" in a micro-batch, batch norm has {pluralize(count, 'value')} per channel"
        if count == 1:
            raise UsageError(
                f"{subject}, so the net would learn nothing; use more images or larger ones"
            )
        if count < _FEW_VALUES:
            logging.warning("%s: its gradients are noise; use more images", subject)


def make_preprocess_fn(config: Config, num_examples: int = 0) -> PreprocessFunction:
    """Makes the function from a batch of the input pipeline to inputs of the net, and targets.

    Args:
      config: resolved Config.
      num_examples: images of the train split, which `--mixup_off_epoch` counts in. 0: all samples
        are mixed.
    """
    arguments = (config.data, config.length.seed, config.precision.xla)
    if num_mixed := config.data.mixup_off_epoch * num_examples:
        return batch_augment.make_preprocess_fn(*arguments, num_mixed)
    return batch_augment.make_preprocess_fn(*arguments)


def make_step(
    config: Config,
    state: TrainState,
    learning_rate: Callable[[tf.Tensor], tf.Tensor],
    preprocess: PreprocessFunction | None = None,
) -> TrainStep:
    """Makes the training step of a config.

    Args:
      config: resolved Config.
      state: variables of the run.
      learning_rate: int64 step -> float32 scalar.
      preprocess: see `StepSettings`. None: make it.
    """
    replicas = state.strategy.num_replicas_in_sync
    settings = StepSettings(
        global_batch_size=config.data.batch_size,
        preprocess=preprocess or make_preprocess_fn(config),
        learning_rate=learning_rate,
        optimization=config.optimization,
        xla=config.precision.xla,
        log_norms=config.run.log_norms,
        replicas_synchronize=config.net.sync_batch_norm and replicas > 1,
        data=config.data,
        deterministic=config.distribution.deterministic,
    )
    step_class = STEPS.get(config.optimization.step).function
    if not (isinstance(step_class, type) and issubclass(step_class, TrainStep)):
        name = user_code.display_name(config.optimization.step)
        raise UsageError(f"--step={name}: is not a subclass of loops.train_step.TrainStep")
    if step_class is not TrainStep and config.optimization.accumulate > 1:
        # TensorFlow's rewrite of sums fails in nested loops: "Resource .../tmp_var already exists".
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    return step_class(state, settings)
