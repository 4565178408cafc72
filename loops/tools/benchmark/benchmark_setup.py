"""What the benchmarks of a net start from: their config, strategy, and state with its batch."""

import dataclasses

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import datasets
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import UsageError
from input_pipeline.sources import shapes, source
from loops.config import dataset_flags, recipes, validation
from loops.config.config import replace
from loops.distribution import strategies, workers
from loops.optimization import mixed_precision
from loops.tools.benchmark import matmul_peak
from loops.train_state import TrainState
from nets.macs import count_multiply_adds

# Operations of a forward pass in multiply-adds; gradients by inputs and by kernels take as many.
FORWARD_FLOPS_PER_MAC, TRAINING_FLOPS_PER_MAC = 2, 6
_NEVER = "1000000000"  # steps between two evaluations or saves
ENDLESS = 100_000


def resolve_synthetic(config, given):
    """The config for made-up images: those of ILSVRC 2012 unless a data set is named."""
    data = dataset_flags.resolve_dataset(config.data, given)
    if not given & {"dataset", "data_dir"}:
        data = dataclasses.replace(data, dataset="ilsvrc2012")
    return resolve(dataclasses.replace(config, data=data), given)


def resolve(config, given):
    """Takes what a recipe says, without its schedule of sizes, and never saves or evaluates."""
    config = recipes.apply(config, given)
    changes = {"image_size_schedule": "", "save_every": _NEVER, "eval_every": _NEVER}
    changes |= {"epochs": None, "steps": ENDLESS}
    return validation.resolve(replace(config, changes))


def make_strategy(config):
    """The strategy of a benchmark, which is one process; UsageError where there are more."""
    strategy = strategies.make_strategy(config.distribution)
    if workers.Workers(strategy).num_workers > 1:
        raise UsageError(
            f"--strategy={config.distribution.strategy}: --mode=benchmark measures one process"
        )
    return strategy


def count_classes(data):
    """How many classes a data set has; images are looked for only where nothing else tells."""
    if data.dataset == "shapes":
        return len(shapes.CLASSES)
    table = datasets.load_class_table(data.dataset)
    return len(table) or len(source.open_split(data, "train").class_names)


def make_state(strategy, config, given, num_classes):
    """The TrainState, and the config with a batch where none is typed."""
    replicas, parts = strategy.num_replicas_in_sync, config.optimization.accumulate
    typed = "batch_size" in given
    if typed:
        strategies.require_equal_micro_batches(config.data.batch_size, strategy, parts)
    state = TrainState(strategy, config, num_classes)
    if typed:
        return state, config
    pairs = 2 if batch_augment.is_mixing(config.data) else 1
    dtype = mixed_precision.resolve_compute_dtype(config.precision)
    batch_size = choose_batch_size(
        config.data.batch_size,
        TRAINING_FLOPS_PER_MAC * count_multiply_adds(state.model, config.data.image_size),
        matmul_peak.measure(dtype, sides=(1024,))["operations_per_second"],
        replicas * parts * pairs,
        replicas,
    )
    return state, replace(config, {"batch_size": batch_size})


# A benchmark's steps, warm-up included, should not take longer than this by default.
_MAX_SECONDS = 75.0


_NUM_STEPS = 23


# What a net reaches of the rate of plain matrix products, about.
_MATMUL_EFFICIENCY = 0.75


# Images of one replica: enough for all cores, few enough for memory.
_MAX_IMAGES_PER_REPLICA = {"CPU": 32, "GPU": 128}


def choose_batch_size(wanted, operations_per_image, operations_per_second, parts, replicas):
    """The batch for `--benchmark=step` and `train` where `--batch_size` is not typed.

    Args:
      wanted: the data set's own.
      operations_per_image: of a training step, a multiply-add counting as two.
      operations_per_second: of matrix products on one device.
      parts: the batch must be a multiple of this.
      replicas: that share it.

    Returns:
      int: the data set's own batch, halved until a replica has room for its share and until the
      steps of a benchmark take about a minute at most.
    """
    rate = _MATMUL_EFFICIENCY * operations_per_second * matmul_peak.count_physical_devices(replicas)
    room = (
        _MAX_IMAGES_PER_REPLICA["GPU" if tf.config.list_logical_devices("GPU") else "CPU"]
        * replicas
    )
    most = min(room, _MAX_SECONDS / _NUM_STEPS * rate / operations_per_image)
    batch_size = wanted
    while batch_size > max(most, parts):
        batch_size //= 2
    batch_size = max(parts, batch_size // parts * parts)
    logging.info("--batch_size=%d, so that the benchmark takes about a minute", batch_size)
    return batch_size


def make_random_images(data, num_classes, per_replica):
    """Endless batches of random images, in the form that the input pipeline gives them.

    Args:
      data: DataConfig with its sizes resolved.
      num_classes: labels are below.
      per_replica: images of each batch.

    Returns:
      tf.data.Dataset of one batch that is held in memory.
    """
    rng = np.random.default_rng(0)
    size = data.image_size
    batch = {
        "image": rng.integers(0, 256, (per_replica, size, size, 3), np.uint8),
        "label": rng.integers(0, num_classes, per_replica, np.int32),
        "sample": np.arange(per_replica, dtype=np.int64),
        "replaced": np.zeros(per_replica, np.int64),
    }
    return tf.data.Dataset.from_tensors(batch).repeat()


def make_random_views(data, crops, per_replica):
    """Endless batches of the views of random images, uint8 [per_replica, V, S, S, 3]."""
    shape = (per_replica, crops, data.image_size, data.image_size, 3)
    batch = {"views": np.random.default_rng(0).integers(0, 256, shape, np.uint8)}
    return tf.data.Dataset.from_tensors(batch).repeat()
