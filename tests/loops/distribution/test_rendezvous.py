"""The meeting of the workers before TensorFlow connects them, in threads and on loopback."""

import concurrent.futures
import contextlib
import itertools
import signal
import socket
import types

import pytest

from input_pipeline.errors import UsageError, UserError
from loops.distribution import rendezvous
from loops.distribution.cluster_resolver import Cluster
from loops.runtime.stop_signals import StoppedBySignal
from tests.command_line import refusal
from tests.loops.distribution.test_workers import find_free_ports


@pytest.fixture(autouse=True)
def signals(monkeypatch):
    """Replaces StopSignals, which works in the main thread only."""
    received = types.SimpleNamespace(received=None)
    monkeypatch.setattr(rendezvous, "StopSignals", lambda: contextlib.nullcontext(received))
    monkeypatch.setattr(rendezvous, "_LAST_VERDICT_SECONDS", 1.0)
    return received


def make_clusters(workers, hosts=()):
    addresses = tuple(f"127.0.0.1:{port}" for port in find_free_ports(workers - len(hosts))) + hosts
    return [Cluster("TF_CONFIG", {"worker": addresses}, "worker", n) for n in range(workers)]


def meet(clusters, *arguments):
    """Lets workers meet; returns what each raised, or None."""
    with concurrent.futures.ThreadPoolExecutor(len(clusters)) as pool:
        meetings = [
            pool.submit(rendezvous.meet, *both) for both in zip(clusters, *arguments, strict=True)
        ]
        return [meeting.exception(timeout=60) for meeting in meetings]


def test_equal_workers_meet_although_strangers_call(monkeypatch):
    clusters = make_clusters(3)
    host, port = "127.0.0.1", int(clusters[0].addresses[0].rpartition(":")[2])
    listen = rendezvous._listen

    @contextlib.contextmanager
    def listen_and_be_called(cluster):
        with listen(cluster) as listener, contextlib.ExitStack() as stack:
            texts = (b"", b"PRI * HTTP/2.0\r\n\r\n", b"[" * 100_000 + b"\n", b"{}\n", b"7\n")
            foreign = b'{"protocol": "%s", "number": 9}\n' % rendezvous._PROTOCOL.encode()
            for text in (*texts, foreign) if cluster.number == 0 else ():
                call = stack.enter_context(socket.create_connection((host, port)))
                call.sendall(text)
                call.shutdown(socket.SHUT_WR)
            yield listener

    monkeypatch.setattr(rendezvous, "_listen", listen_and_be_called)
    assert (
        meet(clusters, [{"--seed": "1", "the commit": commit} for commit in ("a", "", "a")])
        == [None] * 3
    )  # an empty value is unknown


def test_difference_ends_all_workers_with_the_same_message():
    facts = [{"--seed": "1"}, {"--seed": "2"}, {"--seed": "1", "TF_X": "1"}]
    errors = meet(make_clusters(3), facts)
    assert [type(error) for error in errors] == [UsageError] * 3
    message = (
        "workers differ: --seed is 1 on workers 0, 2, 2 on worker 1; TF_X is not set on workers 0,"
        " 1, 1 on worker 2; start all workers with the same"
    )
    assert all(str(error).startswith(message) for error in errors)


@pytest.mark.parametrize("number", [0, 1])
def test_failure_of_one_worker_ends_the_others(number):
    """They end with its exit code; it itself raises its own error after `meet`."""
    failures = [None, None]
    failures[number] = UserError("--x: is bad")
    failures[number].exit_code = 3
    errors = meet(make_clusters(2), [{}, {}], failures)
    assert errors[number] is None
    assert errors[1 - number].exit_code == 3 and "--x: is bad" in str(errors[1 - number])


def test_workers_with_other_lists_or_the_same_index_are_refused(monkeypatch):
    for number in (1, 2):  # in the list of worker 0, and beyond its end
        first, second = make_clusters(2)
        (other,) = (f"127.0.0.1:{port}" for port in find_free_ports(1))
        longer = Cluster("TF_CONFIG", {"worker": (*second.addresses, other)}, "worker", number)
        errors = meet([first, longer], [{}, {}])
        assert all(str(e).startswith("workers differ: the list of workers") for e in errors)
    # Two processes of one machine cannot listen at the same port; those of two machines can.
    first, second, third = make_clusters(3)
    ports = itertools.count()
    listen = rendezvous._listen
    monkeypatch.setattr(
        rendezvous,
        "_listen",
        lambda c: listen(c) if c.number == 0 or not next(ports) else contextlib.nullcontext(),
    )
    errors = meet([first, second, second], [{}, {}, {}])
    assert all(str(error).startswith("two processes are worker 1: ") for error in errors)


def test_port_in_use():
    (cluster, _) = make_clusters(2)
    host, port = cluster.addresses[0].split(":")
    with socket.create_server((host, int(port))):
        message = refusal(rendezvous.meet, cluster, {})
    assert message.startswith(f"TF_CONFIG, host={host}:{port}: this worker cannot start, its port")


@pytest.mark.parametrize("number", [0, 1])
def test_wait_says_for_whom_and_ends_on_a_signal(signals, monkeypatch, caplog, number):
    clusters = make_clusters(3)
    monkeypatch.setattr(rendezvous, "_FIRST_REPORT_SECONDS", 0.5)
    monkeypatch.setattr(rendezvous, "_REPORT_SECONDS", 0.2)
    with concurrent.futures.ThreadPoolExecutor() as pool, caplog.at_level("INFO", "absl"):
        meeting = pool.submit(rendezvous.meet, clusters[number], {})
        with pytest.raises(concurrent.futures.TimeoutError):
            meeting.result(timeout=2.0)
        signals.received = signal.SIGTERM
        with pytest.raises(StoppedBySignal) as stopped:
            meeting.result(timeout=10)
    assert stopped.value.exit_code == 143
    one, two, three = clusters[0].addresses
    lines = [record.getMessage() for record in caplog.records]
    others = f"worker 1 at {two}, worker 2 at {three}" if number == 0 else f"worker 0 at {one}"
    assert len(lines) > 2
    expected = f"worker {number} at {clusters[number].addresses[number]} waits for {others}, "
    assert all(line.startswith(expected) for line in lines), lines


@pytest.mark.parametrize("number", [0, 1])
def test_name_that_does_not_resolve(monkeypatch, number):
    names = ("nosuch.invalid:1",)
    monkeypatch.setattr(rendezvous, "_NAME_SECONDS", 0.5)
    if number == 0:
        cluster = make_clusters(2, names)[0]
    else:
        addresses = (*names, f"127.0.0.1:{find_free_ports(1)[0]}")
        cluster = Cluster("TF_CONFIG", {"worker": addresses}, "worker", 1)
    message = refusal(rendezvous.meet, cluster, {})
    assert message.startswith("TF_CONFIG, host=nosuch.invalid:1: the name of worker")
