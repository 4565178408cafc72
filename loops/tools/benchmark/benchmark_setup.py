"""What the benchmarks of a net start from: config, strategy, training state, batch size."""

import tensorflow as tf
from absl import logging

from input_pipeline import datasets
from input_pipeline.augmentation import batch_augment
from input_pipeline.config import DataConfig
from input_pipeline.errors import UsageError
from input_pipeline.sources import shapes, source
from loops.config import dataset_flags, resolve
from loops.config.config import Config
from loops.distribution import strategies
from loops.optimization import mixed_precision
from loops.tools.benchmark import matmul_peak
from loops.train_state import TrainState
from nets.macs import count_multiply_adds

# Floating-point operations per multiply-add of the forward pass. The gradients by inputs and by
# kernels take as many each.
FORWARD_FLOPS_PER_MAC, TRAINING_FLOPS_PER_MAC = 2, 6
ENDLESS = 100_000  # steps
_NEVER = "1000000000"  # steps between two evaluations or saves
# By default the steps of a benchmark, warm-up included, take at most this long.
_MAX_SECONDS = 75.0
_NUM_STEPS = 23
# The share of the matrix-product rate that a net reaches, approximately.
_MATMUL_EFFICIENCY = 0.75
# Enough for all cores, few enough for memory.
_MAX_IMAGES_PER_REPLICA = {"CPU": 32, "GPU": 128}


def resolve_synthetic(config: Config) -> Config:
    """Resolves a config for random images: of the size of ILSVRC 2012 if no data set is named."""
    config = dataset_flags.resolve_dataset(config)
    if not config.typed & {"dataset", "data_dir"}:
        config = config.replace(dataset="ilsvrc2012")
    return resolve_benchmark(config)


def resolve_benchmark(config: Config) -> Config:
    """Resolves a config that never evaluates or saves, and has one image size."""
    config = resolve.apply_recipe(config)
    return resolve.resolve(
        config.replace(
            image_size_schedule="",
            save_every=_NEVER,
            eval_every=_NEVER,
            epochs=None,
            steps=ENDLESS,
        )
    )


def make_strategy(config: Config) -> tf.distribute.Strategy:
    """Makes the strategy of a benchmark.

    Raises:
      UsageError: there are several workers.
    """
    if strategies.is_multi_worker(config.distribution):
        raise UsageError(
            f"--strategy={config.distribution.strategy}: --mode=benchmark measures one process"
        )
    return strategies.make_strategy(config.distribution)


def count_classes(data: DataConfig) -> int:
    """Returns the number of classes of a data set. It lists images only if it has to."""
    if data.dataset == "shapes":
        return len(shapes.CLASSES)
    table = datasets.load_class_table(data.dataset)
    return len(table) or len(source.open_split(data, "train").class_names)


def make_state(
    strategy: tf.distribute.Strategy, config: Config, num_classes: int
) -> tuple[TrainState, Config]:
    """Makes the TrainState; also returns the config, with a batch size if none is typed."""
    replicas, accumulate = strategy.num_replicas_in_sync, config.optimization.accumulate
    is_typed = "batch_size" in config.typed
    if is_typed:
        strategies.require_equal_micro_batches(config.data.batch_size, strategy, accumulate)
    state = TrainState(strategy, config, num_classes)
    if is_typed:
        return state, config
    pairs = 2 if batch_augment.is_mixing(config.data) else 1
    dtype = mixed_precision.resolve_compute_dtype(config.precision)
    batch_size = choose_batch_size(
        config.data.batch_size,
        TRAINING_FLOPS_PER_MAC * count_multiply_adds(state.model, config.data.image_size),
        matmul_peak.measure(dtype, sides=(1024,))["operations_per_second"],
        replicas * accumulate * pairs,
        replicas,
    )
    return state, config.replace(batch_size=batch_size)


def choose_batch_size(
    default: int,
    operations_per_image: float,
    operations_per_second: float,
    multiple: int,
    replicas: int,
) -> int:
    """Chooses the batch size if `--batch_size` is not typed.

    Args:
      default: of the data set.
      operations_per_image: of a training step; a multiply-add counts as two.
      operations_per_second: of matrix products on one device.
      multiple: the batch size must be a multiple of this.
      replicas: that share the batch.

    Returns:
      the default, halved until the images of a replica fit and the benchmark takes about a minute.
    """
    rate = _MATMUL_EFFICIENCY * operations_per_second * matmul_peak.count_physical_devices(replicas)
    device = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    limit = min(
        _MAX_IMAGES_PER_REPLICA[device] * replicas,
        _MAX_SECONDS / _NUM_STEPS * rate / operations_per_image,
    )
    batch_size = default
    while batch_size > max(limit, multiple):
        batch_size //= 2
    batch_size = max(multiple, batch_size // multiple * multiple)
    logging.info("--batch_size=%d, so that the benchmark takes about a minute", batch_size)
    return batch_size
