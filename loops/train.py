"""`--mode=train`: starts a run, or resumes the one that `--run_name` names."""

import contextlib
import dataclasses
import errno

from absl import logging

from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import source
from input_pipeline.text import summarize_error
from loops import train_failures
from loops.checkpointing import checkpoint, fine_tuning, loss_trace, run_folder, run_summary
from loops.config import dataset_flags, recipes, validation
from loops.config.config import MAY_CHANGE_ON_RESUME, merge
from loops.distribution import strategies, workers
from loops.monitoring import metric_writer
from loops.optimization import auto_batch
from loops.optimization.train_schedule import TrainSchedule
from loops.runtime import log_format
from loops.runtime.stop_signals import NoSignals, StopSignals
from loops.train_input import TrainInput
from loops.train_loop import TrainLoop
from loops.train_state import TrainState
from loops.train_step import StepSettings, make_train_step


def run(config, given):
    """Trains as a command line says.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.

    Returns:
      dict of the results of the final evaluation.
    """
    strategies.require_run_name(config)
    config = dataclasses.replace(config, data=dataset_flags.resolve_dataset(config.data, given))
    run_dir = run_folder.resolve_run_dir(config)
    record = run_folder.read_record(run_dir) if (run_dir / "config.json").exists() else None
    if record is not None:
        may_change = MAY_CHANGE_ON_RESUME
        config = merge(record.config, given, config, may_change, "resume")
        if record.weights:
            raise UsageError(
                f"--run_name={run_dir.name}: holds imported weights, not a training; start one"
                f" from them with --init_from={run_dir} and another --run_name"
            )
    elif run_folder.contains_other_files(run_dir):
        raise UsageError(f"--run_name={run_dir.name}: {run_dir} holds something else than a run")
    else:
        if config.optimization.auto_batch and "accumulate" in given:
            raise UsageError(
                f"--accumulate={config.optimization.accumulate} with --auto_batch, which chooses"
                " that number; drop one"
            )
        config = fine_tuning.inherit_settings(config)
        config = recipes.apply(config, given)
    dataset_flags.require_named_dataset(config.data, given)
    config = validation.resolve(config)
    if record is None:
        config = auto_batch.choose_accumulate(config)
    with StopSignals() as signals, _convert_disk_full_error(run_dir):
        return train(config, run_dir, record, signals)


@contextlib.contextmanager
def _convert_disk_full_error(run_dir):
    """Turns the error of a disk on which not even the beginnings of a run fit into a line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UsageError(
            f"--checkpoint_dir={run_dir.parent}: the disk is full ({error.strerror}); make room, or"
            " name another folder"
        ) from error


def train(config, run_dir, record=None, signals=None):
    """Trains until the config's length is reached, evaluating and saving on the way.

    The state comes from the newest intact checkpoint in the folder, or else is fresh.

    Args:
      config: resolved Config.
      run_dir: pathlib.Path of the run folder; made if it is not there.
      record: Record of the run to resume, or None for a new one.
      signals: StopSignals, asked between calls of the step; None where nobody can send any.

    Returns:
      dict of the results of the final evaluation.

    Raises:
      UserError: one of the ends that `main.py` turns into an exit code.
    """
    again = "start all of them again with the same --run_name"
    with train_failures.convert_worker_errors(again):
        strategy = strategies.make_strategy(config.distribution)
    team = workers.Workers(strategy)
    accumulate = config.optimization.accumulate
    strategies.require_equal_micro_batches(config.data.batch_size, strategy, accumulate)
    train_split, val_split = _open_splits(config.data, record)
    length = TrainSchedule(config, train_split.num_examples)
    length.log()
    seed, sizes = config.length.seed, length.image_sizes
    feed = TrainInput(strategy, train_split, config.data, seed, sizes, accumulate)
    with train_failures.convert_worker_errors(again, run_dir), contextlib.ExitStack() as stack:
        if team.is_chief:
            stack.enter_context(run_folder.lock(run_dir))
            stack.enter_context(log_format.copy_to_file(run_dir))
            logging.info("run folder %s", run_dir)
            record = _save_record(run_dir, config, record, train_split, val_split)
            checkpoint.remove_unfinished(run_dir)
        team.wait_for_folder(run_dir)  # nobody reads it before the chief has made it
        state = TrainState(strategy, config, len(train_split.class_names))
        if not _restore_newest(run_dir, state) and config.fine_tuning.init_from:
            _load_initial_weights(config.fine_tuning.init_from, state, train_split.class_names)
        team.require_equal(int(state.step), "the step to resume from")
        step = make_step(config, state, length.learning_rate)
        step = loss_trace.TracedStep(step, state, run_dir, record, team)
        sink = metric_writer.NullMetricWriter()
        if team.is_chief:
            sink = stack.enter_context(metric_writer.MetricWriter(run_dir, int(state.step)))
            sink.write_description(
                run_summary.format_markdown(
                    record, run_folder.get_package_versions(), state.model, length.total_steps
                ),
                run_summary.get_hyperparameters(config),
            )
        signals = signals or NoSignals()
        loop = TrainLoop(config, run_dir, state, feed, step, val_split, sink, length, signals, team)
        return loop.run()


def _open_splits(data, record):
    """The train and val splits, with the classes of the run where it has begun."""
    train_split = source.open_split(data, "train", record.class_names if record else ())
    val_split = source.open_split(data, "val", train_split.class_names)
    source.warn_of_missing_classes(train_split, val_split)
    return train_split, val_split


def make_step(config, state, learning_rate):
    """The training step of a run, see `make_train_step`.

    Args:
      config: resolved Config.
      state: TrainState.
      learning_rate: function from the int64 step to a float32 scalar.
    """
    replicas = state.strategy.num_replicas_in_sync
    settings = StepSettings(
        global_batch_size=config.data.batch_size,
        prepare=batch_augment.make_preprocess_fn(
            config.data, config.length.seed, config.precision.xla
        ),
        learning_rate=learning_rate,
        optimization=config.optimization,
        xla=config.precision.xla,
        log_norms=config.run.log_norms,
        replicas_meet=config.net.sync_batch_norm and replicas > 1,
        deterministic=config.distribution.deterministic,
    )
    return make_train_step(state, settings)


def _save_record(run_dir, config, record, train_split, val_split):
    """Writes config.json and returns its Record; warns when the images are not those that the
    run began with."""
    splits = {"train": train_split, "val": val_split}
    facts = {
        name: {"images": split.num_examples, "fingerprint": split.fingerprint}
        for name, split in splits.items()
    }
    if record is not None and record.dataset != facts:
        logging.warning("the images are not those that this run began with: %s", config.data)
    record = run_folder.Record(config, train_split.class_names, facts)
    run_folder.write_record(run_dir, record)
    return record


def _load_initial_weights(init_from, state, class_names):
    """Reads another run's weights, from which their averages start as well."""
    fine_tuning.load_weights(state.model, init_from, class_names)
    if state.ema is not None:
        state.ema.reset()


def _restore_newest(run_dir, state):
    """Resumes from the newest intact checkpoint; a folder without any saved step starts fresh.

    Returns:
      Whether it resumed.

    Raises:
      DataError: there are step folders, and none is intact. Starting over is for the user to say.
    """
    newest = checkpoint.find_newest_intact(run_dir)
    if newest is not None:
        try:
            checkpoint.restore(newest, state.variables())
        except (AssertionError, ValueError) as error:
            raise DataError(f"{newest}: not of this net: {summarize_error(error)}") from None
        state.loss_scale.reset_if_precision_changed()
        logging.info("resumed at step %d from %s", int(state.step), newest)
    elif checkpoint.list_step_folders(run_dir):
        raise DataError(
            f"{run_dir}: no step folder is intact; remove them to start over, or restore one"
        )
    return newest is not None
