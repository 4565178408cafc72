"""Sets up devices and makes the tf.distribute strategy; no other module makes one."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.text import pluralize
from loops.config.config import Config
from loops.config.training import DistributionConfig
from loops.distribution import (
    cluster_resolver,
    iterator_workarounds,
    rendezvous,
    slurm,
    workers,
)
from loops.runtime import malloc


def make_strategy(config: DistributionConfig) -> tf.distribute.Strategy:
    """Sets up the devices and makes the strategy. Call it before any other TensorFlow operation.

    Raises:
      UsageError: TensorFlow has already started with other devices.
    """
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    if is_multi_worker(config):
        return _make_multi_worker_strategy(config)
    gpus = set_up_gpus()
    if config.cpu_devices > 1:
        _split_cpu(config.cpu_devices)
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    names = [device.name for device in devices]
    several = len(gpus) > 1 or (config.cpu_devices > 1 and not gpus)
    if config.strategy == "mirrored" or (config.strategy == "auto" and several):
        strategy = tf.distribute.MirroredStrategy(names)
    else:
        names = names[:1]
        strategy = make_one_device_strategy(names[0])
    if config.cpu_devices > 1 and strategy.num_replicas_in_sync != config.cpu_devices:
        logging.warning("--cpu_devices=%d: not all of them are used", config.cpu_devices)
    replicas = pluralize(strategy.num_replicas_in_sync, "replica")
    logging.debug("%s on %s", replicas, ", ".join(names))
    return strategy


def make_one_device_strategy(device: str) -> tf.distribute.Strategy:
    """Makes the strategy of one device, such as "CPU:0"."""
    return tf.distribute.OneDeviceStrategy(device)


def describe_devices(strategy: tf.distribute.Strategy) -> str:
    """Returns the number and the kind of all replicas, as in `8 GPUs (NVIDIA H200)`."""
    count, gpus = strategy.num_replicas_in_sync, tf.config.list_physical_devices("GPU")
    if "GPU" not in strategy.extended.worker_devices[0]:
        return pluralize(count, "CPU")
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "?")
    return f"{pluralize(count, 'GPU')} ({name})"


def hide_gpus() -> None:
    """Hides the GPUs in a mode that does not use them, because training may need their memory."""
    with contextlib.suppress(RuntimeError):  # TensorFlow has already initialized the GPUs
        tf.config.set_visible_devices([], "GPU")


def set_up_gpus() -> list[tf.config.PhysicalDevice]:
    """Configures GPU memory, or host memory if there is no GPU; returns the GPUs."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        malloc.keep_freed_memory()
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return gpus


def is_multi_worker(config: DistributionConfig) -> bool:
    """Returns whether `--strategy`, or TF_CONFIG if it is "auto", selects several workers.

    Raises:
      UsageError: TF_CONFIG is malformed.
    """
    if config.strategy != "auto":
        return config.strategy == "multi_worker"
    return cluster_resolver.count_tf_config_hosts() > 1


def is_chief(config: DistributionConfig) -> bool:
    """Returns whether this process is the only worker, or number 0 of several."""
    return not is_multi_worker(config) or cluster_resolver.find_cluster().number == 0


def to_single_process(config: DistributionConfig) -> DistributionConfig:
    """Returns the DistributionConfig for a mode that runs in one process.

    Raises:
      UsageError: the command line requests several workers.
    """
    if config.strategy == "multi_worker":
        raise UsageError(
            "--strategy=multi_worker: only training and plain evaluation support several workers;"
            " leave it out"
        )
    return dataclasses.replace(config, strategy="one") if is_multi_worker(config) else config


def require_run_name(config: Config) -> None:
    """Raises UsageError if several workers have no common run name."""
    if is_multi_worker(config.distribution) and not config.run.run_name:
        raise UsageError("--run_name is missing: several workers need the same run name")


def _make_multi_worker_strategy(config: DistributionConfig) -> tf.distribute.Strategy:
    """Makes the strategy over all workers that TF_CONFIG or Slurm names.

    Gradient traffic is neither encrypted nor authenticated, so use a private network.
    """
    if config.cpu_devices > 1:
        raise UsageError(
            f"--cpu_devices={config.cpu_devices}: is not supported with several workers; start more"
            " workers instead"
        )
    cluster = cluster_resolver.find_cluster()
    if cluster.source == "Slurm":
        slurm.restrict_visible_gpus()
    resolver = cluster_resolver.make_resolver(cluster)
    # With AUTO, TensorFlow would send the gradients of GPUs by gRPC.
    implementations = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=implementations.NCCL if set_up_gpus() else implementations.AUTO
    )
    try:
        strategy = rendezvous.call_while_waiting(
            cluster, lambda: tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
        )
    except (tf.errors.UnknownError, tf.errors.InvalidArgumentError) as error:
        raise UsageError(
            f"TF_CONFIG or Slurm: this worker cannot start ({error.message})"
        ) from None
    first, local, replicas = workers.get_replica_slice(strategy)
    logging.info("this worker has replicas %d to %d of %d", first, first + local - 1, replicas)
    return strategy


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * count
    if len(tf.config.get_logical_device_configuration(cpu) or ()) == count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, devices)
    except RuntimeError:
        raise UsageError(
            f"--cpu_devices={count}: TensorFlow already runs with other devices; use a new process"
        ) from None


def per_replica_batch_size(batch_size: int, strategy: tf.distribute.Strategy) -> int:
    """Returns the images per step of one replica; see `divide_batch`."""
    return divide_batch(batch_size, strategy.num_replicas_in_sync)


def divide_batch(batch_size: int, replicas: int) -> int:
    """Returns the images per step of each of several replicas.

    Raises:
      UsageError: the batch size is not divisible by the number of replicas.
    """
    if batch_size % replicas:
        near = max(replicas, round(batch_size / replicas) * replicas)
        raise UsageError(
            f"--batch_size={batch_size} is not divisible by the {replicas} replicas; try {near}"
        )
    return batch_size // replicas


def require_equal_micro_batches(
    batch_size: int, strategy: tf.distribute.Strategy, parts: int
) -> None:
    """Raises UsageError if a replica's images do not divide into `parts` equal micro-batches."""
    per_replica = per_replica_batch_size(batch_size, strategy)
    if per_replica % parts:
        replicas = pluralize(strategy.num_replicas_in_sync, "replica")
        raise UsageError(
            f"--accumulate={parts}: does not divide the {per_replica} images of"
            f" --batch_size={batch_size} on each of {replicas}"
        )


def distribute(
    strategy: tf.distribute.Strategy, make_dataset: Callable[[], tf.data.Dataset]
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Distributes the batches of a dataset to the replicas in turn.

    Args:
      strategy: the strategy with the replicas.
      make_dataset: returns a dataset of batches of one replica's size.

    Returns:
      the distributed dataset, or the dataset itself for a single CPU replica.
    """
    if strategy.num_replicas_in_sync == 1 and not tf.config.list_logical_devices("GPU"):
        # There is nothing to distribute or to copy.
        return make_dataset()
    iterator_workarounds.disable_device_autotuning()
    options = None
    if strategy.num_replicas_in_sync > 1:
        # With the default of one buffered batch, replicas wait for each other's reader.
        options = tf.distribute.InputOptions(experimental_per_replica_buffer_size=4)
    return strategy.distribute_datasets_from_function(lambda _: make_dataset(), options)


def moving_statistics(model: keras.Model) -> list[keras.Variable]:
    """Returns the batch-norm moving statistics of trainable layers."""
    frozen = {id(v) for layer in model.layers if not layer.trainable for v in layer.variables}
    return [
        v
        for v in model.non_trainable_variables
        if tf.as_dtype(v.dtype).is_floating and id(v) not in frozen
    ]


def make_batch_norm_averager(
    strategy: tf.distribute.Strategy, model: keras.Model, averages: Mapping[str, tf.Variable]
) -> Callable[[], None]:
    """Makes the function that averages moving statistics over all replicas.

    Each replica updates its statistics from its own batches, and a checkpoint contains those of
    the first replica. Call the function before each evaluation and each save.

    Args:
      strategy: the strategy of the model.
      model: the model whose statistics are averaged.
      averages: the EMA variables by path, see `Ema`, or empty. Those of moving statistics differ
        between replicas, too.
    """
    statistics = moving_statistics(model)
    if strategy.num_replicas_in_sync == 1 or not statistics:
        return lambda: None

    variables = [*statistics, *(averages[v.path] for v in statistics if averages)]

    def average() -> None:
        context = tf.distribute.get_replica_context()
        # Collectives need tensors with a known device. A copy has one; a variable read does not.
        values = [tf.identity(tf.convert_to_tensor(v)) for v in variables]
        means = context.all_reduce(tf.distribute.ReduceOp.MEAN, values)
        for variable, mean in zip(variables, means, strict=True):
            variable.assign(mean)

    return tf.function(lambda: strategy.run(average), autograph=False)
