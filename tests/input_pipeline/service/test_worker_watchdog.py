"""A worker of the data service that is gone ends the training that waits for it."""

import socket
import threading
import time

import grpc
import pytest
import tensorflow as tf

from input_pipeline import threads
from input_pipeline.service import worker_watchdog


@pytest.fixture
def worker(monkeypatch):
    """A socket that answers where a dispatcher says that a worker is; half a second of silence is
    too much for it."""
    monkeypatch.setattr(worker_watchdog, "_POLL_SECONDS", 0.1)
    monkeypatch.setattr(worker_watchdog, "_TIMEOUT_SECONDS", 0.5)
    with socket.create_server(("localhost", 0)) as server:
        name = f"localhost:{server.getsockname()[1]}"
        monkeypatch.setattr(worker_watchdog, "list_workers", lambda _: [name])
        yield server, name


def test_a_silent_worker_ends_what_waits_for_it(worker):
    server, name = worker
    never = threading.Event()

    def late(number):
        if number > 7:
            never.wait()
        return number

    def load(number):
        return {"n": tf.ensure_shape(tf.numpy_function(late, [number], tf.int64), [])}

    batches = worker_watchdog.watch(tf.data.Dataset.counter().map(load), "nobody:1")
    assert batches.element_spec == {"n": tf.TensorSpec([], tf.int64)}
    arrived = batches.as_numpy_iterator()
    assert [next(arrived)["n"] for _ in range(8)] == list(range(8))
    threading.Timer(1.0, server.close).start()  # until then it is waited for
    started = time.monotonic()
    with pytest.raises(tf.errors.OpError) as error:
        next(arrived)
    assert time.monotonic() - started > 1.0
    never.set()
    told = worker_watchdog.to_service_lost(error.value)
    assert told.exit_code == 1
    assert str(told).startswith(f"worker {name} of the data service does not answer; ")


def test_batches_are_not_held_up(worker):
    """Nor is their order, nor the end of the program."""
    batches = worker_watchdog.watch(tf.data.Dataset.range(10**9), "nobody:1")
    arrived = iter(batches)
    for number in range(3000):
        assert int(next(arrived)) == number
    del arrived
    # On one core as well, where who asks sleeps in the pipeline's only thread, unless it has two.
    assert batches.options().threading.private_threadpool_size > threads.num_parallel_calls(0)


def test_errors_of_other_kinds_are_not_explained():
    assert worker_watchdog.to_service_lost(tf.errors.OpError(None, None, "disk full", 2)) is None
    text = f"assertion failed: [{worker_watchdog.RESTARTED}] [0] [14]"
    assert "begin anew" in str(
        worker_watchdog.to_service_lost(tf.errors.OpError(None, None, text, 3))
    )


def test_the_list_of_workers():
    def message(*names):
        return b"".join(
            b"\x0a" + bytes([len(n) + 2]) + b"\x0a" + bytes([len(n)]) + n for n in names
        )

    reply = message(b"a:1", b"b.example.org:65000")
    found = [
        name
        for part in worker_watchdog._parse_strings(reply)
        for name in worker_watchdog._parse_strings(part)
    ]
    assert found == [b"a:1", b"b.example.org:65000"]
    long = b"\x0a\xac\x02" + b"x" * 300  # a length of two bytes
    assert worker_watchdog._parse_strings(long) == [b"x" * 300]
    with pytest.raises(ValueError, match="another form"):
        worker_watchdog._parse_strings(b"\x12\x00")
    with socket.socket() as closed:
        closed.bind(("localhost", 0))
        port = closed.getsockname()[1]
    with pytest.raises(grpc.RpcError):
        worker_watchdog.list_workers(f"localhost:{port}")
