"""`--mode=average`: one net whose weights are the mean of several checkpoints'.

Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization".
"""

import dataclasses

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import pipeline
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import UsageError
from input_pipeline.sources import source
from input_pipeline.text import pluralize, tf_error_message
from loops.checkpointing import checkpoint, run_folder
from loops.config import flag_parsers
from loops.config.config import select_flags
from loops.distribution import strategies
from loops.evaluation import trained_models
from loops.monitoring import console, progress_bar
from loops.runtime import output_files
from loops.train_state import TrainState
from nets import registry
from nets.layers.batch_norm import BatchNorm

# Of one forward pass, which is one device's.
_MAX_BATCH_SIZE = 256


def run(config):
    """Averages the checkpoints that `--ckpt` names into the new run `--run_name`.

    Args:
      config: Config of the command line.

    Returns:
      dict of facts, as in the run folder's average.json.

    Raises:
      UsageError: one checkpoint only, nets or normalisations that differ, or a run folder that is
        there already.
    """
    found = trained_models.find(config)
    first = found[0]
    if len(found) < 2:
        raise UsageError(f"--ckpt={config.evaluation.ckpt}: name two or more, with commas")
    for member in found[1:]:
        if not registry.is_same_architecture(member.record.config.net, first.record.config.net):
            raise UsageError(
                f"--ckpt={member.step_dir}: a {member.record.config.net.model} of other settings"
                f" than {first.step_dir}; weights of different nets have no average"
            )
        pixels = [(m.record.config.data.mean, m.record.config.data.std) for m in (member, first)]
        if pixels[0] != pixels[1]:
            raise UsageError(
                f"--ckpt={member.step_dir}: its pixels have another mean or std than those of"
                f" {first.step_dir} (--mode=stats in between?); weights for them have no average"
            )
    run_dir = run_folder.resolve_new_run_dir(config, "the averaged weights")
    # One device: moments come from single batches, and nothing here takes long.
    one = dataclasses.replace(config.distribution, strategy="one")
    strategy = strategies.make_strategy(one)
    own = _make_run_config(first, config)
    split = source.open_split(own.data, "train", first.record.class_names)
    state = TrainState(strategy, own, len(split.class_names))
    for variable, mean in zip(state.model.variables, mean_weights(found, strategy), strict=True):
        variable.assign(mean)
    training = own.replace(image_size=_final_image_size(first, split))
    batch_size = _choose_batch_size(split, own)
    images = min(config.export.bn_batches * own.data.batch_size, split.num_examples)
    batches = -(-images // batch_size)
    try:
        recompute_batch_norm(state.model, train_batches(split, training), batches)
    except tf.errors.ResourceExhaustedError as error:
        raise UsageError(
            f"--mode=average: out of memory in a forward pass of {batch_size} images; free some, or"
            f" average on a CPU: CUDA_VISIBLE_DEVICES=-1 ({tf_error_message(error)[:100]})"
        ) from None
    state.step.assign(max(member.step for member in found))
    of_training = -(-images // own.data.batch_size)
    facts = {"bn_batches": of_training, "bn_images": batches * batch_size}
    facts = _write_run(run_dir, found, state, own, facts)
    output_files.write_json_output(config.evaluation.json, facts)
    return facts


def mean_weights(found, strategy):
    """Mean of each variable over the members, summed in float64.

    Args:
      found: list of Member of one architecture.
      strategy: tf.distribute.Strategy.

    Returns:
      list of float32 arrays, in the order of `model.variables`.
    """
    sums = None
    for member in found:
        values = [v.numpy().astype(np.float64) for v in member.restore(strategy).variables]
        sums = values if sums is None else [a + b for a, b in zip(sums, values, strict=True)]
    return [(total / len(found)).astype(np.float32) for total in sums]


def train_batches(split, config):
    """Training images as the net takes them, the first of the run's, in batches that one device
    can take.

    Yields:
      float32 [B, S, S, 3], normalised.
    """
    batch_size = _choose_batch_size(split, config)
    prepare = batch_augment.make_preprocess_fn(config.data, config.length.seed)
    for batch in pipeline.train_dataset(split, config.data, config.length.seed, 0, batch_size):
        yield prepare(batch)[0]


def _final_image_size(member, split):
    """Side of the images that a member was trained on at the end."""
    data = member.config.data
    stages = flag_parsers.parse_image_size_schedule(
        data.image_size_schedule, split.num_examples / data.batch_size
    )
    return [data.image_size, *(size for start, size in stages if start < member.step)][-1]


def _choose_batch_size(split, config):
    """Images of one forward pass: those of a micro-batch, and no more than one device takes."""
    micro_batch = config.data.batch_size // config.optimization.accumulate
    batch_size = min(micro_batch, _MAX_BATCH_SIZE, split.num_examples)
    if batch_augment.is_mixing(config.data):  # which takes pairs
        batch_size = max(2, batch_size // 2 * 2)
    return batch_size


def recompute_batch_norm(model, batches, count):
    """Gives every batch norm the moments of its inputs over some training batches.

    The averaged net's activations are new, so none of the members' statistics fits them. The
    mean is that of all batches; the variance is the mean of the batches' own plus the variance
    of their means, so that it is the one of all their images together.

    Args:
      model: keras.Model; its moving statistics are replaced.
      batches: iterable of float32 [B, S, S, 3], of one size.
      count: batches to take.
    """
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, BatchNorm)]
    if not layers:
        return
    settings = [(layer.momentum, layer.trainable) for layer in layers]
    for layer in layers:
        layer.momentum = 0.0  # the moving statistics then are those of the last batch
        layer.trainable = True  # also of a frozen backbone, whose statistics would not move
    forward = tf.function(
        lambda images: model(images, training=True), reduce_retracing=True, autograph=False
    )
    sums = [[0.0, 0.0, 0.0] for _ in layers]
    bar = None
    for _, images in zip(range(count), batches, strict=False):
        bar = bar or progress_bar.Progress("batch-norm statistics", count * len(images))
        forward(images)
        for total, layer in zip(sums, layers, strict=True):
            mean = layer.moving_mean.numpy().astype(np.float64)
            total[0] += mean / count
            total[1] += mean**2 / count
            total[2] += layer.moving_variance.numpy().astype(np.float64) / count
        bar.advance(len(images))
    bar.close()
    for (mean, square, variance), layer, before in zip(sums, layers, settings, strict=True):
        layer.moving_mean.assign(mean.astype(np.float32))
        layer.moving_variance.assign((variance + square - mean**2).astype(np.float32))
        layer.momentum, layer.trainable = before


def _make_run_config(first, config):
    """The first member's training config, under the new name; its weights are final."""
    named = {"run_name": config.run.run_name, "checkpoint_dir": config.run.checkpoint_dir}
    # `ema`: what is averaged are the weights that an evaluation takes, and there is one kind now.
    own = first.config.replace(**named, mode="train", ema=0.0, ckpt="", split="val")
    own = own.replace(**dict.fromkeys(select_flags(is_output_file=True), ""))
    return dataclasses.replace(own, typed=frozenset())


def _write_run(run_dir, found, state, config, of_batch_norm):
    """Makes the run folder: record, checkpoint, and what it is an average of."""
    record = run_folder.Record(config, found[0].record.class_names, found[0].record.dataset)
    facts = {
        "average_of": [str(member.step_dir) for member in found],
        "step": int(state.step),
        **of_batch_norm,
        "run": str(run_dir),
    }
    with run_folder.create_or_roll_back(run_dir):
        run_folder.write_record(run_dir, record)
        step_dir = checkpoint.save(run_dir, int(state.step), state.variables())
        output_files.write_json(run_dir / "average.json", facts)
    logging.info("averaged into %s", step_dir)
    rows = [(f"member {i}", name) for i, name in enumerate(facts["average_of"], 1)]
    images = pluralize(facts["bn_images"], "training image")
    rows += [("batch norm", f"recomputed on {images}")]
    console.print_summary(str(step_dir), [*rows, ("evaluate it", f"--mode=eval --ckpt={run_dir}")])
    return facts
