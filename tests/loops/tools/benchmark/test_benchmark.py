"""`--mode=benchmark`: each benchmark from the command line to its JSON file."""

import functools
import itertools
import json
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

import flags
from input_pipeline.errors import UsageError
from loops.distribution import strategies
from loops.tools.benchmark import (
    benchmark,
    benchmark_setup,
    matmul_peak,
    net_benchmarks,
    throughput,
)

REQUIRED_KEYS = {
    *("images_per_second", "parameters", "multiply_adds", "step_ms_p50", "step_ms_p90"),
    *("first_step_seconds", "peak_memory_bytes", "gflops_per_second", "config", "versions"),
    *("share_of_matmul", "matmul_gflops_per_second", "devices", "replicas", "batch_size"),
}
_PAGE = pathlib.Path(__file__).parents[4] / "docs/reference.md"
# Multiply-adds of the tiny net on 32 px. Its convolutions output 16 x 16 x 8 and 8 x 8 x 16 values.
_CONVOLUTION_MACS = 16 * 16 * 8 * 27 + 8 * 8 * 16 * 72


@pytest.fixture
def quick(tiny_net, monkeypatch):
    """A tiny net and small matrices."""
    measure = functools.partial(matmul_peak.measure, sides=(64,))
    monkeypatch.setattr(matmul_peak, "measure", measure)


def run(*words):
    return benchmark.run(flags.parse(["main.py", "--mode=benchmark", "--image_size=32", *words]))


def check(results, path, num_classes, flops_per_mac):
    """Checks what all results have in common: the JSON file, the percentiles and the rates."""
    stored = json.loads(path.read_text())
    assert stored == json.loads(json.dumps(results)) and set(stored) >= REQUIRED_KEYS
    (section,) = re.findall(r"^## Results of a benchmark\n(.*)\Z", _PAGE.read_text(), re.M | re.S)
    documented = set(re.findall(r"`(\w+)`", section))
    assert set(stored) <= documented, "docs/reference.md does not list all keys"
    steps = np.repeat(results["step_ms_of_calls"], results["steps_of_calls"])
    assert len(steps) == results["steps_timed"] >= 20
    assert results["step_ms_p50"] == pytest.approx(np.median(steps))
    assert results["step_ms_p90"] == pytest.approx(np.quantile(steps, 0.9))
    seconds = results["step_ms_p50"] / 1e3
    assert results["images_per_second"] == pytest.approx(results["batch_size"] / seconds)
    assert results["parameters"] == 216 + 2 * 8 + 1152 + 2 * 16 + 17 * num_classes
    assert results["multiply_adds"] == _CONVOLUTION_MACS + 16 * num_classes
    flops = flops_per_mac * results["multiply_adds"] * results["batch_size"]
    assert results["gflops_per_second"] == pytest.approx(flops / seconds / 1e9)
    share = results["gflops_per_second"] / results["matmul_gflops_per_second"]
    assert results["share_of_matmul"] == pytest.approx(share)
    assert results["first_step_seconds"] > seconds


def test_training_step(quick, tmp_path, capsys):
    out = tmp_path / "out.json"
    results = run("--strategy=one", "--batch_size=6", f"--json={out}")
    check(results, out, 1000, 6)
    assert results["config"]["data"]["dataset"] == "ilsvrc2012"
    assert (results["batch_size"], results["replicas"]) == (6, 1)
    assert results["versions"]["keras"] and results["devices"][0].startswith("CPU ")
    assert capsys.readouterr().out.startswith("training step on random images\n  net ")


def test_training_step_on_two_replicas(quick, mirrored, monkeypatch, tmp_path):
    """Gradient accumulation, EMA and mixup, with the default batch size."""
    monkeypatch.setattr(strategies, "make_strategy", lambda config: mirrored)
    monkeypatch.setattr(benchmark_setup, "_MAX_IMAGES_PER_REPLICA", {"CPU": 5})
    out = tmp_path / "out.json"
    words = ["--benchmark=step", "--dataset=shapes", "--accumulate=2", "--ema=0.9", "--mixup=0.2"]
    results = run(*words, f"--json={out}")
    check(results, out, 10, 6)
    # 10 images fit. Each replica has two micro-batches of an even size.
    assert (results["batch_size"], results["replicas"], results["skipped_steps"]) == (8, 2, 0)


def test_evaluation_forward_pass(quick, tmp_path):
    out = tmp_path / "out.json"
    results = run("--benchmark=eval", "--strategy=one", f"--json={out}")
    check(results, out, 1000, 2 * 10)
    assert (results["batch_size"], results["crops"]) == (5, 10)
    assert results["views_per_second"] == pytest.approx(10 * results["images_per_second"])


def test_training_loop(quick, tiny_folder, tmp_path, capsys):
    out = tmp_path / "out.json"
    words = ["--benchmark=train", "--strategy=one", "--dataset=folder", "--batch_size=4"]
    results = run(*words, f"--data_dir={tiny_folder}", f"--json={out}")
    check(results, out, 3, 6)
    assert len(results["step_ms_of_calls"]) == 20
    assert 0 <= results["data_wait"] <= 1 and "waiting for data" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [["--ckpt=x"], ["--steps=5"], ["--auto_batch"], ["--image_size_schedule=0:32"], ["--csv=x"]],
)
def test_flags_that_no_benchmark_uses(words):
    with pytest.raises(UsageError, match=r"^--\w+: --mode=benchmark does not use it"):
        run(*words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--benchmark=eval", "--batch_size=4"],
            "--batch_size: --benchmark=eval does not use it; give --eval_batch_size",
        ),
        (["--benchmark=input", "--model=alexnet"], "--model: --benchmark=input does not use it"),
        (["--benchmark=input", "--crops=1"], "--crops: --benchmark=input does not use it"),
    ],
)
def test_flags_that_one_benchmark_does_not_use(words, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        run(*words)


def test_batch_size_not_divisible_by_replicas(quick, mirrored, monkeypatch):
    monkeypatch.setattr(strategies, "make_strategy", lambda config: mirrored)
    with pytest.raises(UsageError, match=r"^--batch_size=7 is not divisible"):
        run("--batch_size=7")


@pytest.mark.parametrize(
    ("default", "flops_per_image", "multiple", "replicas", "batch_size"),
    [
        (256, 1e3, 1, 1, 32),  # limited by memory
        (48, 1e3, 1, 1, 24),
        (256, 1e3, 2, 2, 64),
        (256, 24.6e9, 1, 1, 16),  # limited by time: 19 images at 200 GFLOP/s
        (256, 1e12, 6, 2, 6),  # nothing fits: the smallest valid batch
        (7, 1e3, 2, 2, 6),
    ],
)
def test_choose_batch_size(default, flops_per_image, multiple, replicas, batch_size):
    chosen = benchmark_setup.choose_batch_size(default, flops_per_image, 200e9, multiple, replicas)
    assert chosen == batch_size


def test_number_of_steps_per_timed_call(monkeypatch):
    now = itertools.count()
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(now) * 0.025)
    calls = []
    timings = throughput.time_calls(calls.append)
    assert calls == [1, 1, 1] + [4] * 20  # a step takes 25 ms, a call should take 100
    assert timings.first_seconds == pytest.approx(0.025)
    assert timings.seconds == pytest.approx([0.025] * 20) and timings.steps == [4] * 20


def test_out_of_memory_is_a_one_line_error():
    def call(steps):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore")

    advice = "give a smaller --batch_size"
    message = rf"^--mode=benchmark: out of memory; {advice} \(OOM when allocating\)$"
    with pytest.raises(UsageError, match=message):
        throughput.time_calls(call)


def test_timings_include_the_work_between_steps(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(net_benchmarks.time, "perf_counter", lambda: now[0])

    def train_step(iterator, steps):
        now[0] += float(steps)
        return {"steps": steps, "applied": steps - (steps == 5), "data_wait": 0.25 * steps}

    call = net_benchmarks._TimedStep(train_step, max_calls=3)
    for steps in (1, 1, 1, 2, 5, 4):
        call(None, steps)
        now[0] += 0.5  # the loop's work between two calls
    with pytest.raises(net_benchmarks._AllCallsTimed):
        call(None, 1)
    timings = call.timings()
    assert (timings.first_seconds, timings.steps) == (1.5, [2, 5, 4])
    assert timings.seconds == [2.5, 5.5, 4.5]
    assert call.compute_data_wait_share(timings) == pytest.approx(0.25 * 11 / 12.5)
    assert call.skipped == 1


def test_missing_steps_are_an_error():
    call = net_benchmarks._TimedStep(lambda *_: {"steps": 2, "applied": 0, "data_wait": 0.0})
    with pytest.raises(UsageError, match="not finite"):
        call(None, 3)


def test_matmul_peak_is_the_best_rate(monkeypatch):
    seconds = {8: 1e-6, 16: 1e-6, 32: 1.0, 64: 1e-9}
    monkeypatch.setattr(matmul_peak, "time_matmul", lambda side, dtype: seconds[side])
    best = matmul_peak.measure("float32", tuple(seconds))
    assert best == {"operations_per_second": 2 * 16**3 / 1e-6, "side": 16}


def test_number_of_classes_without_images():
    for dataset, num_classes in (("ilsvrc2012", 1000), ("mini_imagenet", 100), ("shapes", 10)):
        data = flags.parse(["main.py", f"--dataset={dataset}"]).data
        assert benchmark_setup.count_classes(data) == num_classes
