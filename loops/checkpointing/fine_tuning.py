"""Fine-tuning: starting from the weights of another run, and training the head alone."""

from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.text import summarize_error
from loops.checkpointing import checkpoint, restore, run_folder
from loops.config.config import replace

# The classifier's layer in every net, see `nets.layers.kit.Kit.logits`.
_HEAD_PREFIX = "logits/"


def inherit_settings(config):
    """Takes over from the run behind `--init_from` what its weights are used to.

    That is the mean and the deviation that images are normalised with, and the constants of batch
    norm.

    Args:
      config: Config of the command line, not resolved yet.

    Returns:
      Config; the same where there is no `--init_from`.

    Raises:
      UsageError: no such run, or one of another net; `--freeze` without any.
    """
    if not config.fine_tuning.init_from:
        if config.fine_tuning.freeze != "none":
            raise UsageError(
                f"--freeze={config.fine_tuning.freeze}: without --init_from its weights would stay"
                " random; name a run, or leave it out"
            )
        return config
    run_dir, _ = run_folder.find_checkpoint(config.fine_tuning.init_from, "--init_from")
    theirs = run_folder.read_record(run_dir).config
    if theirs.net.model != config.net.model:
        raise UsageError(
            f"--init_from={config.fine_tuning.init_from} holds a {theirs.net.model}, not a"
            f" {config.net.model}: give --model={theirs.net.model}"
        )
    return replace(
        config,
        {
            "mean": theirs.data.mean,
            "std": theirs.data.std,
            "batch_norm_momentum": theirs.net.batch_norm_momentum,
            "batch_norm_epsilon": theirs.net.batch_norm_epsilon,
        },
    )


def load_weights(model, init_from, class_names):
    """Reads the weights of another run into a fresh net.

    The head is left as it is where the classes are not the same, and the log says so. Where the
    other run keeps a moving average of its weights, that is what is read, as in evaluation.

    Args:
      model: keras.Model.
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
            " others" if len(record.class_names) == len(class_names) else "",
        )
    try:
        checkpoint.restore_partial(step_dir, {"model": variables})
        if record.config.optimization.ema:
            averaged = {p: v for p, v in variables.items() if v.dtype.is_floating}
            checkpoint.restore_partial(step_dir, {"ema": averaged})
    except (AssertionError, ValueError) as error:
        raise UsageError(
            f"--init_from={init_from}: does not fit this net: {summarize_error(error)}"
        ) from None
    logging.info("weights of %s", step_dir)


def freeze_backbone(model):
    """Leaves only the head to train; batch norm infers, so that its statistics stay as well.

    Call before the optimizer is built.
    """
    for layer in model.layers:
        layer.trainable = f"{layer.name}/" == _HEAD_PREFIX
    logging.info("frozen but for %d tensors of the head", len(model.trainable_variables))
