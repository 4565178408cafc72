"""Rebuilds the model of a run from its record and loads its weights."""

import dataclasses
import pathlib

import keras
import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.text import summarize_error
from loops.checkpointing import checkpoint
from loops.checkpointing.run_folder import Record
from nets import registry


def variables_by_path(
    keras_object: keras.Model | keras.optimizers.Optimizer,
) -> dict[str, tf.Variable]:
    """Returns the tf.Variables of a model or optimizer, keyed by their names in checkpoints."""
    return {variable.path: variable.value for variable in keras_object.variables}


def build_model(
    strategy: "tf.distribute.Strategy",
    net_config: registry.NetConfig,
    num_classes: int,
    dtype: str,
    random_weights: bool = True,
) -> keras.Model:
    """Builds a model under a strategy.

    Args:
      strategy: the strategy that owns the variables.
      net_config: the architecture.
      num_classes: length of the logits.
      dtype: see `mixed_precision.resolve_compute_dtype`.
      random_weights: see `nets.layers.kit.Kit`.
    """
    derived = dataclasses.replace(net_config, num_classes=num_classes, compute_dtype=dtype)
    with strategy.scope():
        return registry.build_model(derived, random_weights)


def restore_model(
    strategy: "tf.distribute.Strategy",
    record: Record,
    step_dir: pathlib.Path,
    dtype: str,
    averaged: bool = True,
) -> keras.Model:
    """Builds the model of a run and loads its weights, the EMA weights if the run has them.

    Args:
      strategy: the strategy that owns the variables.
      record: record of the run.
      step_dir: an intact step folder.
      dtype: see `mixed_precision.resolve_compute_dtype`.
      averaged: False loads the weights themselves even if the run has EMA weights.
    """
    model = build_model(
        strategy, record.config.net, len(record.class_names), dtype, random_weights=False
    )
    load_weights(model, record, step_dir, averaged)
    return model


def load_weights(
    model: keras.Model, record: Record, step_dir: pathlib.Path, averaged: bool = True
) -> None:
    """Loads the weights of a step folder into an existing model of the same run.

    Args:
      model: the model whose weights are replaced.
      record, step_dir, averaged: see `restore_model`.

    Raises:
      UsageError: the checkpoint belongs to another architecture or has been removed meanwhile.
    """
    try:
        checkpoint.restore_partial(step_dir, {"model": variables_by_path(model)})
        averaged = averaged and bool(record.config.optimization.ema)
        if averaged:
            checkpoint.restore_partial(step_dir, {"ema": _averaged_variables(model)})
    except tf.errors.NotFoundError:
        raise UsageError(
            f"{step_dir}: was removed before it was read, because training keeps only its newest"
            " checkpoints; try again, or name a checkpoint that is kept"
        ) from None
    except checkpoint.MISMATCH_ERRORS as error:
        reason = summarize_error(error)
        raise UsageError(
            f"{step_dir}: is not a checkpoint of {record.config.net.model}: {reason}"
        ) from None
    logging.debug("loaded the %s of %s", "EMA weights" if averaged else "weights", step_dir)


def _averaged_variables(model: keras.Model) -> dict[str, tf.Variable]:
    """Returns the variables that have an EMA: all except seeds and counters."""
    variables = variables_by_path(model)
    return {path: v for path, v in variables.items() if v.dtype.is_floating}
