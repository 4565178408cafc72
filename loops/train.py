"""`--mode=train`: starts a run, or resumes the one that `--run_name` names."""

from absl import logging

from input_pipeline import batch_augment, source
from input_pipeline.errors import DataError, UsageError
from loops import config as configs
from loops import validation
from loops.run import checkpoint, logs, run_folder, summaries
from loops.run.signals import StopSignals
from loops.step import distribution, schedules
from loops.step.feed import TrainFeed
from loops.step.state import TrainState
from loops.step.train_step import StepSettings, make_train_step
from loops.training_loop import TrainingLoop

_NOT_FOR_TRAINING = {"ckpt", "split", "image", "logits", "save_logits", "watch", "test_size", "out"}


def run(config, given):
    """Trains as a command line says.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.

    Returns:
      dict of the results of the final evaluation.
    """
    for name in sorted(given & _NOT_FOR_TRAINING):
        raise UsageError(f"--{name} is not for training; to resume a run, name it with --run_name")
    run_dir = run_folder.path_of(config)
    record = run_folder.read_record(run_dir) if (run_dir / "config.json").exists() else None
    if record is not None:
        may_change = configs.MAY_CHANGE_ON_RESUME
        config = configs.merge(record.config, given, config, may_change, "resume")
    elif run_folder.is_foreign(run_dir):
        raise UsageError(f"--run_name={run_dir.name}: {run_dir} holds something else than a run")
    with StopSignals() as signals:
        return train(validation.resolve(config), run_dir, record, lambda: signals.received)


def train(config, run_dir, record=None, stop_signal=lambda: None):
    """Trains until the config's length is reached, evaluating and saving on the way.

    The state comes from the newest intact checkpoint in the folder, or else is fresh.

    Args:
      config: resolved Config.
      run_dir: pathlib.Path of the run folder; made if it is not there.
      record: Record of the run to resume, or None for a new one.
      stop_signal: asked between calls of the step; a signal number saves the state and ends.

    Returns:
      dict of the results of the final evaluation.

    Raises:
      UserError: one of the ends that `main.py` turns into an exit code.
    """
    strategy = distribution.make_strategy(config.distribution)
    train_split = source.open_split(config.data, "train", record.class_names if record else ())
    val_split = source.open_split(config.data, "val", train_split.class_names)
    source.warn_of_missing_classes(train_split, val_split)
    feed = TrainFeed(strategy, train_split, config.data, config.length.seed)
    with run_folder.lock(run_dir), logs.to_file(run_dir):
        logging.info("run folder %s", run_dir)
        _keep_record(run_dir, config, record, {"train": train_split, "val": val_split})
        checkpoint.clean(run_dir)
        state = TrainState(strategy, config, len(train_split.class_names))
        _restore_newest(run_dir, state)
        length = _Length(config, train_split.num_examples)
        step = _make_step(config, state, length)
        with summaries.Measurements(run_dir, resumed_at=int(state.step)) as sink:
            loop = TrainingLoop(
                config, run_dir, state, feed, step, val_split, sink, length, stop_signal
            )
            return loop.run()


class _Length:
    """Steps of a run and of its parts, and the learning rate, which follows from them."""

    def __init__(self, config, num_examples):
        batch_size = config.data.batch_size
        self.total_steps = validation.total_steps(config.length, num_examples, batch_size)
        self.steps_per_epoch = num_examples / batch_size
        warmup = round(config.optimization.warmup_epochs * self.steps_per_epoch)
        # A short trial run of a long recipe would otherwise be all warm-up.
        self._warmup_steps = min(warmup, self.total_steps // 2)
        self._optimization = config.optimization
        self._peak = schedules.peak(config.optimization, batch_size)
        logging.info(
            "%d steps of %d images, %.1f steps an epoch, %d steps of warm-up to learning rate %g",
            self.total_steps,
            batch_size,
            self.steps_per_epoch,
            self._warmup_steps,
            self._peak,
        )

    def learning_rate(self, step):
        """Learning rate of a step: float32 scalar tensor."""
        return schedules.learning_rate(
            self._optimization, step, self.total_steps, self._warmup_steps, self._peak
        )


def _make_step(config, state, length):
    settings = StepSettings(
        global_batch_size=config.data.batch_size,
        prepare=batch_augment.make_prepare(config.data),
        label_smoothing=config.optimization.label_smoothing,
        weight_decay=config.optimization.weight_decay,
        learning_rate=length.learning_rate,
    )
    return make_train_step(state, settings)


def _keep_record(run_dir, config, record, splits):
    """Writes config.json; warns when the images are not those that the run began with."""
    facts = {
        name: {"images": split.num_examples, "fingerprint": split.fingerprint}
        for name, split in splits.items()
    }
    if record is not None and record.dataset != facts:
        logging.warning("the images are not those that this run began with: %s", config.data)
    class_names = splits["train"].class_names
    run_folder.write_record(run_dir, run_folder.Record(config, class_names, facts))


def _restore_newest(run_dir, state):
    """Resumes from the newest intact checkpoint; a folder without any saved step starts fresh.

    Raises:
      DataError: there are step folders, and none is intact. Starting over is for the user to say.
    """
    newest = checkpoint.newest_intact(run_dir)
    if newest is not None:
        try:
            checkpoint.restore(newest, state.variables())
        except (AssertionError, ValueError) as error:
            raise DataError(f"{newest}: not of this net: {checkpoint.first_line(error)}") from None
        logging.info("resumed at step %d from %s", int(state.step), newest)
    elif checkpoint.step_folders(run_dir):
        raise DataError(
            f"{run_dir}: no step folder is intact; remove them to start over, or restore one"
        )
