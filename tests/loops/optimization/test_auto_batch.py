"""How a batch is cut to fit into memory."""

import json
import os
import pathlib
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


@pytest.mark.parametrize(
    ("images", "limit", "parts"),
    [
        (128, 20 * GB, 1),  # 1 GB and 0.1 GB an image: 13.8 GB
        (128, 13.8 * GB, 1),
        (128, 13.7 * GB, 2),
        (128, 4.3 * GB, 4),  # 33 images fit, so 32
        (7, 1.5 * GB, 7),  # a prime: one at a time
        (6, 1.35 * GB, 2),
        (128, 1.05 * GB, None),
    ],
)
def test_memory_is_extrapolated(images, limit, parts):
    peaks = [1 * GB + n * GB // 10 for n in (2, 6)]
    assert auto_batch.estimate_micro_batches(images, (2, 6), peaks, limit) == parts


def test_a_net_whose_images_weigh_nothing():
    assert auto_batch.estimate_micro_batches(64, (2, 6), [GB, GB - 5], 2 * GB) == 1


@pytest.mark.parametrize(("largest", "parts"), [(64, 1), (63, 2), (17, 4), (1, 64), (0, None)])
def test_what_runs_is_found_by_trying(largest, parts):
    tried = []

    def trial(size):
        tried.append(size)
        if size > largest:
            raise auto_batch.OutOfMemoryError

    assert auto_batch.try_micro_batches(64, trial) == parts
    assert tried == sorted(tried, reverse=True)


def test_the_choice_goes_into_the_config(monkeypatch, caplog):
    caplog.set_level("INFO", "absl")
    peaks = {2: GB + 20_000_000, 6: GB + 60_000_000}

    def trial(config, size):
        return {"peak_bytes": peaks[size], "replicas": 2, "gpu": False}

    monkeypatch.setattr(auto_batch, "_run_trial", trial)
    monkeypatch.setattr(available_memory, "available_bytes", lambda: 1.13 * GB / 0.8)
    config = resolve.resolve(flags.parse(["x", "--auto_batch", "--batch_size=48"]))
    assert auto_batch.choose_accumulate(config).optimization.accumulate == 2
    assert "--auto_batch: --accumulate=2, micro-batches of 12 images" in caplog.messages


@pytest.mark.parametrize(
    ("most", "words", "parts"),
    [
        (5, [], 6),  # two images run and six do not: the system has ended that trial
        (1, [], 12),
        (0, [], None),
        (1, ["--mixup=0.2"], None),
    ],
)
def test_trials_that_do_not_fit_themselves(monkeypatch, most, words, parts):
    def trial(config, size):
        if size > most:
            raise auto_batch.OutOfMemoryError
        return {"peak_bytes": GB, "replicas": 1, "gpu": False}

    monkeypatch.setattr(auto_batch, "_run_trial", trial)
    config = resolve.resolve(flags.parse(["x", "--auto_batch", "--batch_size=12", *words]))
    if parts:
        assert auto_batch.choose_accumulate(config).optimization.accumulate == parts
    else:
        assert "memory is too small for even " in refusal(auto_batch.choose_accumulate, config)


def test_a_trial_that_the_system_ends_did_not_fit(monkeypatch):
    ended = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: ended)
    with pytest.raises(auto_batch.OutOfMemoryError):
        auto_batch._run_trial(flags.parse(["x"]), 2)


def test_a_gpu_on_which_one_image_fits(monkeypatch):
    def trial(config, size):
        if size > 1:
            raise auto_batch.OutOfMemoryError
        return {"peak_bytes": GB, "replicas": 2, "gpu": True}

    monkeypatch.setattr(auto_batch, "_run_trial", trial)
    config = resolve.resolve(flags.parse(["x", "--auto_batch", "--batch_size=12"]))
    assert auto_batch.choose_accumulate(config).optimization.accumulate == 6


def test_pairs_stay_whole(monkeypatch):
    """12 images in 4 runs of 3 would fit, but mixing takes pairs."""
    peaks = {2: GB + 20_000_000, 6: GB + 60_000_000}
    monkeypatch.setattr(
        auto_batch, "_run_trial", lambda _, n: {"peak_bytes": peaks[n], "replicas": 1, "gpu": False}
    )
    monkeypatch.setattr(available_memory, "available_bytes", lambda: 1.035 * GB / 0.8)
    for words, parts in (([], 4), (["--mixup=0.2"], 6)):
        config = resolve.resolve(flags.parse(["x", "--auto_batch", "--batch_size=12", *words]))
        assert auto_batch.choose_accumulate(config).optimization.accumulate == parts
    assert auto_batch.estimate_micro_batches(7, (2, 6), [GB, GB], 2 * GB, multiple=2) is None


@pytest.mark.parametrize(
    ("words", "replicas", "said"),
    [
        ("--batch_size=33 --mixup=0.2", 1, "--batch_size=33: --mixup mixes pairs"),
        ("--batch_size=50", 4, "--batch_size=50 is not divisible by the 4 replicas; try 48"),
    ],
)
def test_a_batch_that_cannot_be_trained_on(monkeypatch, words, replicas, said):
    """Not memory is to blame."""
    facts = {"peak_bytes": GB, "replicas": replicas, "gpu": False}
    monkeypatch.setattr(auto_batch, "_run_trial", lambda *_: facts)
    config = resolve.resolve(flags.parse(["x", "--auto_batch", *words.split()]))
    assert refusal(auto_batch.choose_accumulate, config).startswith(said)


def test_a_number_that_was_given(tmp_path):
    words = ["--auto_batch", "--accumulate=4", f"--checkpoint_dir={tmp_path}"]
    said = refusal(train.run, flags.parse(["x", *words]))
    assert said.startswith("--accumulate=4 with --auto_batch")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--strategy=multi_worker"], []])
def test_several_workers_choose_for_themselves(monkeypatch, words):
    cluster = {"cluster": {"worker": ["localhost:1", "localhost:2"]}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    config = resolve.resolve(flags.parse(["x", "--auto_batch", *words]))
    assert "--auto_batch: not with several workers" in refusal(auto_batch.choose_accumulate, config)


def test_a_trial_runs_where_the_command_does(tmp_path, monkeypatch):
    """Paths of the config may be relative; what a failed trial says comes without its class."""
    monkeypatch.chdir(tmp_path)
    seen = {}

    def run(command, **settings):
        seen.update(settings, cwd=settings.get("cwd", os.getcwd()))
        return subprocess.CompletedProcess(command, 1, "", "x.UsageError: d: no such folder")

    monkeypatch.setattr(auto_batch.subprocess, "run", run)
    config = resolve.resolve(flags.parse(["x", "--auto_batch"]))
    said = refusal(auto_batch.choose_accumulate, config)
    assert said == "--auto_batch: a trial with 2 images failed: d: no such folder"
    assert seen["cwd"] == str(tmp_path)
    root = pathlib.Path(auto_batch.__file__).parents[2]
    assert str(root) in seen["env"]["PYTHONPATH"].split(os.pathsep)


@pytest.mark.usefixtures("tiny_net")
@pytest.mark.parametrize("more", [[], ["--mixup=0.2", "--image_size_schedule=0:32,1:48"]])
def test_what_a_trial_measures(tiny_folder, more):
    words = ["x", "--dataset=folder", f"--data_dir={tiny_folder}", "--strategy=one", *more]
    config = resolve.resolve(flags.parse([*words, "--model=resnetv2_18", "--image_size=32"]))
    found = auto_batch_trial.measure(config, 2)
    assert found["peak_bytes"] > 1e8 and (found["replicas"], found["gpu"]) == (1, False)


@pytest.mark.faults
def test_a_real_trial(tiny_folder):
    """One step of a real net, in a process of its own, at two sizes: more images, more memory."""
    words = ["x", "--auto_batch", "--dataset=folder", f"--data_dir={tiny_folder}"]
    words += ["--model=resnet_18", "--image_size=96", "--strategy=one"]
    config = resolve.resolve(flags.parse(words))
    small, large = (auto_batch._run_trial(config, size)["peak_bytes"] for size in (2, 24))
    assert 0.2 * GB < small < large < 4 * GB
