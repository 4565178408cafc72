"""A lost worker of the data service ends the training that waits for it."""

import contextlib
import socket
import threading
import time
from concurrent import futures

import grpc
import pytest
import tensorflow as tf

from input_pipeline import threads
from input_pipeline.service import worker_watchdog


@contextlib.contextmanager
def _dispatcher(response):
    """Yields HOST:PORT of a server that answers GetWorkers with these bytes."""
    handler = grpc.method_handlers_generic_handler(
        "tensorflow.data.DispatcherService",
        {"GetWorkers": grpc.unary_unary_rpc_method_handler(lambda request, context: response)},
    )
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[handler])
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None).wait()


def _field_1(value):
    """Encodes bytes as field 1 of a protocol buffer, with a length below 2**14."""
    size = len(value)
    length = [size] if size < 128 else [size & 0x7F | 0x80, size >> 7]
    return b"\x0a" + bytes(length) + value


def _workers_response(*addresses):
    return b"".join(_field_1(_field_1(address.encode())) for address in addresses)


@pytest.fixture
def worker(monkeypatch):
    """Yields (socket of a worker, its address, address of its dispatcher).

    The worker counts as lost when it is unreachable for half a second.
    """
    monkeypatch.setattr(worker_watchdog, "_POLL_SECONDS", 0.1)
    monkeypatch.setattr(worker_watchdog, "_TIMEOUT_SECONDS", 0.5)
    with socket.create_server(("localhost", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        with _dispatcher(_workers_response(address)) as dispatcher:
            yield server, address, dispatcher


def test_lost_worker_ends_the_data_set(worker):
    server, address, dispatcher = worker
    never = threading.Event()

    def block_after_7(number):
        if number > 7:
            never.wait()
        return number

    def load(number):
        return {"n": tf.ensure_shape(tf.numpy_function(block_after_7, [number], tf.int64), [])}

    batches = worker_watchdog.watch(tf.data.Dataset.counter().map(load), dispatcher)
    assert batches.element_spec == {"n": tf.TensorSpec([], tf.int64)}
    iterator = batches.as_numpy_iterator()
    assert [next(iterator)["n"] for _ in range(8)] == list(range(8))
    threading.Timer(1.0, server.close).start()  # until then the data set waits
    start = time.monotonic()
    with pytest.raises(tf.errors.OpError) as error:
        next(iterator)
    assert time.monotonic() - start > 1.0
    never.set()
    lost = worker_watchdog.to_service_lost(error.value)
    assert lost.exit_code == 1
    assert str(lost).startswith(f"worker {address} of the data service does not answer; ")


def test_watching_does_not_delay_or_reorder_batches(worker):
    _, _, dispatcher = worker
    batches = worker_watchdog.watch(tf.data.Dataset.range(10**9), dispatcher)
    iterator = iter(batches)
    for number in range(3000):
        assert int(next(iterator)) == number
    del iterator  # which does not wait either
    # The poller sleeps in a thread of the pool. On a single core the batches need a second one.
    assert batches.options().threading.private_threadpool_size > threads.num_parallel_calls(0)


def test_only_errors_of_the_data_service_are_converted():
    assert worker_watchdog.to_service_lost(tf.errors.OpError(None, None, "disk full", 2)) is None
    text = f"assertion failed: [{worker_watchdog.RESTARTED}] [0] [14]"
    lost = worker_watchdog.to_service_lost(tf.errors.OpError(None, None, text, 3))
    assert "would repeat its batches" in str(lost)


def test_list_workers_parses_the_response_of_the_dispatcher():
    long = "x" * 300 + ":1"  # its length takes two bytes
    with _dispatcher(_workers_response("b.example.org:65000", "a:1", long)) as dispatcher:
        assert worker_watchdog.list_workers(dispatcher) == ["a:1", "b.example.org:65000", long]
    with _dispatcher(b"") as dispatcher:
        assert worker_watchdog.list_workers(dispatcher) == []


def test_list_workers_without_a_dispatcher():
    with socket.socket() as closed:
        closed.bind(("localhost", 0))
        port = closed.getsockname()[1]
    with pytest.raises(grpc.RpcError):
        worker_watchdog.list_workers(f"localhost:{port}")


def test_error_of_a_worker_is_one_line():
    error = tf.errors.InvalidArgumentError(
        None,
        None,
        "Failed to get element from worker host:5981: Failed to get an element, with a nonretryable"
        " error: Error in user-defined function passed to ParallelMapDatasetV2:24 transformation"
        " with iterator: Iterator::Root::ParallelMapV2: Dataset was empty.\n\t [[{{node X}}]]",
    )
    failure = worker_watchdog.to_worker_failure(error)
    assert failure.exit_code == 1
    assert str(failure).startswith(
        "worker host:5981 of the data service failed (Iterator::Root::ParallelMapV2: Dataset was"
        " empty.), but"
    )
    assert worker_watchdog.to_worker_failure(tf.errors.InternalError(None, None, "x")) is None
