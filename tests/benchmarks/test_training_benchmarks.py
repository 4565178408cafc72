"""Tests of the benchmarks of the training loop: overhead, replicas, memory and GPU checks."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import harness, loop_overhead, memory_table, replicas
from benchmarks.workloads import bare_step, gpu_checks


def test_random_batches_have_the_same_images_for_any_number_of_replicas():
    def read_images(batch_size, count):
        dataset = bare_step.make_random_batches(4, batch_size, 10, count).take(count)
        batches = list(dataset.as_numpy_iterator())
        return [np.concatenate([b[name] for b in batches]) for name in ("image", "label", "sample")]

    for one, two in zip(read_images(6, 4), read_images(3, 8), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("module", "speeds", "message"),
    [
        (loop_overhead, {"bare": 100.0, "loop": 98.0}, "median ratio 0.980"),
        (replicas, {"one": 110.0, "two": 100.0}, "takes 1.100 times as long"),
    ],
)
def test_sides_alternate_and_their_ratio_is_printed(
    monkeypatch, tmp_path, capsys, module, speeds, message
):
    order = []

    def run_child(name, words, python):
        order.append(words[0].removeprefix("--side="))
        return {"images_per_second": speeds[order[-1]], "data_wait": 0.1, "cpu_seconds": 1.0}

    monkeypatch.setattr(harness, "run_child", run_child)
    out = tmp_path / "out.json"
    monkeypatch.setattr("sys.argv", ["x", "--pairs=2", f"--json={out}"])
    module.main()
    assert order == [*speeds] * 2
    assert message in capsys.readouterr().out
    assert {"command", "machine", "versions"} <= set(json.loads(out.read_text()))


def test_memory_table_has_ratios_to_the_plain_step(monkeypatch, capsys):
    def run_child(name, words):
        peak = {"plain": 10.0, "accumulate": 4.0}[words[-1].partition(",")[2]]
        return {"peak_gb": peak, "step_gb": peak - 1, "step_seconds": 2.0}

    monkeypatch.setattr(harness, "run_child", run_child)
    monkeypatch.setattr("sys.argv", ["x", "--dtypes=float32", "--cases=plain,accumulate"])
    memory_table.main()
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last == ["float32", "accumulate", "4.00", "3.00", "2.00", "0.40", "1.00"]


def run_gpu_check(*words):
    command = [sys.executable, "-m", "benchmarks.gpu_check", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=1200)


def test_gpu_check_without_a_gpu_exits_with_one_line():
    process = run_gpu_check()
    assert process.returncode == 2
    assert process.stdout == ""
    message = "TensorFlow sees no GPU; use --allow_cpu to try the checks on the CPU\n"
    assert process.stderr == message


@pytest.mark.faults
def test_gpu_checks_pass_on_a_cpu(tmp_path):
    process = run_gpu_check("--allow_cpu", f"--json={tmp_path / 'out.json'}")
    assert process.returncode == 0, process.stdout + process.stderr
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    names = {(name, 1) for name in gpu_checks.CHECKS}
    names |= {(name, 2) for name in gpu_checks.MULTI_REPLICA_CHECKS}
    assert results.keys() == {f"{name},{count}" for name, count in names}
    assert all(result["ok"] for result in results.values())
