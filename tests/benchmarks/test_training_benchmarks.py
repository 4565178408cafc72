"""Tests of the benchmarks of the training loop: overhead, replicas, memory and GPU checks."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import gpu_check, harness, loop_overhead, memory_table, replicas
from benchmarks.workloads import bare_step, gpu_kernels, gpu_parts, gpu_place


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
    paths = {name: tmp_path / f"out.{name}" for name in ("json", "page")}
    words = [f"--{name}={path}" for name, path in paths.items()]
    process = run_gpu_check("--allow_cpu", "--minutes=60", *words)
    assert process.returncode == 0, process.stdout + process.stderr
    results = json.loads(paths["json"].read_text())["results"]
    expected = {f"{name},{n}" for name, p in gpu_parts.PARTS.items() for n in p.list_replicas(2)}
    assert results.keys() == expected
    assert not [name for name, result in results.items() if result["ok"] is False]
    without_torch = {name for name, result in results.items() if result["ok"] is None}
    assert without_torch <= {"torch,1", "torch compiled,1"}
    page = paths["page"].read_text()
    assert all(f"### {part.title}" in page for part in gpu_parts.PARTS.values())


def test_gpu_check_goes_on_after_a_failed_part_and_stops_in_time(monkeypatch, tmp_path, capsys):
    """The page is complete after each part."""

    def run_child(module, words, timeout_seconds):
        name = words[0].removeprefix("--child=").partition(",")[0]
        if name == "numbers":
            raise SystemExit("Traceback\nValueError: no\npython -m x: exit code 1")
        if name == "resume":
            raise subprocess.TimeoutExpired("x", timeout_seconds)
        return {"ok": name != "speed", "header": ["a", "b"], "rows": [["x|y", 1234.5]]}

    monkeypatch.setattr(harness, "run_child", run_child)
    page = tmp_path / "page.md"
    monkeypatch.setattr("sys.argv", ["x", "--allow_cpu", f"--page={page}"])
    assert gpu_check.main() == 1
    text = page.read_text()
    outcomes = dict(re.findall(r"^### (.*): (ok|FAILED|not run)$", text, re.MULTILINE))
    assert list(outcomes.values())[:6] == ["ok", "FAILED", "ok", "ok", "not run", "FAILED"]
    assert "| ValueError: no |" in text and "| x/y | 1,234 |" in text
    assert "| stopped at the end of --minutes |" in text
    monkeypatch.setattr("sys.argv", ["x", "--allow_cpu", "--minutes=0", f"--page={page}"])
    assert gpu_check.main() == 0
    assert page.read_text().count("no time was left") >= len(gpu_parts.PARTS)


def test_child_that_takes_too_long_is_killed(tmp_path, monkeypatch):
    (tmp_path / "slow.py").write_text(
        "import subprocess, sys, time\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)\n"
        "sys.stdout.flush(); open('pid', 'w').write('x'); time.sleep(60)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(subprocess.TimeoutExpired) as error:
        harness.run_child("slow", [], timeout_seconds=2)
    grandchild = int(error.value.output.split()[0])
    for _ in range(50):  # until init has reaped it
        if not pathlib.Path(f"/proc/{grandchild}").exists():
            return
        time.sleep(0.1)
    state = pathlib.Path(f"/proc/{grandchild}/stat").read_text().rpartition(")")[2].split()[0]
    assert state == "Z"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sm80_xmma_fprop_implicit_gemm_f16f16_nhwckrsc_nhwc_tilesize", "convolutions and matrix"),
        ("cutlass_tensorop_f16_s16816wgrad_optimized_nhwc_align8", "convolutions and matrix"),
        ("cudnn::bn_fw_tr_1C11_kernel_NCHW", "batch norm"),
        ("cudnn::pooling_bw_kernel_max_nhwc", "pooling"),
        ("cudnn::ops::nchwToNhwcKernel", "layout"),
        ("tensorflow::functor::SwapDimension1And2InTensor3UsingTiles", "layout"),
        ("MemcpyD2D", "copies"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "sums over replicas"),
        ("Eigen::internal::EigenMetaKernel<scalar_sum_op>", "element by element"),
    ],
)
def test_kind_of_a_kernel(name, kind):
    assert gpu_kernels.find_kind(name).startswith(kind)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "OOM"), True),
        (RuntimeError("--mode=benchmark: error: out of memory"), True),
        (tf.errors.InvalidArgumentError(None, None, "shape"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error, is_memory):
    assert gpu_place.is_out_of_memory(error) is is_memory


def test_kernels_of_a_profile_are_summed_by_stream():
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    gpu = space.planes.add(name="/device:GPU:0")
    names = {1: "nchwToNhwcKernel", 2: "sm90_xmma_fprop"}
    for number, name in names.items():
        gpu.event_metadata[number].name = name
    for line_name, events in {"Stream #7": [(1, 3), (2, 5), (2, 6)], "Steps": [(1, 99)]}.items():
        line = gpu.lines.add(name=line_name)
        for number, picoseconds in events:
            line.events.add(metadata_id=number, duration_ps=picoseconds * 10**12)
    path = pathlib.Path(tempfile.mkdtemp()) / "a.xplane.pb"
    path.write_bytes(space.SerializeToString())
    seconds = gpu_kernels.sum_kernel_seconds(path, on_gpu=True)
    assert seconds == {"nchwToNhwcKernel": 3.0, "sm90_xmma_fprop": 11.0}
