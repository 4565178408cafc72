"""Devices and strategies; the only place that makes one."""

import contextlib
import dataclasses
import signal

import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.text import pluralize
from loops.distribution import cluster_resolver, iterator_workarounds, workers
from loops.runtime import malloc


def make_strategy(config):
    """Sets the devices up and makes the strategy. Call before any other TensorFlow operation.

    Args:
      config: DistributionConfig.

    Returns:
      tf.distribute.Strategy.

    Raises:
      UsageError: devices that TensorFlow has started with already.
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
    mirrored = config.strategy == "mirrored" or (config.strategy == "auto" and len(gpus) > 1)
    if mirrored:
        strategy = tf.distribute.MirroredStrategy(names)
    else:
        names = names[:1]
        strategy = tf.distribute.OneDeviceStrategy(names[0])
    replicas = pluralize(strategy.num_replicas_in_sync, "replica")
    logging.info("%s on %s", replicas, ", ".join(names))
    return strategy


def hide_gpus():
    """Hides them from a mode that computes nothing there: a training may need all their memory."""
    with contextlib.suppress(RuntimeError):  # TensorFlow has begun with them in this process
        tf.config.set_visible_devices([], "GPU")


def set_up_gpus():
    """The GPUs that are here; memory, theirs or the host's, is set up."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        malloc.keep_freed_memory()
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return gpus


def is_multi_worker(config):
    """Whether a DistributionConfig, or TF_CONFIG where it leaves that open, asks for workers.

    Raises:
      UsageError: TF_CONFIG cannot be read.
    """
    if config.strategy != "auto":
        return config.strategy == "multi_worker"
    return cluster_resolver.count_tf_config_hosts() > 1


def to_single_process(config):
    """The DistributionConfig of a mode that one process does by itself, whoever else there is.

    Raises:
      UsageError: several workers are asked for in so many words.
    """
    if config.strategy == "multi_worker":
        raise UsageError(
            "--strategy=multi_worker: only training and plain evaluation work with several; leave"
            " it out"
        )
    return dataclasses.replace(config, strategy="one") if is_multi_worker(config) else config


def require_run_name(config):
    """Raises UsageError where several workers would each make up a name of the run."""
    if is_multi_worker(config.distribution) and not config.run.run_name:
        raise UsageError("--run_name is missing: several workers must know the run by one name")


def _make_multi_worker_strategy(config):
    """Makes the strategy over all workers, before any other TensorFlow operation.

    Who they are is told by TF_CONFIG or by Slurm. Between them gradients travel neither encrypted
    nor authenticated: for private networks only.
    """
    if config.cpu_devices > 1:
        raise UsageError(
            f"--cpu_devices={config.cpu_devices}: not with several workers; start more of them"
        )
    resolver = cluster_resolver.make_resolver()
    # Left to choose, TensorFlow sends the gradients of GPUs round by gRPC.
    way = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=way.NCCL if set_up_gpus() else way.AUTO
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    except (tf.errors.UnknownError, tf.errors.InvalidArgumentError) as error:
        raise UsageError(
            f"TF_CONFIG or Slurm: this worker cannot start ({error.message})"
        ) from None
    # TensorFlow's service for workers has taken SIGTERM for itself: back to whoever had it.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    first, local, replicas = workers.get_replica_slice(strategy)
    logging.info("replicas %d to %d of %d here", first, first + local - 1, replicas)
    return strategy


def _split_cpu(count):
    cpu = tf.config.list_physical_devices("CPU")[0]
    wanted = [tf.config.LogicalDeviceConfiguration()] * count
    if len(tf.config.get_logical_device_configuration(cpu) or ()) == count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, wanted)
    except RuntimeError:
        raise UsageError(
            f"--cpu_devices={count}: TensorFlow already runs with other devices; use a new process"
        ) from None


def per_replica_batch_size(batch_size, strategy):
    """Images of one replica in one step; see `divide_batch`."""
    return divide_batch(batch_size, strategy.num_replicas_in_sync)


def divide_batch(batch_size, replicas):
    """Images of one of so many replicas.

    Raises:
      UsageError: the batch cannot be shared evenly.
    """
    if batch_size % replicas:
        near = max(replicas, round(batch_size / replicas) * replicas)
        raise UsageError(
            f"--batch_size={batch_size} is not divisible by the {replicas} replicas; try {near}"
        )
    return batch_size // replicas


def require_equal_micro_batches(batch_size, strategy, parts):
    """Raises UsageError where a replica's images cannot be cut into equal micro-batches."""
    of_replica = per_replica_batch_size(batch_size, strategy)
    if of_replica % parts:
        replicas = pluralize(strategy.num_replicas_in_sync, "replica")
        raise UsageError(
            f"--accumulate={parts}: does not divide the {of_replica} images of"
            f" --batch_size={batch_size} on each of {replicas}"
        )


def distribute(strategy, make_dataset):
    """Deals the batches of a dataset to the replicas in turn.

    Args:
      strategy: tf.distribute.Strategy.
      make_dataset: function without arguments that returns batches of one replica's size.

    Returns:
      tf.distribute.DistributedDataset, or the dataset itself where one CPU replica takes it all.
    """
    if strategy.num_replicas_in_sync == 1 and not tf.config.list_logical_devices("GPU"):
        # Nothing is to be dealt or copied.
        return make_dataset()
    iterator_workarounds.disable_device_autotuning()
    options = None
    if strategy.num_replicas_in_sync > 1:
        # With the one batch that is the default, replicas wait for each other's reader.
        options = tf.distribute.InputOptions(experimental_per_replica_buffer_size=4)
    return strategy.distribute_datasets_from_function(lambda _: make_dataset(), options)


def moving_statistics(model):
    """The float variables that the layers which train move without a gradient."""
    frozen = {id(v) for layer in model.layers if not layer.trainable for v in layer.variables}
    return [
        v
        for v in model.non_trainable_variables
        if tf.as_dtype(v.dtype).is_floating and id(v) not in frozen
    ]


def make_batch_norm_averager(strategy, model, averages):
    """Makes the function that gives all replicas the mean of their moving statistics.

    Every replica moves its own ones towards its own batches, and a checkpoint would hold the
    first one's: to be called before an evaluation or a save.

    Args:
      strategy: tf.distribute.Strategy of the model.
      model: keras.Model.
      averages: the moving averages of its variables by path, see `Ema`; those of statistics differ
        among replicas as these do.

    Returns:
      function without arguments or result.
    """
    statistics = moving_statistics(model)
    if strategy.num_replicas_in_sync == 1 or not statistics:
        return lambda: None

    variables = [*statistics, *(averages[v.path] for v in statistics if averages)]

    def average():
        context = tf.distribute.get_replica_context()
        # A copy has a device of its own, which collectives ask for; a variable read does not.
        values = [tf.identity(tf.convert_to_tensor(v)) for v in variables]
        means = context.all_reduce(tf.distribute.ReduceOp.MEAN, values)
        for variable, mean in zip(variables, means, strict=True):
            variable.assign(mean)

    return tf.function(lambda: strategy.run(average), autograph=False)
