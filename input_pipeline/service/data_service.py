"""Loads images on other machines with tf.data service, in the same batches as without it.

Worker w of W loads the batches w, w + W, w + 2 W, ... The trainer takes one batch from each worker
in turn, so the order of the batches does not depend on the speed of the workers. The coordinated
reads of tf.data service do not keep the order: they skip a worker that is late.
"""

import contextlib
import dataclasses
import ipaddress
import re
import socket
import time
from collections.abc import Callable
from typing import Any

import grpc
import tensorflow as tf
from absl import logging

from input_pipeline import pipeline, threads
from input_pipeline.config import DataConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sample_order import ReplicaSlice
from input_pipeline.service import worker_watchdog
from input_pipeline.sources.source import Source

_service = tf.data.experimental.service
# A worker replaces it with its number and with the number of workers.
_SHARD_HINT = tf.data.experimental.SHARD_HINT
# Batches that each worker loads in parallel and prefetches.
_AHEAD = 2
_CONNECT_TIMEOUT_SECONDS = 10
# How long a worker may take to register at the dispatcher. TensorFlow needs seconds to load.
_REGISTRATION_TIMEOUT_SECONDS = 60.0
_DEFAULT_THREADS = 8
_ALL_ADDRESSES = ("0.0.0.0", "::")
_ADDRESS = re.compile(
    r"(?:(?P<host>[\w.-]+)|\[(?P<ipv6>[\da-f:.]+(?:%\w+)?)\]):(?P<port>\d{1,5})",
    re.ASCII | re.IGNORECASE,
)


def parse_address(text: str, flag: str = "--data_service") -> tuple[str, int]:
    """Parses HOST:PORT.

    Args:
      text: the address.
      flag: the flag that names it, for error messages.

    Raises:
      UsageError: the text is not HOST:PORT.
    """
    match = _ADDRESS.fullmatch(text)
    if not match or not 0 < int(match["port"]) < 65536:
        raise UsageError(f"{flag}={text}: give HOST:PORT, for example 10.0.0.5:5050")
    return match["host"] or match["ipv6"], int(match["port"])


def is_loopback(host: str) -> bool:
    """Returns whether only programs on this machine can connect to a host.

    The name of a machine may resolve to a loopback address on that machine itself, and to another
    one elsewhere, so it does not count.
    """
    own_name, name = (text.lower().partition(".")[0] for text in (socket.gethostname(), host))
    if name == own_name != "localhost":
        return False
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    addresses = [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found]
    return all((getattr(ip, "ipv4_mapped", None) or ip).is_loopback for ip in addresses)


def train_dataset(
    source: Source,
    config: DataConfig,
    seed: int,
    first_sample: int,
    batch_size: int,
    replica_slice: ReplicaSlice | None = None,
) -> tf.data.Dataset:
    """Returns the data set of `pipeline.train_dataset`, loaded by the data service's workers.

    Raises:
      UsageError: the dispatcher does not answer, or a worker has not registered.
      DataError: a worker cannot read the first image.
    """

    def batch_at(number):
        if replica_slice is not None:  # from the number of a local batch to the global one
            first_replica, local_replicas, total_replicas = replica_slice
            step, replica = number // local_replicas, first_replica + number % local_replicas
            number = step * total_replicas + replica
        first = first_sample + number * batch_size
        # Without a limit, the worker would load further batches and discard them.
        batch = pipeline.train_dataset(source, worker_config, seed, first, batch_size, batches=1)
        return batch.get_single_element()

    # The trainer does not know how many cores a worker has.
    worker_config = dataclasses.replace(
        config, reader_threads=config.reader_threads or _DEFAULT_THREADS
    )
    _require_readable(source, config.data_service)
    return load_batches(config.data_service, batch_at)


def load_batches(
    dispatcher: str, batch_at: Callable[[tf.Tensor], dict[str, tf.Tensor]]
) -> tf.data.Dataset:
    """Returns an infinite data set of batches, in order, that the workers load.

    Args:
      dispatcher: HOST:PORT of the dispatcher.
      batch_at: function from the number of a batch, an int64 scalar tensor, to the batch. The
        workers run it, so they need the images at the same paths as the trainer.

    Raises:
      UsageError: the dispatcher does not answer, or a worker has not registered.
    """
    deadline = time.monotonic() + _REGISTRATION_TIMEOUT_SECONDS
    num_workers = count_workers(dispatcher, deadline)
    # TensorFlow would never request batches from a worker that registers later.
    _wait_for_workers(dispatcher, num_workers, deadline)
    logging.info("data service at %s: %d workers load the images", dispatcher, num_workers)

    def load_on_worker(worker):
        # Every other worker gets an empty data set. The batches of this worker stay in order.
        numbers = tf.data.Dataset.counter().shard(_SHARD_HINT, _SHARD_HINT)
        numbers = numbers.take_while(lambda number: number % num_workers == worker)
        batches = numbers.map(
            lambda number: (number, batch_at(number)), num_parallel_calls=_AHEAD, deterministic=True
        )
        return batches.prefetch(_AHEAD).apply(_distribute(dispatcher))

    turns = tf.data.Dataset.range(num_workers).repeat()
    per_worker = [load_on_worker(worker) for worker in range(num_workers)]
    numbered_batches = tf.data.Dataset.choose_from_datasets(
        per_worker, turns, stop_on_empty_dataset=True
    )
    watched = worker_watchdog.watch(numbered_batches, dispatcher)
    return (
        watched.enumerate()
        .map(_require_in_order)
        .prefetch(_AHEAD)
        .with_options(threads.make_dataset_options())
    )


def _require_readable(source: Source, dispatcher: str) -> None:
    """Raises DataError if a worker cannot read the first image, for example without its disk."""
    deadline = time.monotonic() + _REGISTRATION_TIMEOUT_SECONDS
    num_workers = count_workers(dispatcher, deadline)
    _wait_for_workers(dispatcher, num_workers, deadline)
    own_number = tf.data.Dataset.counter().shard(_SHARD_HINT, _SHARD_HINT).take(1)
    first = tf.constant(0, tf.int64)
    readable = own_number.map(lambda n: (n, tf.strings.length(source.read(first)[0]) >= 0))
    answers = readable.ignore_errors().concatenate(own_number.map(lambda n: (n, False))).take(1)
    for number, is_readable in answers.apply(_distribute(dispatcher)).as_numpy_iterator():
        if not is_readable:
            worker = (
                f"worker {number + 1} of {num_workers}, in the order of the dispatcher's --workers,"
            )
            if num_workers == 1:
                worker = f"worker {worker_watchdog.list_workers(dispatcher)[0]}"
            raise DataError(
                f"--data_service={dispatcher}: {worker} cannot read {source.describe(0)}; the"
                " images must be at the same paths on every worker"
            )


def _require_in_order(expected_number: tf.Tensor, numbered_batch: tuple[tf.Tensor, Any]) -> Any:
    """Returns the batch if its number is the expected one.

    A restarted worker starts over with its first batch, which fails here.
    """
    number, batch = numbered_batch
    message = [worker_watchdog.RESTARTED, number, expected_number]
    with tf.control_dependencies([tf.debugging.Assert(number == expected_number, message)]):
        return tf.nest.map_structure(tf.identity, batch)


def count_workers(dispatcher: str, deadline: float = 0.0) -> int:
    """Asks a dispatcher how many workers share the work.

    Args:
      dispatcher: HOST:PORT of the dispatcher.
      deadline: time of the monotonic clock until which to wait for the first worker.

    Raises:
      UsageError: the dispatcher does not answer, or no worker has registered.
    """
    # A worker gets every W-th number, so two of its consecutive numbers differ by W.
    differences = (
        tf.data.Dataset.counter()
        .shard(_SHARD_HINT, _SHARD_HINT)
        .batch(2)
        .map(lambda n: n[1] - n[0])
    )
    try:
        socket.create_connection(parse_address(dispatcher), _CONNECT_TIMEOUT_SECONDS).close()
        _wait_for_workers(dispatcher, 1, deadline)
        return int(next(iter(differences.take(1).apply(_distribute(dispatcher)))))
    except (OSError, tf.errors.OpError) as error:
        message = error.message if isinstance(error, tf.errors.OpError) else error
        reason = " ".join(str(message).split())[:200]
        raise UsageError(f"--data_service={dispatcher}: no dispatcher answers ({reason})") from None


def _wait_for_workers(dispatcher: str, num_workers: int, deadline: float) -> None:
    """Waits until this many workers have registered at the dispatcher.

    Raises:
      UsageError: the deadline, a time of the monotonic clock, has passed.
    """
    registered = None
    while True:
        previous, registered = registered, 0
        with contextlib.suppress(grpc.RpcError):  # the dispatcher is busy or down
            registered = len(worker_watchdog.list_workers(dispatcher))
        if registered >= num_workers:
            return
        state, missing = f"{registered} of {num_workers} workers have", "the others"
        if not registered:
            state, missing = "no worker has", "the workers"
        if time.monotonic() > deadline:
            raise UsageError(
                f"--data_service={dispatcher}: {state} registered; start {missing}, each with its"
                " address in --workers"
            )
        if registered != previous:
            logging.info("data service at %s: %s registered so far", dispatcher, state)
        time.sleep(0.5)


def _wait_for_dispatcher(dispatcher: str, should_stop: Callable[[], bool]) -> bool:
    """Waits until a dispatcher listens; returns False if the wait was ended.

    TensorFlow would wait as well, but handles no signal then.
    """
    address = parse_address(dispatcher)
    next_message = time.monotonic()
    while not should_stop():
        with contextlib.suppress(OSError):
            socket.create_connection(address, 1).close()
            return True
        if time.monotonic() >= next_message:
            logging.info("waiting for the dispatcher at %s", dispatcher)
            next_message += 60
        time.sleep(0.5)
    return False


def _distribute(dispatcher: str) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    return _service.distribute(_service.ShardingPolicy.HINT, f"grpc://{dispatcher}")


def start_server(
    role: str, dispatcher: str, workers: str, should_stop: Callable[[], bool]
) -> tf.data.experimental.service.DispatchServer | tf.data.experimental.service.WorkerServer | None:
    """Starts a dispatcher or a worker in this process. A worker waits for its dispatcher.

    Args:
      role: "dispatcher" or "worker".
      dispatcher: HOST:PORT of the dispatcher.
      workers: for a dispatcher, HOST:PORT of every worker, separated by commas; for a worker, its
        own HOST:PORT.
      should_stop: ends the wait.

    Returns:
      The server, which runs until it is garbage-collected; None if the wait was ended.

    Raises:
      UsageError: an address is malformed or in use, stands for no machine, or is reached from this
        machine only, while the server listens on all addresses.
    """
    port = parse_address(dispatcher)[1]
    addresses = [address.strip() for address in workers.split(",") if address.strip()]
    ports = [parse_address(address, "--workers")[1] for address in addresses]
    own = [("--data_service", dispatcher)] if role == "dispatcher" else []
    for flag, address in own + [("--workers", address) for address in addresses]:
        host = parse_address(address, flag)[0]
        if host in _ALL_ADDRESSES:
            raise UsageError(
                f"{flag}={address}: others connect to this address, so give the machine's name or"
                " its address in a private network"
            )
        if is_loopback(host):
            raise UsageError(
                f"{flag}={address}: is a loopback address, but TensorFlow's servers listen on all"
                " addresses; give the machine's name or its address in a private network"
            )
    try:
        if role == "dispatcher":
            if not addresses:
                raise UsageError("--workers is missing: give HOST:PORT of every worker")
            config = _service.DispatcherConfig(port=port, worker_addresses=addresses)
            return _service.DispatchServer(config)
        if len(addresses) != 1:
            raise UsageError(f"--workers={workers}: give the HOST:PORT of this worker alone")
        if not _wait_for_dispatcher(dispatcher, should_stop):
            return None
        config = _service.WorkerConfig(
            dispatcher_address=dispatcher, port=ports[0], worker_address=addresses[0]
        )
        return _service.WorkerServer(config)
    except (tf.errors.OpError, RuntimeError) as error:
        raise UsageError(f"--role={role}: {' '.join(str(error).split())[:200]}") from None
