"""Multi-worker training on the loopback interface, TF_CONFIG and Slurm."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

import flags
from input_pipeline.errors import UsageError
from loops import train
from loops.checkpointing import checkpoint
from loops.config.training import DistributionConfig
from loops.distribution import strategies
from loops.distribution.workers import Workers
from tests.command_line import refusal

ROOT = pathlib.Path(__file__).resolve().parents[3]
FLAGS = ["--dataset=folder", "--model=resnetv2_18", "--image_size=32", "--batch_size=8"]
FLAGS += ["--crops=1", "--run_name=r", "--schedule=constant", "--warmup_epochs=0"]


def find_free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start(folder, root, *words, workers=2, plans=({}, {}), own=((), ()), numbers=None):
    """Starts the workers of a training run and returns their processes.

    Args:
      folder, root, words: `--data_dir`, `--checkpoint_dir` and more flags.
      workers: number of workers.
      plans: plan of each worker, see `tests.loops.worker`.
      own: flags of each worker alone.
      numbers: the workers to start; None for all.
    """
    hosts = [f"127.0.0.1:{port}" for port in find_free_ports(workers)]
    processes = []
    for number in range(workers) if numbers is None else numbers:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("TF_CONFIG", None)
        if workers > 1:
            task = {"type": "worker", "index": number}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": hosts}, "task": task})
        command = [sys.executable, "-m", "tests.loops.worker", json.dumps(plans[number])]
        command += [*FLAGS, f"--data_dir={folder}", f"--checkpoint_dir={root}", *words]
        command += own[number] if workers > 1 else ()
        log = open(root / f"log-{number}", "w")  # noqa: SIM115 - belongs to the child
        processes.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        )
    return processes


def run(folder, root, *words, **options):
    """Trains with several workers; returns their exit codes and logs."""
    processes = start(folder, root, *words, **options)
    try:
        codes = [process.wait(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return codes, [(root / f"log-{n}").read_text() for n in range(len(processes))]


def tensors(run_dir, step):
    reader = tf.train.load_checkpoint(str(run_dir / f"step-{step:08d}" / "ckpt"))
    shapes = reader.get_variable_to_shape_map()
    return {n: reader.get_tensor(n) for n in shapes if n != "_CHECKPOINTABLE_OBJECT_GRAPH"}


def run_single_process(folder, root, *words):
    """Runs the same training in this process only."""
    argv = ["main.py", *FLAGS, f"--data_dir={folder}", f"--checkpoint_dir={root}", *words]
    return train.run(flags.parse([*argv, "--strategy=one"]))


@pytest.mark.usefixtures("early_statistics")
def test_two_workers_match_one_process(tiny_folder, tmp_path):
    """Compares four steps of one process with two steps of two workers and two more of one."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    parts.mkdir()
    words = ["--sync_batch_norm", "--eval_every=2", "--save_every=2", "--ema=0.9"]
    run_single_process(tiny_folder, whole, "--steps=4", *words)
    codes, logs = run(tiny_folder, parts, "--steps=2", *words)
    assert codes == [0, 0], "\n".join(logs)
    results = json.loads((parts / "r/eval-00000002-val-1.json").read_text())
    assert results["num_examples"] == 11
    assert "top1_raw" in results
    files = {path: path.stat().st_mtime_ns for path in (parts / "r").rglob("*")}
    codes, logs = run(tiny_folder, parts, "--steps=2", *words)
    assert codes == [0, 0], "\n".join(logs)
    assert all("nothing to train: step 2, the last, was evaluated" in log for log in logs)
    assert {path: path.stat().st_mtime_ns for path in (parts / "r").rglob("*")} == files
    for step in (2, 4):
        if step == 4:
            run_single_process(tiny_folder, parts, "--steps=4")
        one, two = tensors(whole / "r", step), tensors(parts / "r", step)
        assert one.keys() == two.keys()
        for name, value in one.items():
            np.testing.assert_allclose(value, two[name], atol=2e-6, err_msg=name)
    assert not [p for p in (parts / "r").iterdir() if p.name.startswith((".tmp", ".del"))]


def test_infinite_gradient_on_one_worker_and_killed_worker(tiny_folder, tmp_path):
    """Both workers skip a step with an infinity on the second one, which is then killed."""
    half = ["--mixed_precision", "--half_dtype=float16", "--initial_loss_scale=8", "--steps=500"]
    words = [*half, "--log_every=1", "--save_every=1", "--eval_every=1000", "--accumulate=2"]
    plan = {"poison": [[12, 13], "inf"]}  # of step 1; the second worker has samples 12 to 15
    plans = (plan, {**plan, "signal": [4, "SIGKILL"]})
    codes, logs = run(tiny_folder, tmp_path, *words, plans=plans)
    assert codes[1] == -9
    assert codes[0] == 1, logs[0]
    assert "another worker is gone" in logs[0] and "Traceback" not in logs[0], logs[0]
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    train_lines = [line for line in lines if line["split"] == "train"]
    assert [line["optim/skipped_steps"] for line in train_lines[:3]] == [0, 1, 1]
    assert [line["optim/loss_scale"] for line in train_lines[:3]] == [8.0, 4.0, 4.0]
    newest = checkpoint.find_newest_intact(tmp_path / "r")
    assert checkpoint.parse_step(newest) >= 3
    values = tensors(tmp_path / "r", checkpoint.parse_step(newest))
    assert all(np.isfinite(value).all() for value in values.values() if value.dtype.kind == "f")


@pytest.mark.parametrize("text", ["{bad", "[]", '{"cluster": {"worker": 7}}', '{"cluster": 1}'])
@pytest.mark.parametrize("strategy", ["multi_worker", "auto"])
def test_malformed_tf_config(monkeypatch, text, strategy):
    monkeypatch.setenv("TF_CONFIG", text)
    message = refusal(strategies.make_strategy, DistributionConfig(strategy=strategy))
    assert message.startswith(f"TF_CONFIG={text}: not of the form {{")


def test_worker_that_waits_says_so_and_ends_on_a_signal(tiny_folder, tmp_path):
    """Worker 0 of one run and worker 1 of another, each alone."""
    cases = [(0, signal.SIGTERM, 143), (1, signal.SIGINT, 130)]
    processes = [start(tiny_folder, tmp_path, numbers=[number])[0] for number, _, _ in cases]
    try:
        for process, (number, signum, code) in zip(processes, cases, strict=True):
            log = tmp_path / f"log-{number}"
            deadline = time.monotonic() + 60
            while f"waits for worker {1 - number} at 127.0.0.1:" not in log.read_text():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            process.send_signal(signum)
            assert process.wait(10) == code
            assert log.read_text().splitlines()[-1].startswith(f"error: stopped by {signum.name}")
    finally:
        for process in processes:
            process.kill()


def test_signal_while_tensorflow_connects_the_workers(tmp_path):
    """The other worker has ended after the meeting."""
    code = (
        "import sys\n"
        "from loops.config import training\n"
        "from loops.distribution import strategies\n"
        "from loops.runtime import process\n"
        "config = training.DistributionConfig(strategy='multi_worker')\n"
        "sys.exit(process.run(lambda: strategies.make_strategy(config)))\n"
    )
    hosts = [f"127.0.0.1:{port}" for port in find_free_ports(2)]
    tf_config = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": 0}}
    environment = {**os.environ, "TF_CONFIG": json.dumps(tf_config), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        kill = threading.Timer(90, process.kill)
        kill.start()
        line = next(line for line in process.stderr if "waits for" in line)
        assert f"waits for worker 1 at {hosts[1]}, " in line
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
        kill.cancel()


def test_workers_with_other_images_end_before_the_first_step(tiny_folder, tmp_path):
    """The number of images is the same on both workers."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    first = min((copy / "train/disc").iterdir())
    first.rename(first.with_name("zz.jpg"))
    codes, logs = run(tiny_folder, tmp_path, "--steps=1", own=((), [f"--data_dir={copy}"]))
    assert codes == [2, 2], logs
    for log in logs:
        assert "error: workers differ: the list of train images" in log.splitlines()[-1]
    assert not (tmp_path / "r").exists()


def test_wait_for_folder(tmp_path, monkeypatch, one_device):
    workers = Workers(one_device)
    monkeypatch.setattr(time, "sleep", lambda seconds: (tmp_path / "late").mkdir())
    workers.wait_for_folder(tmp_path / "late")
    clock = itertools.count(0.0, 61.0)  # longer than the timeout
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    message = refusal(workers.wait_for_folder, tmp_path / "never")
    assert message.startswith(f"--checkpoint_dir: not every worker sees {tmp_path / 'never'}")
    assert checkpoint.list_step_folders(tmp_path / "never") == []


@pytest.mark.parametrize(
    "task",
    [None, 7, {}, {"type": "worker"}, {"type": "worker", "index": 2}, {"type": "ps", "index": 0}],
)
def test_tf_config_without_valid_task(monkeypatch, task):
    """The most likely mistake is the same TF_CONFIG on all workers."""
    tf_config = {"cluster": {"worker": ["a:1", "b:1"], "ps": ["c:1"]}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(tf_config | ({"task": task} if task else {})))
    config = DistributionConfig(strategy="multi_worker")
    message = refusal(strategies.make_strategy, config)
    assert message.startswith("TF_CONFIG={") and '"task": {"type": "worker", "index": 0}' in message


def test_to_single_process(monkeypatch):
    """Prediction must not wait for workers if TF_CONFIG is still set in the shell."""
    config = DistributionConfig(cpu_devices=2)
    assert strategies.to_single_process(config) == config
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1", "b:1"]}}))
    assert strategies.to_single_process(config) == DistributionConfig(strategy="one", cpu_devices=2)
    message = refusal(strategies.to_single_process, DistributionConfig(strategy="multi_worker"))
    assert message.startswith("--strategy=multi_worker: only training and plain evaluation")


@pytest.mark.parametrize("words", [["--strategy=multi_worker"], ["--strategy=auto"]])
def test_workers_or_run_name_missing(words, tmp_path, tiny_folder, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    argv = ["main.py", *FLAGS, f"--data_dir={tiny_folder}", f"--checkpoint_dir={tmp_path}", *words]
    if words == ["--strategy=auto"]:
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1", "b:1"]}}))
        argv.remove("--run_name=r")
        with pytest.raises(UsageError, match="--run_name is missing"):
            train.run(flags.parse(argv))
    else:
        with pytest.raises(UsageError, match="neither TF_CONFIG nor Slurm"):
            train.run(flags.parse(argv))
