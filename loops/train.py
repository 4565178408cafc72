"""`--mode=train`: starts a run, or resumes the run that `--run_name` names."""

import contextlib
import errno
import pathlib
import shlex
import sys
from collections.abc import Iterator

from absl import logging

from input_pipeline import user_code
from input_pipeline.errors import DataError, UsageError
from input_pipeline.system import folder_lock
from input_pipeline.text import pluralize, summarize_error
from loops import train_failures, worker_agreement
from loops.checkpointing import (
    checkpoint,
    fine_tuning,
    loss_trace,
    run_folder,
    run_summary,
    split_facts,
)
from loops.config import dataset_flags, flag_parsers, resolve
from loops.config.config import Config, RunConflict
from loops.distribution import strategies
from loops.evaluation import eval_results
from loops.monitoring import console, metric_writer
from loops.optimization import auto_batch
from loops.runtime import log_format, output_files
from loops.runtime.stop_signals import StopSignals
from loops.train_loop import RunOutputs, TrainLoop
from loops.train_setup import TrainSetup
from loops.train_state import TrainState
from nets.macs import count_parameters


def run(config: Config) -> dict:
    """Runs the training of a command line; returns the results of the final evaluation.

    Args:
      config: config of the command line.
    """
    strategies.require_run_name(config)
    with worker_agreement.start_together(config) as facts:
        facts |= worker_agreement.describe_recipe(config)
        run_dir, record, config = _prepare(config)
        results = _read_results_of_finished_run(config, run_dir, record) if record else None
        facts["whether --run_name is trained and evaluated"] = "yes" if results else "no"
    if results is not None:
        logging.info("nothing to train: step %d, the last, was evaluated", results["step"])
        if strategies.is_chief(config.distribution):
            output_files.write_json_output(config.evaluation.json, results)
            console.print_summary(
                f"{run_dir}, step {results['step']}", console.format_evaluation(results)
            )
            _log_next_commands(run_dir, config.data.dataset)
        return results
    answer = "saves and stops after the current step; a second signal ends at once, without saving"
    with StopSignals(answer) as signals, _convert_full_disk(run_dir):
        return train(config, run_dir, record, signals)


def _prepare(config: Config) -> tuple[pathlib.Path, run_folder.Record | None, Config]:
    """Finds the run folder and completes the config; returns both and the run's Record."""
    run_dir = run_folder.resolve_run_dir(dataset_flags.resolve_dataset(config))
    record = None
    if config.run.run_name and (run_dir / "config.json").exists():
        record = run_folder.read_record(run_dir)
    if record is not None and record.weights:
        raise UsageError(
            f"--run_name={run_dir.name}: contains imported weights, not a training run; start one"
            f" from them with --init_from={run_dir} and another --run_name"
        )
    if record is not None:
        for path in user_code.find_changed(record.config.leaves().values()):
            logging.warning("%s has changed since the run began; its copy in the run is used", path)
        try:
            config = resolve.resolve_training(config, saved=record.config)
        except RunConflict as error:
            if checkpoint.list_step_folders(run_dir) or folder_lock.is_held(run_dir):
                raise
            raise UsageError(f"{error}; or remove {run_dir}, in which no step was saved") from None
    else:
        if config.run.run_name and run_folder.contains_other_files(run_dir):
            raise UsageError(f"--run_name={run_dir.name}: {run_dir} is not a run folder")
        config = resolve.resolve_training(config, parent=fine_tuning.read_parent(config))
        if not config.run.run_name:
            run_dir = run_folder.resolve_run_dir(config)  # its name says which net it is
        config = auto_batch.choose_accumulate(config)
    return run_dir, record, config


def train(
    config: Config,
    run_dir: pathlib.Path,
    record: run_folder.Record | None = None,
    signals: StopSignals | None = None,
) -> dict:
    """Trains for the length in the config; returns the results of the final evaluation.

    The state comes from the newest intact checkpoint in the run folder. If there is none, the
    weights are loaded from `--init_from` or initialized at random.

    Args:
      config: resolved Config.
      run_dir: the run folder; created if missing. Without `--run_name` it must be new: a number is
        added to its name if another run has it.
      record: Record of the run to resume, or None for a new run.
      signals: requests to stop or to save; None handles no signals.

    Raises:
      UserError: an error that `main.py` turns into an exit code.
    """
    advice = "restart all workers with the same --run_name"
    with train_failures.convert_worker_errors(advice):
        if record is not None:
            split_facts.require_same_split(record.dataset, config.data)
        setup = TrainSetup(config, record.class_names if record else ())
        setup.build()
        if record is not None:
            _require_longer(config, run_dir, setup.schedule.total_steps)
        _log_header(setup)
    is_chief = setup.workers.is_chief
    with train_failures.convert_worker_errors(advice, run_dir), contextlib.ExitStack() as stack:
        if is_chief:
            if config.run.run_name:
                stack.enter_context(run_folder.lock(run_dir))
                if record is None and (run_dir / "config.json").exists():
                    raise UsageError(
                        f"--run_name={run_dir.name}: another process has begun this run meanwhile;"
                        " name another run, or repeat the command to resume it"
                    )
            else:
                run_dir = run_folder.lock_unnamed(run_dir, stack)
            stack.enter_context(log_format.copy_to_file(run_dir))
            logging.info(
                "run folder %s (tensorboard --logdir %s)", run_dir, shlex.quote(str(run_dir.parent))
            )
            record = _update_record(run_dir, setup, record)
            checkpoint.remove_unfinished(run_dir)
        setup.workers.wait_for_folder(run_dir)  # the chief creates it
        setup.workers.agree(
            lambda: _initialize(setup.state, run_dir, setup),
            lambda: worker_agreement.describe_state(setup.state),
        )
        trace = loss_trace.LossTrace(setup.state, run_dir, record, setup.workers)
        writer: metric_writer.MetricWriter | metric_writer.NullMetricWriter
        writer = metric_writer.NullMetricWriter()
        if is_chief:
            writer = stack.enter_context(metric_writer.MetricWriter(run_dir, int(setup.state.step)))
            writer.write_description(
                run_summary.format_markdown(
                    sys.argv,
                    run_folder.get_git_commit(),
                    record,
                    run_folder.get_package_versions(),
                    setup.state.model,
                    setup.schedule.total_steps,
                ),
                run_summary.get_hyperparameters(config),
                run_summary.list_columns(),
            )
        outputs = RunOutputs(run_dir, writer, trace)
        results = TrainLoop(setup, outputs, signals or StopSignals()).run()
        if is_chief:
            _log_next_commands(run_dir, config.data.dataset)
        return results


def _require_longer(config: Config, run_dir: pathlib.Path, total_steps: int) -> None:
    """Raises UsageError if a typed length of a resumed run is one that it is already beyond."""
    typed = sorted({"epochs", "steps", "examples"} & config.typed)
    folders = checkpoint.list_step_folders(run_dir)
    newest = checkpoint.parse_step(folders[0]) if folders else None
    if typed and newest is not None and newest > total_steps:
        value = getattr(config.length, typed[0])
        raise UsageError(
            f"--{typed[0]}={value:g}: would end the run at step {total_steps}, and it is already at"
            f" step {newest}; give more, or leave the flag out"
        )


def _log_header(setup: TrainSetup) -> None:
    """Logs what is trained, on what and where, in lines that fit a terminal."""
    data, state = setup.config.data, setup.state
    logging.info(
        "%s with %.1f M parameters in %s on %s",
        user_code.display_name(setup.config.net.model),
        count_parameters(state.model) / 1e6,
        state.compute_dtype,
        strategies.describe_devices(setup.strategy),
    )
    logging.info(
        "%s: %s, %d training and %d validation images at %d px",
        data.dataset,
        pluralize(len(setup.train_split.class_names), "class"),
        setup.train_split.num_examples,
        setup.val_split.num_examples,
        data.image_size,
    )
    setup.schedule.log()


def _log_next_commands(run_dir: pathlib.Path, dataset: str) -> None:
    """Logs the best checkpoint and what can be done with it, after a word about a toy set."""
    if dataset == "shapes":
        logging.info("these results are of the built-in toy set shapes")
    best = checkpoint.find_best_intact(run_dir)
    if best is None:
        return
    logging.info("best checkpoint: %s/best (%s)", run_dir, best.name)
    path = shlex.quote(f"{run_dir}/best")
    logging.info("next: python main.py --mode=eval --ckpt=%s", path)
    logging.info("  or: python main.py --mode=predict --ckpt=%s --image=PHOTO", path)


def _read_results_of_finished_run(
    config: Config, run_dir: pathlib.Path, record: run_folder.Record
) -> dict | None:
    """Returns the results of a run that is trained and evaluated; None for others.

    A job that was put back into the queue then adds nothing to the run folder.
    """
    newest = checkpoint.find_newest_intact(run_dir)
    has_facts = {"train", "val"} <= record.dataset.keys()
    if newest is None or not has_facts or config.data != record.config.data:
        return None
    images, fingerprint = record.dataset["train"]["images"], record.dataset["val"]["fingerprint"]
    step = checkpoint.parse_step(newest)
    total_steps = flag_parsers.compute_total_steps(config.length, images, config.data.batch_size)
    if step < total_steps or checkpoint.read_score(newest) is None:
        return None
    return eval_results.read_final(run_dir, step, config, fingerprint)


def _initialize(state: TrainState, run_dir: pathlib.Path, setup: TrainSetup) -> None:
    """Restores the newest intact checkpoint; without one, loads the weights of `--init_from`.

    Raises:
      DataError: there are step folders but none is intact. Only the user can decide to start over.
    """
    newest = checkpoint.find_newest_intact(run_dir)
    if newest is not None:
        try:
            checkpoint.restore(newest, state.variables())
        except checkpoint.MISMATCH_ERRORS as error:
            raise DataError(
                f"{newest}: is not a checkpoint of this net: {summarize_error(error)}"
            ) from None
        state.loss_scale.reset_if_precision_changed()
        logging.info("resumed at step %d from %s", int(state.step), newest)
        return
    if checkpoint.list_step_folders(run_dir):
        raise DataError(
            f"{run_dir}: no step folder is intact; remove them to start over, or copy an intact one"
            " back"
        )
    init_from = setup.config.fine_tuning.init_from
    if init_from:
        fine_tuning.load_weights(state.model, init_from, setup.train_split.class_names)
        if state.ema is not None:
            state.ema.reset()


def _update_record(
    run_dir: pathlib.Path, setup: TrainSetup, record: run_folder.Record | None
) -> run_folder.Record:
    """Writes config.json and returns its Record; warns if the images have changed."""
    splits = {"train": setup.train_split, "val": setup.val_split}
    dataset = {
        name: split_facts.describe(split, setup.config.data) for name, split in splits.items()
    }
    if record is not None:
        for change in split_facts.find_changes(record.dataset, dataset, record.class_names):
            logging.warning(
                "the images differ from those at the last start of this run: %s", change
            )
    record = run_folder.Record(setup.config, setup.train_split.class_names, dataset)
    run_folder.write_record(run_dir, record)
    return record


@contextlib.contextmanager
def _convert_full_disk(run_dir: pathlib.Path) -> Iterator[None]:
    """Converts the error of a full disk into a UsageError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UsageError(
            f"--checkpoint_dir={run_dir.parent}: the disk is full ({error.strerror}); make room, or"
            " name another folder"
        ) from error
