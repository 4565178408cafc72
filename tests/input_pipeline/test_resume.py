"""Batches of a fresh process that starts anywhere, and those that other processes load."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys

import pytest
import tensorflow as tf

from input_pipeline import pipeline
from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.errors import UsageError
from input_pipeline.preparation import prepare
from input_pipeline.service import data_service, worker_watchdog
from input_pipeline.sources import source

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATCH, BATCHES, SEED = 5, 70, 11  # 23 images: an epoch ends inside of most batches
FORMATS = ("folder", "lists", "tfrecord")


@pytest.fixture(scope="module")
def configs(tiny_folder, tmp_path_factory):
    """The tiny set as folders, as a list and as TFRecords, by format."""
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
    """MD5 of the batches of so many steps of one of the workers, with a replica each."""
    split = source.open_split(config, "train")
    first, deal = first_step * BATCH * workers, (worker, 1, workers)
    batches = pipeline.train_dataset(split, config, SEED, first, BATCH, deal)
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


def _in_fresh_process(jobs):
    """Digests of each job, the arguments of `digests`, all in one new process."""
    lines = "".join(json.dumps([dataclasses.asdict(c), *rest]) + "\n" for c, *rest in jobs)
    command = [sys.executable, "-c", _CHILD]
    child = subprocess.run(
        command, cwd=ROOT, input=lines, capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return [json.loads(line) for line in child.stdout.splitlines()]


def test_a_fresh_process_continues_with_the_same_batches(configs):
    """From inside an epoch and from the batch that the first epoch ends in, by one or two."""
    wanted = digests(configs["folder"], 0, 12)
    assert len(set(wanted)) == 12
    # format, first step, worker, workers: together two workers load what one does
    cases = [("lists", 4, 0, 1), ("tfrecord", 7, 0, 1), ("lists", 2, 0, 2), ("tfrecord", 3, 1, 2)]
    jobs = [(configs[form], first, 12 // n - first, k, n) for form, first, k, n in cases]
    for (_, first, k, n), found in zip(cases, _in_fresh_process(jobs), strict=True):
        assert found == wanted[first * n + k :: n], (first, k, n)


@pytest.mark.faults
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("form", FORMATS)
def test_ten_fresh_processes_continue_anywhere(configs, form, workers):
    """Ten starts, epoch borders among them, each in a process of its own for each worker, and 70
    batches and more of each worker."""
    wanted = digests(configs[form], 0, BATCHES * workers)
    epoch = 23 / (BATCH * workers)  # in steps; the last border begins an epoch exactly
    borders = [int(epoch), int(2 * epoch), 23]
    others = sorted(set(range(1, BATCHES - 10)) - set(borders))
    starts = borders + random.Random(5).sample(others, 7)
    for worker in range(workers):
        compared = 0
        for first in starts:
            job = (configs[form], first, BATCHES - first, worker, workers)
            found = _in_fresh_process([job])[0]
            assert found == wanted[first * workers + worker :: workers], (first, worker)
            compared += len(found)
        assert compared >= 70


def _free_ports(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]


class _Service:
    """Processes `main.py --mode=data_service`: a dispatcher, and workers once they are started.

    A server of this process would wait a minute, when it is destroyed, for those that are gone.
    """

    def __init__(self, workers):
        self.dispatcher, *self.workers = (f"localhost:{port}" for port in _free_ports(workers + 1))
        self.processes = []

    def start(self, role, names):
        """Starts a process, and does not wait until it is ready."""
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
    """Yields a _Service whose dispatcher is ready; ends its processes."""
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


def test_two_workers_of_the_data_service_load_the_same_batches(configs, monkeypatch):
    """Also without their dispatcher; when one of them is lost, that is said."""
    monkeypatch.setattr(worker_watchdog, "_TIMEOUT_SECONDS", 0.5)
    config = configs["tfrecord"]
    split = source.open_split(config, "train")
    with _service(2) as service:
        _await_ready(*[service.start("worker", name) for name in service.workers])
        dispatcher, _, second = service.processes
        served = dataclasses.replace(config, data_service=service.dispatcher)
        assert data_service.count_workers(service.dispatcher) == 2
        assert len(worker_watchdog.list_workers(service.dispatcher)) == 2
        remote = data_service.train_dataset(split, served, SEED, 15, BATCH).as_numpy_iterator()
        here = pipeline.train_dataset(split, config, SEED, 15, BATCH).as_numpy_iterator()
        assert [_digest(next(remote)) == _digest(next(here)) for _ in range(9)] == [True] * 9
        dispatcher.kill()
        dispatcher.wait()
        assert [_digest(next(remote)) == _digest(next(here)) for _ in range(9)] == [True] * 9
        second.kill()
        with pytest.raises(tf.errors.OpError) as error:
            for _ in range(1000):
                assert _digest(next(remote)) == _digest(next(here))
        assert "does not answer" in str(worker_watchdog.to_service_lost(error.value))


def test_a_worker_that_reports_late_is_waited_for(monkeypatch):
    """TensorFlow would never ask it for its batches."""

    def batches():
        return data_service.load_batches(service.dispatcher, lambda number: {"number": number})

    with _service(2) as service:
        monkeypatch.setattr(data_service, "_REGISTRATION_TIMEOUT_SECONDS", 0.5)
        nobody = f"--data_service={service.dispatcher}: no worker has registered"
        with pytest.raises(UsageError, match=nobody):
            batches()
        first, late = service.workers
        _await_ready(service.start("worker", first))
        with pytest.raises(
            UsageError, match="1 of 2 workers have registered; start the others"
        ):
            batches()
        monkeypatch.setattr(data_service, "_REGISTRATION_TIMEOUT_SECONDS", 60.0)
        second = service.start("worker", late)  # which takes seconds to load TensorFlow
        found = batches().as_numpy_iterator()
        assert [next(found)["number"] for _ in range(5)] == [0, 1, 2, 3, 4]
        _await_ready(second)


def test_batches_are_dealt_to_trainers_as_the_pipeline_deals_them(configs, monkeypatch):
    """The second of two trainers with a replica each gets every other batch."""
    asked = []
    monkeypatch.setattr(data_service, "load_batches", lambda _, batch_at: batch_at)

    def train_dataset(*arguments, batches):
        assert batches == 1
        asked.append(arguments[3])
        return _Nothing()

    monkeypatch.setattr(pipeline, "train_dataset", train_dataset)
    batch_at = data_service.train_dataset(None, configs["lists"], SEED, 15, BATCH, (1, 1, 2))
    for number in range(3):
        batch_at(number)
    assert asked == [20, 30, 40]


class _Nothing:
    """Stands in for a tf.data.Dataset of one batch."""

    def get_single_element(self):
        return {}


def test_nobody_answers():
    port = _free_ports(1)[0]
    with pytest.raises(UsageError, match=f"--data_service=localhost:{port}: no dispatcher answers"):
        data_service.count_workers(f"localhost:{port}")
    for text in ("localhost", "localhost:0", ":5", "localhost:99999", "localhost:http"):
        with pytest.raises(UsageError, match="give HOST:PORT"):
            data_service.parse_address(text)
