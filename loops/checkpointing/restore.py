"""The net of a run, rebuilt from its record: what eval and predict start from."""

import dataclasses

import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.text import summarize_error
from loops.checkpointing import checkpoint
from nets import registry


def variables_by_path(keras_object):
    """The tf.Variables of a model or optimizer by their paths, as checkpoints name them."""
    return {variable.path: variable.value for variable in keras_object.variables}


def build_model(strategy, net_config, num_classes, dtype):
    """Builds a net under a strategy.

    Args:
      strategy: tf.distribute.Strategy.
      net_config: NetConfig.
      num_classes: length of the logits.
      dtype: see `mixed_precision.resolve_compute_dtype`.
    """
    derived = dataclasses.replace(net_config, num_classes=num_classes, compute_dtype=dtype)
    with strategy.scope():
        return registry.build_model(derived)


def restore_model(strategy, record, step_dir, dtype, averaged=True):
    """Builds the net of a run and reads its weights: their moving average if the run keeps one.

    Args:
      strategy: tf.distribute.Strategy.
      record: Record of the run.
      step_dir: intact step folder.
      dtype: see `mixed_precision.resolve_compute_dtype`.
      averaged: false for the weights themselves even where there is an average.

    Returns:
      keras.Model.
    """
    model = build_model(strategy, record.config.net, len(record.class_names), dtype)
    load_weights(model, record, step_dir, averaged)
    return model


def load_weights(model, record, step_dir, averaged=True):
    """Reads a step folder's weights into a net of its run that is there already.

    Args:
      model: keras.Model.
      record, step_dir, averaged: see `restore_model`.

    Raises:
      UsageError: they are of another net, or have been removed meanwhile.
    """
    try:
        checkpoint.restore_partial(step_dir, {"model": variables_by_path(model)})
        averaged = averaged and record.config.optimization.ema
        if averaged:
            checkpoint.restore_partial(step_dir, {"ema": _averaged_variables(model)})
    except (AssertionError, ValueError) as error:
        reason = summarize_error(error)
        raise UsageError(f"{step_dir}: not of a {record.config.net.model}: {reason}") from None
    except tf.errors.NotFoundError:
        raise UsageError(
            f"{step_dir}: was removed before it was read, as a training does with all but its"
            " newest; try again, or name one that stays"
        ) from None
    logging.info("%s of %s", "averaged weights" if averaged else "weights", step_dir)


def _averaged_variables(model):
    """Those that an average is kept of: all but seeds and counters."""
    found = variables_by_path(model)
    return {path: v for path, v in found.items() if v.dtype.is_floating}
