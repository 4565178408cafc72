"""Resume: new processes and the data service load the same batches, from any step."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys

import pytest
import tensorflow as tf

from input_pipeline import pipeline
from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import prepare
from input_pipeline.sample_order import ReplicaSlice
from input_pipeline.service import data_service, worker_watchdog
from input_pipeline.sources import source

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATCH, BATCHES, SEED = 5, 70, 11  # 23 images: most epochs end within a batch
FORMATS = ("folder", "lists", "tfrecord")


@pytest.fixture(scope="module")
def configs(tiny_folder, tmp_path_factory):
    """The tiny data set as folders, as lists and as TFRecords, by format."""
    root = tmp_path_factory.mktemp("resume")
    folder = DataConfig(
        dataset="folder", data_dir=str(tiny_folder), image_size=12, min_crop_area=0.3
    )
    folder = dataclasses.replace(folder, reader_threads=2)
    prepare.prepare(folder, PrepareConfig(), root / "tfrecord", "tfrecord")
    prepared = {"tfrecord": dataclasses.replace(folder, data_dir=str(root / "tfrecord"))}
    names = root / "tfrecord" / "train.txt"  # `path label` lines
    lists = dataclasses.replace(folder, dataset="lists", train_list=str(names))
    return {"folder": folder, "lists": lists, **prepared}


def digests(config, first_step, count, worker=0, workers=1):
    """MD5 of `count` batches of one worker; each worker has one replica."""
    split = source.open_split(config, "train")
    first, replica_slice = first_step * BATCH * workers, ReplicaSlice(worker, 1, workers)
    batches = pipeline.train_dataset(split, config, SEED, first, BATCH, replica_slice)
    return [_digest(batch) for batch in batches.take(count).as_numpy_iterator()]


def _digest(batch):
    return hashlib.md5(b"".join(batch[key].tobytes() for key in sorted(batch))).hexdigest()


_CHILD = """
import json, sys
from input_pipeline.config import DataConfig
from tests.input_pipeline import test_resume
for line in sys.stdin:
    config, *rest = json.loads(line)
    print(json.dumps(test_resume.digests(DataConfig(**config), *rest)), flush=True)
"""


def _in_new_process(jobs):
    """Digests of each job in one new process; a job has the arguments of `digests`."""
    lines = "".join(json.dumps([dataclasses.asdict(c), *rest]) + "\n" for c, *rest in jobs)
    command = [sys.executable, "-c", _CHILD]
    child = subprocess.run(
        command, cwd=ROOT, input=lines, capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return [json.loads(line) for line in child.stdout.splitlines()]


def test_resume_in_a_new_process_is_bit_identical(configs):
    """From within an epoch and from the batch with the end of the first epoch; 1 or 2 workers."""
    expected = digests(configs["folder"], 0, 12)
    assert len(set(expected)) == 12
    # Format, first step, worker, workers. Together, two workers load the batches of one.
    cases = [("lists", 4, 0, 1), ("tfrecord", 7, 0, 1), ("lists", 2, 0, 2), ("tfrecord", 3, 1, 2)]
    jobs = [(configs[form], first, 12 // n - first, k, n) for form, first, k, n in cases]
    for (_, first, k, n), resumed in zip(cases, _in_new_process(jobs), strict=True):
        assert resumed == expected[first * n + k :: n], (first, k, n)


@pytest.mark.faults
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("form", FORMATS)
def test_resume_from_ten_steps_is_bit_identical(configs, form, workers):
    """Ten first steps, including the ends of epochs, each in a new process per worker.

    At least 70 batches of each worker are compared.
    """
    expected = digests(configs[form], 0, BATCHES * workers)
    epoch = 23 / (BATCH * workers)  # in steps; the last border is exactly the start of an epoch
    borders = [int(epoch), int(2 * epoch), 23]
    others = sorted(set(range(1, BATCHES - 10)) - set(borders))
    starts = borders + random.Random(5).sample(others, 7)
    for worker in range(workers):
        compared = 0
        for first in starts:
            job = (configs[form], first, BATCHES - first, worker, workers)
            resumed = _in_new_process([job])[0]
            assert resumed == expected[first * workers + worker :: workers], (first, worker)
            compared += len(resumed)
        assert compared >= 70


def _free_ports(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for free in sockets:
            free.bind(("localhost", 0))
        return [free.getsockname()[1] for free in sockets]


class _Service:
    """The processes of a data service: `main.py --mode=data_service`.

    Servers in this process would wait a minute for dead peers when they are destroyed.
    """

    def __init__(self, workers):
        name = socket.gethostname()  # a loopback address is refused
        self.dispatcher, *self.workers = (f"{name}:{port}" for port in _free_ports(workers + 1))
        self.processes = []

    def start(self, role, names):
        """Starts a process without waiting until it is ready."""
        command = [sys.executable, "main.py", "--mode=data_service", f"--role={role}"]
        process = subprocess.Popen(
            [*command, f"--data_service={self.dispatcher}", f"--workers={names}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            text=True,
        )
        self.processes.append(process)
        return process


def _await_ready(*processes):
    for process in processes:
        assert "ready" in process.stdout.readline()


@contextlib.contextmanager
def _service(workers):
    """Yields a _Service whose dispatcher is ready; stops its processes at the end."""
    service = _Service(workers)
    try:
        _await_ready(service.start("dispatcher", ",".join(service.workers)))
        yield service
        alive = [process for process in service.processes if process.poll() is None]
        for process in alive:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(10) for process in alive] == [143] * len(alive)
    finally:
        for process in service.processes:
            process.kill()
            process.wait()


def test_data_service_with_two_workers_loads_the_same_batches(configs, monkeypatch):
    """Also after the dispatcher is killed. A killed worker is reported."""
    monkeypatch.setattr(worker_watchdog, "_TIMEOUT_SECONDS", 0.5)
    config = configs["tfrecord"]
    split = source.open_split(config, "train")
    with _service(2) as service:
        _await_ready(*[service.start("worker", name) for name in service.workers])
        dispatcher, _, second = service.processes
        served = dataclasses.replace(config, data_service=service.dispatcher)
        assert data_service.count_workers(service.dispatcher) == 2
        assert len(worker_watchdog.list_workers(service.dispatcher)) == 2
        missing = dataclasses.replace(split, read=lambda i: (tf.io.read_file("/missing"), i))
        message = r"worker [12] of 2, .* cannot read .*; the images must be at the same paths"
        with pytest.raises(DataError, match=message):
            data_service.train_dataset(missing, served, SEED, 15, BATCH)
        remote = data_service.train_dataset(split, served, SEED, 15, BATCH).as_numpy_iterator()
        local = pipeline.train_dataset(split, config, SEED, 15, BATCH).as_numpy_iterator()
        assert [_digest(next(remote)) == _digest(next(local)) for _ in range(9)] == [True] * 9
        dispatcher.kill()
        dispatcher.wait()
        assert [_digest(next(remote)) == _digest(next(local)) for _ in range(9)] == [True] * 9
        second.kill()
        with pytest.raises(tf.errors.OpError) as error:
            for _ in range(1000):
                assert _digest(next(remote)) == _digest(next(local))
        assert "does not answer" in str(worker_watchdog.to_service_lost(error.value))


def test_trainer_waits_for_a_late_worker(monkeypatch):
    """TensorFlow would never request the batches of a worker that registers late."""

    def batches():
        return data_service.load_batches(service.dispatcher, lambda number: {"number": number})

    with _service(2) as service:
        monkeypatch.setattr(data_service, "_REGISTRATION_TIMEOUT_SECONDS", 0.5)
        message = f"--data_service={service.dispatcher}: no worker has registered"
        with pytest.raises(UsageError, match=message):
            batches()
        first, late = service.workers
        _await_ready(service.start("worker", first))
        with pytest.raises(UsageError, match="1 of 2 workers have registered; start the others"):
            batches()
        monkeypatch.setattr(data_service, "_REGISTRATION_TIMEOUT_SECONDS", 60.0)
        second = service.start("worker", late)  # needs seconds to import TensorFlow
        loaded = batches().as_numpy_iterator()
        assert [next(loaded)["number"] for _ in range(5)] == [0, 1, 2, 3, 4]
        _await_ready(second)


def test_data_service_distributes_batches_to_trainers_as_the_pipeline_does(configs, monkeypatch):
    """The second of two trainers with one replica each gets every second batch."""
    first_samples = []
    monkeypatch.setattr(data_service, "load_batches", lambda _, batch_at: batch_at)
    monkeypatch.setattr(data_service, "_require_readable", lambda *_: None)

    def train_dataset(*arguments, batches):
        assert batches == 1
        first_samples.append(arguments[3])
        return _FakeDataset()

    monkeypatch.setattr(pipeline, "train_dataset", train_dataset)
    replica_slice = ReplicaSlice(first_replica=1, local_replicas=1, total_replicas=2)
    batch_at = data_service.train_dataset(None, configs["lists"], SEED, 15, BATCH, replica_slice)
    for number in range(3):
        batch_at(number)
    assert first_samples == [20, 30, 40]


class _FakeDataset:
    """Fake tf.data.Dataset of one batch."""

    def get_single_element(self):
        return {}


def test_unreachable_data_service_is_a_usage_error():
    port = _free_ports(1)[0]
    with pytest.raises(UsageError, match=f"--data_service=localhost:{port}: no dispatcher answers"):
        data_service.count_workers(f"localhost:{port}")
    odd = ("a:²", "http://a:5", "a b:5", "::1:5", "a\n:5")
    for text in ("localhost", "localhost:0", ":5", "localhost:99999", "localhost:http", *odd):
        with pytest.raises(UsageError, match="give HOST:PORT"):
            data_service.parse_address(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
def test_server_of_the_data_service_refuses_a_loopback_address(host):
    """TensorFlow's servers listen on all addresses."""
    own, other = f"{host}:5050", "10.0.0.5:5051"
    calls = [
        ("dispatcher", own, other, f"--data_service={own}"),
        ("dispatcher", other, f"{other},{own}", f"--workers={own}"),
        ("worker", other, own, f"--workers={own}"),
    ]
    for role, dispatcher, workers, shown in calls:
        with pytest.raises(UsageError, match=f"^{re.escape(shown)}: is a loopback address"):
            data_service.start_server(role, dispatcher, workers, lambda: True)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_server_of_the_data_service_refuses_the_address_that_stands_for_all(host):
    with pytest.raises(UsageError, match="others connect to this address"):
        data_service.start_server("worker", "10.0.0.5:5050", f"{host}:5051", lambda: True)


def test_worker_of_the_data_service_waits_for_its_dispatcher_until_it_is_stopped(caplog):
    port, polls = _free_ports(1)[0], iter([False, False, True])
    server = data_service.start_server(
        "worker", f"localhost:{port}", "10.0.0.5:5051", lambda: next(polls)
    )
    assert server is None
    assert caplog.messages == [f"waiting for the dispatcher at localhost:{port}"]


def test_name_of_this_machine_is_no_loopback_address(monkeypatch):
    """Debian resolves it to 127.0.1.1 on the machine itself, and elsewhere to another address."""
    loopback = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: loopback)
    monkeypatch.setattr(socket, "gethostname", lambda: "node1")
    assert not data_service.is_loopback("node1")
    assert not data_service.is_loopback("node1.cluster")
    assert data_service.is_loopback("localhost")
    assert data_service.is_loopback("node2")
