"""Errors that end training, each with its exit code and what to do about it."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from input_pipeline.errors import UserError
from input_pipeline.text import pluralize, summarize_error
from loops.checkpointing import checkpoint
from loops.config.config import Config
from loops.optimization.loss_scale import LossScale
from nets import registry


class TrainingDiverged(UserError):
    """Gradients or weights are not finite."""

    exit_code = 4


class WorkerLost(UserError):
    """Another worker has ended, and this one cannot continue alone."""

    exit_code = 1


def describe_last_checkpoint(run_dir: pathlib.Path) -> str:
    """Names the newest intact checkpoint, for a message."""
    newest = checkpoint.find_newest_intact(run_dir)
    return f"last good checkpoint: {newest}" if newest else "no checkpoint was saved yet"


def advise_on_memory(config: Config, step: int) -> str:
    """Returns what to do when memory runs out. Only --recompute can be added to a started run."""
    may_recompute = registry.is_residual(config.net.model) and not config.net.recompute
    if step and may_recompute:
        return "resume the run with --recompute"
    flags = [f"--accumulate={2 * config.optimization.accumulate}"]
    if may_recompute:
        flags.append("--recompute")
    if not config.precision.mixed_precision:
        flags.append("--mixed_precision")
    return f"start a run with a smaller batch, or with {' or '.join(flags)}"


def make_nonfinite_gradients_error(
    step: int,
    loss_scale: LossScale,
    batch_size: int,
    describe_sample: Callable[[int], str],
    run_dir: pathlib.Path,
) -> TrainingDiverged:
    """Makes the error for gradients that stay non-finite.

    Args:
      step: number of steps, the failed one included.
      loss_scale: with its counters.
      batch_size: images per step.
      describe_sample: returns the name of the image behind a sample number.
      run_dir: the run folder.
    """
    first = (step - 1) * batch_size
    last = first + batch_size - 1
    skips = pluralize(int(loss_scale.skips_in_a_row), "step")
    return TrainingDiverged(
        f"step {step}: gradients are not finite, {skips} in a"
        f" row, loss scale {float(loss_scale.scale):g}; samples {first} to {last}, the first"
        f" is {describe_sample(first)}; {describe_last_checkpoint(run_dir)}; try a lower"
        " --learning_rate in another run, which --init_from can start from a checkpoint"
    )


def make_nonfinite_variable_error(
    step: int, error: Exception, run_dir: pathlib.Path
) -> TrainingDiverged:
    """Makes the error for a variable that must not be saved."""
    last = describe_last_checkpoint(run_dir)
    return TrainingDiverged(f"step {step}: variable {error} is not finite; {last}")


@contextlib.contextmanager
def convert_worker_errors(advice: str, run_dir: pathlib.Path | None = None) -> Iterator[None]:
    """Raises WorkerLost when a peer disconnects.

    Args:
      advice: what to do then.
      run_dir: run folder of a training, whose last good checkpoint is then named.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.DeadlineExceededError) as error:
        last = f"; {describe_last_checkpoint(run_dir)}" if run_dir else ""
        raise WorkerLost(
            f"another worker is gone ({summarize_error(error)}); {advice}{last}"
        ) from error
