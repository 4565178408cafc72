"""Detects that a worker of the data service is gone. TensorFlow would wait for it for an hour."""

import contextlib
import socket
import time
from collections.abc import Sequence

import grpc
import tensorflow as tf

from input_pipeline import threads
from input_pipeline.errors import UserError

# How long a worker may be unreachable. It is polled every few seconds.
_TIMEOUT_SECONDS = 20.0
_POLL_SECONDS = 2.0
_CONNECT_TIMEOUT_SECONDS = 5.0
_GET_WORKERS = "/tensorflow.data.DispatcherService/GetWorkers"
# These texts mark an error of the input pipeline as an error of the data service.
UNRESPONSIVE = "of the data service does not answer"
RESTARTED = "a worker of the data service was restarted"
# TensorFlow's text for an error of a worker.
_FAILED = "Failed to get element from worker "


class ServiceLost(UserError):
    """A worker of the data service was lost, and its batches with it."""

    exit_code = 1


def to_service_lost(error: tf.errors.OpError) -> ServiceLost | None:
    """Returns the ServiceLost for an input pipeline error, or None if it has another cause."""
    text = " ".join(error.message.split())
    if UNRESPONSIVE in text:
        worker = text.partition(f" {UNRESPONSIVE}")[0].rpartition(" ")[2]
        return ServiceLost(
            f"worker {worker} {UNRESPONSIVE}; start the data service again, then train with the"
            " same --run_name to resume"
        )
    if RESTARTED in text:
        return ServiceLost(
            f"{RESTARTED} and would repeat its batches; train with the same --run_name to resume"
        )
    return None


def to_worker_failure(error: tf.errors.OpError) -> ServiceLost | None:
    """Returns the ServiceLost for an error that a worker has reported, or None."""
    worker, _, reason = " ".join(error.message.partition(_FAILED)[2].split()).partition(": ")
    if not worker:
        return None
    reason = reason.split(" [[")[0].rpartition("transformation with iterator: ")[2][:300]
    return ServiceLost(
        f"worker {worker} of the data service failed ({reason}), but this process can read the"
        " images; check the images and the log of the worker"
    )


def list_workers(dispatcher: str) -> list[str]:
    """Returns the sorted HOST:PORT of the workers that have registered at a dispatcher.

    Raises:
      grpc.RpcError: the dispatcher does not answer.
    """
    with grpc.insecure_channel(dispatcher) as channel:
        get_workers = channel.unary_unary(
            _GET_WORKERS, lambda request: request, lambda response: response
        )
        response = get_workers(b"", timeout=_CONNECT_TIMEOUT_SECONDS)
    # The response is a repeated message in field 1. Its only field, 1 too, is the address.
    return sorted(
        {
            address.decode()
            for worker in _read_field_1(response)
            for address in _read_field_1(worker)
        }
    )


def _read_field_1(message: bytes) -> Sequence[bytes]:
    """Returns field 1 of a protocol buffer, repeated strings or messages.

    TensorFlow has no public API that lists the workers, and its generated stub is private. On the
    wire, the messages equal a BytesList.
    """
    return tf.train.BytesList.FromString(message).value


def watch(batches: tf.data.Dataset, dispatcher: str) -> tf.data.Dataset:
    """Returns the same data set, which fails when a worker is unreachable for too long.

    Args:
      batches: infinite data set that the workers load.
      dispatcher: HOST:PORT of the dispatcher.

    Returns:
      A data set. `to_service_lost` recognizes its error.
    """
    poll = _WorkerPoller(dispatcher)

    def poll_workers(_):
        tf.numpy_function(poll, [], [])
        return tf.nest.map_structure(
            lambda spec: tf.zeros(spec.shape, spec.dtype), batches.element_spec
        )

    # It yields no element, only an error if a worker is lost. The interleave below passes on
    # elements and errors of either data set as soon as they arrive.
    errors = tf.data.Dataset.counter().map(poll_workers).filter(lambda *_: False)
    both = [tf.data.Dataset.from_tensors(dataset) for dataset in (batches, errors)]
    # The poller sleeps in a thread of the pool, so the pool needs one more thread than the batches.
    options = threads.make_dataset_options(threads.num_parallel_calls(0) + 1)
    return (
        both[0]
        .concatenate(both[1])
        .interleave(
            lambda dataset: dataset, cycle_length=2, num_parallel_calls=2, deterministic=False
        )
        .with_options(options)
    )


class _WorkerPoller:
    """Polls the workers: each call waits, then connects to every worker once."""

    def __init__(self, dispatcher: str) -> None:
        self._dispatcher = dispatcher
        self._last_answer: dict[str, float] = {}  # times of the monotonic clock, by address
        self._update_workers()

    def __call__(self) -> None:
        """Raises RuntimeError if a worker has been unreachable for too long."""
        time.sleep(_POLL_SECONDS)
        self._update_workers()
        now = time.monotonic()
        for address, last_answer in self._last_answer.items():
            if _is_reachable(address):
                self._last_answer[address] = time.monotonic()
            elif now - last_answer > _TIMEOUT_SECONDS:
                raise RuntimeError(f"{address} {UNRESPONSIVE}")

    def _update_workers(self) -> None:
        """Adds workers that have registered since the last call."""
        with contextlib.suppress(grpc.RpcError):  # the workers continue without a dispatcher
            for address in list_workers(self._dispatcher):
                self._last_answer.setdefault(address, time.monotonic())


def _is_reachable(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True
