"""What workers must have in common, and what may differ."""

import shutil
import types

import pytest
import tensorflow as tf

from input_pipeline.sources import source
from loops import worker_agreement
from loops.checkpointing import run_folder
from loops.config.config import Config
from loops.distribution.rendezvous import describe_differences
from tests.command_line import parse, resolve


def differences(one, two):
    return describe_differences({0: one, 1: two})


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("--learning_rate=2", "--learning_rate is not set on worker 0, 2.0 on worker 1"),
        ("--seed=1", "--seed is 0 on worker 0, 1 on worker 1"),
        ("--eval_every=3", "--eval_every is 1epochs on worker 0, 3 on worker 1"),
        ("--checkpoint_dir=/elsewhere", ""),
        ("--data_dir=/elsewhere", ""),
        ("--reader_threads=3", ""),
        ("--strategy=multi_worker", ""),
    ],
)
def test_flags(word, shown):
    one, two = (worker_agreement.describe_start(parse(*words)) for words in ((), (word,)))
    message = differences(one, two)
    assert shown in message and bool(shown) == bool(message)


def test_recipes(tmp_path):
    for name, rate in (("a", 0.1), ("b", 0.1), ("c", 0.2)):
        (tmp_path / f"{name}.txt").write_text(f"--learning_rate={rate}\n")
    one, same, other = (parse(f"--recipe={tmp_path}/{name}.txt") for name in "abc")
    assert differences(*map(worker_agreement.describe_start, (one, other))) == ""
    assert differences(*map(worker_agreement.describe_recipe, (one, same))) == ""
    message = differences(*map(worker_agreement.describe_recipe, (one, other)))
    assert "what --recipe sets is --learning_rate=0.1 on worker 0, --learning_rate=0.2" in message


def test_flags_that_may_differ_exist():
    assert not worker_agreement.MAY_DIFFER.keys() - Config().leaves().keys()


def test_code_packages_and_environment(monkeypatch, tmp_path):
    start = worker_agreement.describe_start(Config())
    for name in ("TF_CONFIG", "TF_CPP_MIN_LOG_LEVEL", "CUDA_VISIBLE_DEVICES", "HOSTNAME"):
        monkeypatch.setenv(name, "7")
    assert differences(start, worker_agreement.describe_start(Config())) == ""
    monkeypatch.setenv("XLA_FLAGS", "--a")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "7")
    versions = {**run_folder.get_package_versions(), "tensorflow-cpu": "2.0", "python": "3.9.1"}
    monkeypatch.setattr(run_folder, "get_package_versions", lambda: versions)
    for name in worker_agreement._CODE:
        path = worker_agreement._ROOT / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / name)
    monkeypatch.setattr(worker_agreement, "_ROOT", tmp_path)
    same_code = worker_agreement.describe_start(Config())
    (tmp_path / "nets/resnet.py").write_text("")
    message = differences(start, worker_agreement.describe_start(Config()))
    for name in ("XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS", "the version of python", "tensorflow-cpu"):
        assert f"{name} is " in message
    assert "the code (SHA-256)" in message
    assert "the code (SHA-256)" not in differences(start, same_code)


def test_images(tiny_folder, tmp_path):
    def describe(root, *words):
        config = resolve("--dataset=folder", f"--data_dir={root}", *words)
        return worker_agreement.describe_images(
            config, train=source.open_split(config.data, "train"), val=None
        )

    original, copy = describe(tiny_folder), tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    assert differences(original, describe(copy)) == ""
    assert differences(original, describe(copy, "--cache=pixels")) == ""
    first, second = sorted((copy / "train/disc").iterdir())[:2]
    first.write_bytes(second.read_bytes())  # the same names, another image
    message = differences(original, describe(copy))
    assert "the content of train images" in message and "the list of" not in message
    first.rename(copy / "train/disc/zz.jpg")  # another name, and so another order
    assert "the list of train images" in differences(original, describe(copy))


def test_state():
    def describe(*values):
        variables = {"model": {"w": tf.Variable(values)}}
        state = types.SimpleNamespace(
            variables=lambda: variables, step=tf.Variable(3), compute_dtype="float32"
        )
        return worker_agreement.describe_state(state)

    assert differences(describe(1.0, 2.0), describe(1.0, 2.0)) == ""
    assert "the state from --init_from" in differences(describe(1.0, 2.0), describe(2.0, 1.0))
