"""tf.data service: other machines load the images, and the batches are the same.

Worker w of W loads the batches w, w + W, w + 2 W, ..., and the trainer takes from each worker in
turn, so the order is that of the arithmetic whatever the workers' speed. (The service's own ways
of sharing do not keep it: its coordinated reads leave out a worker that is late.)
"""

import contextlib
import dataclasses
import socket
import time

import grpc
import tensorflow as tf
from absl import logging

from input_pipeline import pipeline, threads
from input_pipeline.errors import UsageError
from input_pipeline.sample_order import ReplicaSlice
from input_pipeline.service import worker_watchdog

_service = tf.data.experimental.service
# What a worker replaces by its number and the number of workers.
_SHARD_HINT = tf.data.experimental.SHARD_HINT
# Batches that each worker loads at the same time.
_AHEAD = 2
_CONNECT_TIMEOUT_SECONDS = 10
# So long a worker may take to report to the dispatcher: TensorFlow loads in some seconds.
_REGISTRATION_TIMEOUT_SECONDS = 60.0
_DEFAULT_THREADS = 8


def parse_address(text, flag="--data_service"):
    """Host and port of HOST:PORT.

    Raises:
      UsageError: it is of another form.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{flag}={text}: give HOST:PORT, as in 10.0.0.5:5050")
    return host, int(port)


def train_dataset(
    source, config, seed, first_sample, batch_size, replica_slice: ReplicaSlice | None = None
):
    """As `pipeline.train_dataset`, loaded by the workers of `config.data_service`."""

    def batch_at(number):
        if replica_slice is not None:  # from the number of a local batch to the global one
            first_replica, local_replicas, total_replicas = replica_slice
            step, replica = number // local_replicas, first_replica + number % local_replicas
            number = step * total_replicas + replica
        first = first_sample + number * batch_size
        # Else the images of some batches more would be loaded, and thrown away.
        one = pipeline.train_dataset(source, alone, seed, first, batch_size, batches=1)
        return one.get_single_element()

    # The worker's own number of cores is not known here.
    alone = dataclasses.replace(config, reader_threads=config.reader_threads or _DEFAULT_THREADS)
    return load_batches(config.data_service, batch_at)


def load_batches(dispatcher, batch_at):
    """Endless batches, in order, loaded by the workers of a service.

    Args:
      dispatcher: HOST:PORT.
      batch_at: function from an int64 scalar tensor, the number of a batch, to the batch: a dict
        of tensors. The workers run it, and read the images at the paths that they have here.

    Returns:
      tf.data.Dataset of such batches.

    Raises:
      UsageError: nobody answers, or a worker has not been started.
    """
    last = time.monotonic() + _REGISTRATION_TIMEOUT_SECONDS
    workers = count_workers(dispatcher, last)
    # The batches of one that reports later would never come.
    _wait_for_workers(dispatcher, workers, last)
    logging.info("%d workers of the data service at %s load the images", workers, dispatcher)

    def of_worker(worker):
        # To every other worker this is an empty data set. One worker's batches keep their order.
        numbers = tf.data.Dataset.counter().shard(_SHARD_HINT, _SHARD_HINT)
        mine = numbers.take_while(lambda number: number % workers == worker)
        loaded = mine.map(
            lambda number: (number, batch_at(number)), num_parallel_calls=_AHEAD, deterministic=True
        )
        return loaded.prefetch(_AHEAD).apply(_distribute(dispatcher))

    turns = tf.data.Dataset.range(workers).repeat()
    sources = [of_worker(worker) for worker in range(workers)]
    arrived = tf.data.Dataset.choose_from_datasets(sources, turns, stop_on_empty_dataset=True)
    watched = worker_watchdog.watch(arrived, dispatcher)
    return (
        watched.enumerate()
        .map(_require_in_order)
        .prefetch(_AHEAD)
        .with_options(threads.make_dataset_options())
    )


def _require_in_order(number, arrived):
    """The batch, once it is the one whose turn it is: a worker that was restarted begins anew."""
    found, batch = arrived
    facts = [worker_watchdog.RESTARTED, found, number]
    with tf.control_dependencies([tf.debugging.Assert(found == number, facts)]):
        return tf.nest.map_structure(tf.identity, batch)


def count_workers(dispatcher, last=0.0):
    """Asks a dispatcher how many workers share the work.

    Args:
      dispatcher: HOST:PORT.
      last: until this time of the monotonic clock the first worker is waited for.

    Raises:
      UsageError: nobody answers, or no worker has reported.
    """
    # Two of the numbers that a worker gets are as far apart as there are workers.
    numbers = (
        tf.data.Dataset.counter()
        .shard(_SHARD_HINT, _SHARD_HINT)
        .batch(2)
        .map(lambda n: n[1] - n[0])
    )
    try:
        socket.create_connection(parse_address(dispatcher), _CONNECT_TIMEOUT_SECONDS).close()
        _wait_for_workers(dispatcher, 1, last)
        return int(next(iter(numbers.take(1).apply(_distribute(dispatcher)))))
    except (OSError, tf.errors.OpError) as error:
        said = error.message if isinstance(error, tf.errors.OpError) else error
        why = " ".join(str(said).split())[:200]
        raise UsageError(f"--data_service={dispatcher}: nobody answers there ({why})") from None


def _wait_for_workers(dispatcher, wanted, last):
    """Waits until so many workers have reported to the dispatcher.

    Raises:
      UsageError: they have not come by the time `last` of the monotonic clock.
    """
    reported = None
    while True:
        before, reported = reported, 0
        with contextlib.suppress(grpc.RpcError):  # busy, or gone
            reported = len(worker_watchdog.list_workers(dispatcher))
        if reported >= wanted:
            return
        said, rest = f"{reported} of {wanted} workers have", "the others"
        if not reported:
            said, rest = "no worker has", "them"
        if time.monotonic() > last:
            raise UsageError(
                f"--data_service={dispatcher}: {said} reported there; start {rest}, each with its"
                " own address in --workers"
            )
        if reported != before:
            logging.info("data service at %s: %s reported yet", dispatcher, said)
        time.sleep(0.5)


def _distribute(dispatcher):
    return _service.distribute(_service.ShardingPolicy.HINT, f"grpc://{dispatcher}")


def start_server(role, dispatcher, workers):
    """Starts a process's part of the service.

    Args:
      role: "dispatcher" or "worker".
      dispatcher: HOST:PORT of the dispatcher.
      workers: HOST:PORT of every worker, or the worker's own; separated by commas.

    Returns:
      the server, which works until it goes out of scope.

    Raises:
      UsageError: an address of another form, or one that is in use.
    """
    port = parse_address(dispatcher)[1]
    names = [name.strip() for name in workers.split(",") if name.strip()]
    ports = [parse_address(name, "--workers")[1] for name in names]
    try:
        if role == "dispatcher":
            if not names:
                raise UsageError("--workers is missing: HOST:PORT of every worker")
            config = _service.DispatcherConfig(port=port, worker_addresses=names)
            return _service.DispatchServer(config)
        if len(names) != 1:
            raise UsageError(f"--workers={workers}: a worker takes its own HOST:PORT")
        config = _service.WorkerConfig(
            dispatcher_address=dispatcher, port=ports[0], worker_address=names[0]
        )
        return _service.WorkerServer(config)
    except (tf.errors.OpError, RuntimeError) as error:
        raise UsageError(f"--role={role}: {' '.join(str(error).split())[:200]}") from None
