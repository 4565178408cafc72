"""`--mode=average`: averages the weights of several checkpoints into a new run.

Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization".
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import pipeline, user_code
from input_pipeline.arithmetic import ceil_div
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import source
from input_pipeline.sources.source import Source
from input_pipeline.system import atomic_files, regular_files, typed_json
from input_pipeline.text import pluralize
from loops.checkpointing import checkpoint, run_folder
from loops.config import flag_parsers
from loops.config.config import Config, select_flags
from loops.distribution import strategies
from loops.evaluation import trained_models
from loops.evaluation.trained_models import TrainedModel
from loops.monitoring import console, progress_bar
from loops.runtime import output_files
from loops.runtime.out_of_memory import convert_out_of_memory
from loops.train_state import TrainState
from nets import registry

# Images of one forward pass, which runs on one device.
_MAX_BATCH_SIZE = 256
_RESULTS_FILE = "average.json"


def run(config: Config) -> dict:
    """Averages the checkpoints that `--ckpt` names into the new run `--run_name`.

    Args:
      config: config of the command line.

    Returns:
      dict as in average.json of the run folder.

    Raises:
      UsageError: there is only one checkpoint, architectures or normalizations differ, or the run
        folder already exists.
    """
    models = trained_models.find_models(config)
    first = models[0]
    _require_compatible(models, config)
    _warn_of_independent_runs(models)
    run_dir = run_folder.resolve_new_run_dir(config, "the averaged weights")
    # One device: the batch-norm moments are those of single batches, and the work is short.
    one_device = dataclasses.replace(config.distribution, strategy="one")
    strategy = strategies.make_strategy(one_device)
    run_config = _make_run_config(first, config)
    split = source.open_split(run_config.data, "train", first.record.class_names)
    state = TrainState(strategy, run_config, len(split.class_names))
    for variable, mean in zip(state.model.variables, mean_weights(models, strategy), strict=True):
        variable.assign(mean)
    batch_norm_config = run_config.replace(image_size=_final_image_size(first, split))
    batch_size = _choose_batch_size(split, run_config)
    num_images = min(config.export.bn_batches * run_config.data.batch_size, split.num_examples)
    num_batches = ceil_div(num_images, batch_size)
    with convert_out_of_memory(
        f"--mode=average with {batch_size} images per forward pass",
        lambda: "free some memory, or average on the CPU: CUDA_VISIBLE_DEVICES=-1",
    ):
        recompute_batch_norm(state.model, train_batches(split, batch_norm_config), num_batches)
    state.step.assign(max(model.step for model in models))
    batch_norm_results = {
        "bn_batches": ceil_div(num_images, run_config.data.batch_size),
        "bn_images": num_batches * batch_size,
    }
    results = _write_run(run_dir, models, state, run_config, batch_norm_results)
    output_files.write_json_output(config.evaluation.json, results)
    return results


def _require_compatible(models: Sequence[TrainedModel], config: Config) -> None:
    """Raises UsageError if the weights of the models cannot be averaged."""
    if len(models) < 2:
        raise UsageError(f"--ckpt={config.evaluation.ckpt}: name two or more, with commas")
    first = models[0]
    for model in models[1:]:
        net, first_net = model.record.config.net, first.record.config.net
        if differing := registry.list_differences(net, first_net):
            name, first_name = _describe_nets((net, first_net), differing)
            raise UsageError(
                f"--ckpt={model.step_dir}: contains a {name}, but {first.step_dir} a {first_name};"
                " different architectures cannot be averaged"
            )
        data, first_data = model.record.config.data, first.record.config.data
        if (data.mean, data.std) != (first_data.mean, first_data.std):
            raise UsageError(
                f"--ckpt={model.step_dir}: its pixels have another mean or std than those of"
                f" {first.step_dir} (--mode=stats in between?); such weights cannot be averaged"
            )


def _describe_nets(nets: Sequence[registry.NetConfig], differing: Sequence[str]) -> list[str]:
    """Returns the name of each net with its values of the fields in which they differ."""
    names = [user_code.display_name(net.model) for net in nets]
    if len({*names}) == 1:  # only the code of a user's net may differ
        names = [net.model for net in nets]
    fields = [name for name in differing if name != "model"]
    settings = [", ".join(f"{name}={getattr(net, name)}" for name in fields) for net in nets]
    pairs = zip(names, settings, strict=True)
    return [f"{name} with {text}" if text else name for name, text in pairs]


def _warn_of_independent_runs(models: Sequence[TrainedModel]) -> None:
    """Warns if a run shares no origin with the first one. Such weights do not fit together.

    Runs from one initialization end in different basins: Frankle et al. 2020, "Linear mode
    connectivity and the lottery ticket hypothesis".
    """
    origins = _find_origins(models[0].run_dir)
    for model in models[1:]:
        if origins.isdisjoint(_find_origins(model.run_dir)):
            logging.warning(
                "%s and %s are independent runs, whose weights do not average to a good net;"
                " --mode=eval --ckpt=%s,%s averages their predictions",
                *(models[0].run_dir, model.run_dir) * 2,
            )
            return


def _find_origins(run_dir: pathlib.Path) -> set[str]:
    """Returns a run and all runs that its weights come from, and the hashes of imported files."""
    origins: set[str] = set()
    pending = [str(run_dir)]
    while pending:
        path = pathlib.Path(os.path.realpath(pending.pop()))
        if path.name == "best" or checkpoint.parse_step(path) is not None:
            path = path.parent
        if str(path) in origins:
            continue
        origins.add(str(path))
        try:
            record = run_folder.read_record(path)
        except UsageError:  # the run was removed or moved
            continue
        if "sha256" in record.weights:
            origins.add(str(record.weights["sha256"]))
        pending += filter(None, [record.config.fine_tuning.init_from, *_read_members(path)])
    return origins


def _read_members(run_dir: pathlib.Path) -> list[str]:
    """Returns the step folders that a run is the average of; [] for other runs."""
    try:
        results = regular_files.read_json(run_dir / _RESULTS_FILE)
        return typed_json.convert(results["average_of"], list[str], "average_of")
    except (OSError, ValueError, LookupError, TypeError):
        return []


def mean_weights(
    models: Sequence[TrainedModel], strategy: "tf.distribute.Strategy"
) -> list[np.ndarray]:
    """Computes the mean of each variable over models of one architecture, summed in float64.

    Returns:
      float32 arrays in the order of `keras.Model.variables`.
    """
    sums = None
    for model in models:
        values = [v.numpy().astype(np.float64) for v in model.restore(strategy).variables]
        sums = values if sums is None else [a + b for a, b in zip(sums, values, strict=True)]
    return [(total / len(models)).astype(np.float32) for total in sums]


def train_batches(split: Source, config: Config) -> Iterator[tf.Tensor]:
    """Yields preprocessed training images from the start of the run, in batches for one device.

    Args:
      split: the train split.
      config: config of the run.

    Yields:
      float32 [B, S, S, 3], normalized.
    """
    batch_size = _choose_batch_size(split, config)
    preprocess = batch_augment.make_preprocess_fn(config.data, config.length.seed)
    for batch in pipeline.train_dataset(split, config.data, config.length.seed, 0, batch_size):
        yield preprocess(batch)[0]


def _final_image_size(model: TrainedModel, split: Source) -> int:
    """Returns the side of the images at the end of a model's training."""
    data = model.config.data
    stages = flag_parsers.parse_image_size_schedule(
        data.image_size_schedule, split.num_examples / data.batch_size
    )
    return [data.image_size, *(size for start, size in stages if start < model.step)][-1]


def _choose_batch_size(split: Source, config: Config) -> int:
    """Returns the size of a micro-batch, limited to what one device can process."""
    micro_batch_size = config.data.batch_size // config.optimization.accumulate
    batch_size = min(micro_batch_size, _MAX_BATCH_SIZE, split.num_examples)
    if batch_augment.is_mixing(config.data):  # mixes pairs
        batch_size = max(2, batch_size // 2 * 2)
    return batch_size


@dataclasses.dataclass
class _Moments:
    """Means over batches, float64 [C] each.

    Attributes:
      mean: of the batch means.
      mean_square: of the squared batch means.
      variance: of the batch variances.
    """

    mean: np.ndarray | float = 0.0
    mean_square: np.ndarray | float = 0.0
    variance: np.ndarray | float = 0.0


def recompute_batch_norm(
    model: keras.Model, batches: Iterable[tf.Tensor], num_batches: int
) -> None:
    """Sets the moving statistics of all batch norms to the moments over some training batches.

    The statistics of the averaged checkpoints do not fit, because the activations of the averaged
    net are new. The variance over all images is the mean of the batch variances plus the variance
    of the batch means.

    Args:
      model: its moving statistics are replaced.
      batches: float32 [B, S, S, 3], all of one size.
      num_batches: number of batches to use.
    """
    # Ours, and those of Keras in the nets of users.
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "moving_mean")]
    if not layers:
        return
    settings = [(layer.momentum, layer.trainable) for layer in layers]
    for layer in layers:
        layer.momentum = 0.0  # the moving statistics are then those of the last batch
        layer.trainable = True  # statistics of a frozen backbone would not be updated
    forward = tf.function(
        lambda images: model(images, training=True), reduce_retracing=True, autograph=False
    )
    moments = [_Moments() for _ in layers]
    bar = None
    for _, images in zip(range(num_batches), batches, strict=False):
        bar = bar or progress_bar.Progress("batch-norm statistics", num_batches * len(images))
        forward(images)
        for sums, layer in zip(moments, layers, strict=True):
            mean = layer.moving_mean.numpy().astype(np.float64)
            sums.mean += mean / num_batches
            sums.mean_square += mean**2 / num_batches
            sums.variance += layer.moving_variance.numpy().astype(np.float64) / num_batches
        bar.advance(len(images))
    bar.close()
    for total, layer, (momentum, trainable) in zip(moments, layers, settings, strict=True):
        variance = total.variance + total.mean_square - total.mean**2
        layer.moving_mean.assign(np.asarray(total.mean, np.float32))
        layer.moving_variance.assign(np.asarray(variance, np.float32))
        layer.momentum, layer.trainable = momentum, trainable


def _make_run_config(first: TrainedModel, config: Config) -> Config:
    """Returns the training config of the first model for the new run, without EMA.

    Evaluation uses the averaged weights (EMA) of each checkpoint. The new run has one set of
    weights.
    """
    names = {"run_name": config.run.run_name, "checkpoint_dir": config.run.checkpoint_dir}
    run_config = first.config.replace(**names, mode="train", ema=0.0, ckpt="", split="val")
    run_config = run_config.replace(**dict.fromkeys(select_flags(is_output_file=True), ""))
    return dataclasses.replace(run_config, typed=frozenset())


def _write_run(
    run_dir: pathlib.Path,
    models: Sequence[TrainedModel],
    state: TrainState,
    config: Config,
    batch_norm_results: dict[str, int],
) -> dict:
    """Writes the run folder: its record, the checkpoint and average.json. Returns the results."""
    first = models[0].record
    record = run_folder.Record(config, first.class_names, first.dataset)
    results: dict[str, Any] = {
        "average_of": [str(model.step_dir) for model in models],
        "step": int(state.step),
        **batch_norm_results,
        "run": str(run_dir),
    }
    with run_folder.create_or_roll_back(run_dir):
        run_folder.write_record(run_dir, record)
        try:
            step_dir = checkpoint.save(run_dir, int(state.step), state.variables())
        except checkpoint.NonFiniteError as error:
            raise DataError(
                f"--ckpt={','.join(results['average_of'])}: one of them is not finite: {error}"
            ) from None
        atomic_files.write_json(run_dir / _RESULTS_FILE, results)
    logging.info("averaged into %s", step_dir)
    rows = [(f"model {i}", name) for i, name in enumerate(results["average_of"], 1)]
    num_images = pluralize(results["bn_images"], "training image")
    rows.append(("batch norm", f"recomputed on {num_images}"))
    rows.append(("evaluate it", f"--mode=eval --ckpt={run_dir}"))
    console.print_summary(str(step_dir), rows)
    return results
