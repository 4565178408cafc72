"""Fine-tuning: training from the weights of another run, or of its head alone."""

from collections.abc import Sequence

import keras
from absl import logging

from input_pipeline import user_code
from input_pipeline.errors import UsageError
from input_pipeline.text import summarize_error
from loops.checkpointing import checkpoint, restore, run_folder
from loops.config.config import Config

# Path of the classifier in every net, see `nets.layers.kit.Kit.logits`.
_HEAD_PREFIX = "logits/"


def read_parent(config: Config) -> Config | None:
    """Reads the config of the run behind `--init_from`.

    Args:
      config: config of the command line, not resolved yet.

    Returns:
      None without `--init_from`.

    Raises:
      UsageError: there is no such run, or it is of another net, or `--freeze` has no weights to
        freeze.
    """
    init_from, freeze = config.fine_tuning.init_from, config.fine_tuning.freeze
    if not init_from:
        if freeze != "none":
            raise UsageError(
                f"--freeze={freeze}: without --init_from the frozen weights would stay random; name"
                " a run, or leave the flag out"
            )
        return None
    run_dir, _ = run_folder.find_checkpoint(init_from, "--init_from")
    parent = run_folder.read_record(run_dir).config
    theirs, ours = (user_code.display_name(model) for model in (parent.net.model, config.net.model))
    if "model" in config.typed and theirs != ours:
        raise UsageError(
            f"--init_from={init_from} contains a {theirs}, not a {ours}: leave --model out, or give"
            f" --model={theirs}"
        )
    if theirs == ours and parent.net.model != config.net.model:
        logging.warning("--init_from=%s: %s has changed since that run", init_from, ours)
    return parent


def load_weights(model: keras.Model, init_from: str, class_names: Sequence[str]) -> None:
    """Loads the weights of another run into a new model.

    The head keeps its initial weights if the classes differ, and the log says so. If the other run
    has averaged weights (EMA), those are loaded, as in evaluation.

    Args:
      model: new model.
      init_from: run or step folder.
      class_names: of the new run, by label.

    Raises:
      UsageError: the weights do not fit.
    """
    run_dir, step_dir = run_folder.find_checkpoint(init_from, "--init_from")
    record = run_folder.read_record(run_dir)
    variables = restore.variables_by_path(model)
    if record.class_names != tuple(class_names):
        variables = {p: v for p, v in variables.items() if not p.startswith(_HEAD_PREFIX)}
        logging.info(
            "the head is replaced: %s has %d classes, this run has %d%s",
            init_from,
            len(record.class_names),
            len(class_names),
            " different ones" if len(record.class_names) == len(class_names) else "",
        )
    try:
        checkpoint.restore_partial(step_dir, {"model": variables})
        if record.config.optimization.ema:
            averaged = {p: v for p, v in variables.items() if v.dtype.is_floating}
            checkpoint.restore_partial(step_dir, {"ema": averaged})
    except checkpoint.MISMATCH_ERRORS as error:
        raise UsageError(
            f"--init_from={init_from}: does not fit this net: {summarize_error(error)}"
        ) from None
    logging.info("weights of %s", step_dir)


def freeze_backbone(model: keras.Model) -> None:
    """Freezes all but the head; batch norm runs in inference mode, so its statistics stay too.

    Call before the optimizer is built.
    """
    for layer in model.layers:
        layer.trainable = f"{layer.name}/" == _HEAD_PREFIX
    logging.info("frozen except for %d tensors of the head", len(model.trainable_variables))
