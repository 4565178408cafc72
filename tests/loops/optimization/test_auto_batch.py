"""`--auto_batch`: the number of micro-batches that fits into memory."""

import json
import os
import pathlib
import signal
import subprocess

import pytest

import flags
from input_pipeline.system import available_memory
from loops import train
from loops.config import resolve
from loops.optimization import auto_batch
from loops.tools import auto_batch_trial
from tests.command_line import refusal

GB = 10**9


def parse(*words):
    return resolve.resolve(flags.parse(["x", "--auto_batch", *words]))


def fake_trials(monkeypatch, peaks, replicas=1, gpu=False):
    """Replaces the processes of the trials.

    Args:
      monkeypatch: of the test.
      peaks: peak memory in bytes by micro-batch size. Other sizes run out of memory.
      replicas, gpu: see `auto_batch.run_trial`.
    """

    def run(command, **_):
        size = int(command[-1])
        if size not in peaks:
            return subprocess.CompletedProcess(command, -signal.SIGKILL, "", "")
        result = {"peak_bytes": peaks[size], "replicas": replicas, "gpu": gpu}
        return subprocess.CompletedProcess(command, 0, f"{json.dumps(result)}\n", "")

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.parametrize(
    ("images", "limit", "micro_batches"),
    [
        (128, 20 * GB, 1),  # 1 GB and 0.1 GB per image: 13.8 GB
        (128, 13.8 * GB, 1),
        (128, 13.7 * GB, 2),
        (128, 4.3 * GB, 4),  # 33 images fit, so 32
        (7, 1.5 * GB, 7),  # a prime number: one image at a time
        (6, 1.35 * GB, 2),
        (128, 1.05 * GB, None),
    ],
)
def test_memory_is_extrapolated_linearly(images, limit, micro_batches):
    peaks = [1 * GB + n * GB // 10 for n in (2, 6)]
    assert auto_batch.estimate_micro_batches(images, (2, 6), peaks, limit) == micro_batches


def test_memory_independent_of_batch_size():
    assert auto_batch.estimate_micro_batches(64, (2, 6), [GB, GB - 5], 2 * GB) == 1


@pytest.mark.parametrize(
    ("largest", "micro_batches"), [(64, 1), (63, 2), (17, 4), (1, 64), (0, None)]
)
def test_micro_batches_are_tried_from_large_to_small(largest, micro_batches):
    tried = []

    def trial(size):
        tried.append(size)
        if size > largest:
            raise auto_batch.OutOfMemoryError

    assert auto_batch.try_micro_batches(64, trial) == micro_batches
    assert tried == sorted(tried, reverse=True)


def test_choice_is_set_in_the_config_and_logged(monkeypatch, caplog):
    caplog.set_level("INFO", "absl")
    fake_trials(monkeypatch, {2: GB + 20_000_000, 6: GB + 60_000_000}, replicas=2)
    monkeypatch.setattr(available_memory, "available_bytes", lambda: 1.13 * GB / 0.8)
    config = parse("--batch_size=48")
    assert auto_batch.choose_accumulate(config).optimization.accumulate == 2
    assert "--auto_batch: --accumulate=2, micro-batches of 12 images" in caplog.messages


@pytest.mark.parametrize(
    ("largest", "words", "micro_batches"),
    [
        (5, [], 6),  # two images fit and six do not: the system killed that trial
        (1, [], 12),
        (0, [], None),
        (1, ["--mixup=0.2"], None),
    ],
)
def test_trials_that_run_out_of_memory(monkeypatch, largest, words, micro_batches):
    fake_trials(monkeypatch, dict.fromkeys(range(1, largest + 1), GB))
    config = parse("--batch_size=12", *words)
    if micro_batches:
        assert auto_batch.choose_accumulate(config).optimization.accumulate == micro_batches
    else:
        assert "memory is too small for even " in refusal(auto_batch.choose_accumulate, config)


def test_killed_trial_is_out_of_memory(monkeypatch):
    killed = subprocess.CompletedProcess([], -signal.SIGKILL, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: killed)
    with pytest.raises(auto_batch.OutOfMemoryError):
        auto_batch.run_trial(flags.parse(["x"]), 2)


def test_gpu_where_one_image_fits(monkeypatch):
    fake_trials(monkeypatch, {1: GB}, replicas=2, gpu=True)
    config = parse("--batch_size=12")
    assert auto_batch.choose_accumulate(config).optimization.accumulate == 6


def test_micro_batches_are_even_with_mixup(monkeypatch):
    """12 images would fit in 4 micro-batches of 3, but mixup needs pairs."""
    fake_trials(monkeypatch, {2: GB + 20_000_000, 6: GB + 60_000_000})
    monkeypatch.setattr(available_memory, "available_bytes", lambda: 1.035 * GB / 0.8)
    for words, micro_batches in (([], 4), (["--mixup=0.2"], 6)):
        config = parse("--batch_size=12", *words)
        assert auto_batch.choose_accumulate(config).optimization.accumulate == micro_batches
    assert auto_batch.estimate_micro_batches(7, (2, 6), [GB, GB], 2 * GB, multiple=2) is None


@pytest.mark.parametrize(
    ("words", "replicas", "message"),
    [
        ("--batch_size=33 --mixup=0.2", 1, "--batch_size=33: mixup mixes pairs"),
        ("--batch_size=50", 4, "--batch_size=50 is not divisible by the 4 replicas; try 48"),
    ],
)
def test_invalid_batch_size_is_not_reported_as_out_of_memory(monkeypatch, words, replicas, message):
    fake_trials(monkeypatch, {2: GB, 6: GB}, replicas=replicas)
    config = parse(*words.split())
    assert refusal(auto_batch.choose_accumulate, config).startswith(message)


def test_conflict_with_accumulate(tmp_path):
    words = ["--auto_batch", "--accumulate=4", f"--checkpoint_dir={tmp_path}"]
    message = refusal(train.run, flags.parse(["x", *words]))
    assert message.startswith("--accumulate=4 with --auto_batch")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--strategy=multi_worker"], []])
def test_several_workers_are_not_supported(monkeypatch, words):
    cluster = {"cluster": {"worker": ["localhost:1", "localhost:2"]}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    config = parse(*words)
    assert "--auto_batch: not with several workers" in refusal(auto_batch.choose_accumulate, config)


def test_trial_runs_in_the_current_folder(tmp_path, monkeypatch):
    """Paths of the config may be relative. The error of a failed trial comes without its class."""
    monkeypatch.chdir(tmp_path)
    seen = {}

    def run(command, **settings):
        seen.update(settings, cwd=settings.get("cwd", os.getcwd()))
        return subprocess.CompletedProcess(command, 1, "", "x.UsageError: d: no such folder")

    monkeypatch.setattr(subprocess, "run", run)
    message = refusal(auto_batch.choose_accumulate, parse())
    assert message == "--auto_batch: a trial with 2 images failed: d: no such folder"
    assert seen["cwd"] == str(tmp_path)
    root = pathlib.Path(auto_batch.__file__).parents[2]
    assert str(root) in seen["env"]["PYTHONPATH"].split(os.pathsep)


@pytest.mark.usefixtures("tiny_net")
@pytest.mark.parametrize("more", [[], ["--mixup=0.2", "--image_size_schedule=0:32,1:48"]])
def test_trial_measures_memory(tiny_folder, more):
    words = ["x", "--dataset=folder", f"--data_dir={tiny_folder}", "--strategy=one", *more]
    config = resolve.resolve(flags.parse([*words, "--model=resnetv2_18", "--image_size=32"]))
    result = auto_batch_trial.measure(config, 2)
    assert result["peak_bytes"] > 1e8 and (result["replicas"], result["gpu"]) == (1, False)


@pytest.mark.faults
def test_memory_of_a_real_trial_grows_with_images(tiny_folder):
    """A real net in a separate process, at two micro-batch sizes."""
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", "--model=resnet_18"]
    config = parse(*words, "--image_size=96", "--strategy=one")
    small, large = (auto_batch.run_trial(config, size)["peak_bytes"] for size in (2, 24))
    assert 0.2 * GB < small < large < 4 * GB


def test_trial_starts_in_a_folder_with_modules_of_the_same_names(tmp_path, monkeypatch):
    for name in ("loops", "nets"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('foreign')")
    monkeypatch.chdir(tmp_path)
    config = parse("--dataset=folder", "--data_dir=nowhere")
    message = refusal(auto_batch.run_trial, config, 2)
    assert "nowhere" in message, message
