"""Ends of a training that nobody asked for, each with its exit code and what to do about it."""

import contextlib

import tensorflow as tf

from input_pipeline.errors import UsageError, UserError
from input_pipeline.text import pluralize, summarize_error
from loops.checkpointing import checkpoint
from nets import registry


class TrainingDiverged(UserError):
    """Gradients or weights are not finite."""

    exit_code = 4


class WorkerLost(UserError):
    """Another worker is gone, and this one cannot go on alone."""

    exit_code = 1


def describe_last_checkpoint(run_dir):
    """Names the newest intact checkpoint, for a message."""
    newest = checkpoint.find_newest_intact(run_dir)
    return f"last good checkpoint: {newest}" if newest else "no checkpoint was saved yet"


def make_out_of_memory_error(config, done, said):
    """The UsageError that names what helps: of that, a run that has begun takes one thing alone.

    Args:
      config: resolved Config.
      done: steps done.
      said: by TensorFlow.
    """
    mend = "start a run of half of it, or with --accumulate=2 or --mixed_precision"
    if done and registry.is_residual(config.net.model) and not config.net.recompute:
        mend = "resume the run with --recompute"
    return UsageError(f"--batch_size={config.data.batch_size}: out of memory; {mend} ({said})")


def make_nonfinite_gradients_error(done, loss_scale, batch_size, image_of, run_dir):
    """The TrainingDiverged of a step whose gradients leave no hope.

    Args:
      done: steps done, that one included.
      loss_scale: LossScale.
      batch_size: images of a step.
      image_of: function from a sample number to the image's name.
      run_dir: the run folder.
    """
    first = (done - 1) * batch_size
    last = first + batch_size - 1
    steps = pluralize(int(loss_scale.skips_in_a_row), "step")
    return TrainingDiverged(
        f"step {done}: gradients are not finite, {steps} in a"
        f" row, loss scale {float(loss_scale.scale):g}; samples {first} to {last}, the first"
        f" is {image_of(first)}; {describe_last_checkpoint(run_dir)}; try a lower"
        " --learning_rate in"
        " another run, which --init_from can start from a checkpoint"
    )


def make_nonfinite_variable_error(done, name, run_dir):
    """The TrainingDiverged of a variable that a checkpoint must not hold."""
    return TrainingDiverged(
        f"step {done}: variable {name} is not finite; {describe_last_checkpoint(run_dir)}"
    )


@contextlib.contextmanager
def convert_worker_errors(mend, run_dir=None):
    """Turns what the others see of a worker's end into a WorkerLost.

    Args:
      mend: what to do then.
      run_dir: folder of a training, whose last good checkpoint is then named.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.DeadlineExceededError) as error:
        named = f"; {describe_last_checkpoint(run_dir)}" if run_dir else ""
        raise WorkerLost(
            f"another worker is gone ({summarize_error(error)}); {mend}{named}"
        ) from error
