"""Tests of flags that depend on the architecture: image size, options of residual nets."""

import dataclasses

import pytest

import flags
from loops.checkpointing.run_folder import Record
from loops.config import validation
from loops.evaluation import trained_models
from tests.command_line import refusal, resolve


@pytest.mark.parametrize("model", ["alexnet", "alexnet_bn", "zfnet", "zfnet_bn"])
def test_image_size_flag_sets_input_size_of_dense_nets(model):
    assert resolve(f"--model={model}").net.input_size == 64  # default of the built-in data set
    config = resolve(f"--model={model}", "--image_size=96")
    assert config.net.input_size == 96
    assert resolve("--model=resnet_18", "--image_size=96").net.input_size == 0
    assert "at least 64" in refusal(resolve, f"--model={model}", "--image_size=63")


def test_image_size_flag_at_evaluation_needs_fully_convolutional_net():
    record = Record(resolve("--model=zfnet", "--image_size=96"), ("a", "b"), {})

    def make_evaluation_config(*words):
        typed = flags.parse(["main.py", "--mode=eval", "--ckpt=x", *words])
        merged = trained_models.make_evaluation_config(record, typed)
        validation.check(merged)
        return merged

    assert make_evaluation_config().data.image_size == 96
    message = refusal(make_evaluation_config, "--image_size=128")
    assert message.startswith("--image_size=128: ") and "96 px" in message
    record = dataclasses.replace(record, config=resolve("--model=resnet_18"))
    assert make_evaluation_config("--image_size=128").data.image_size == 128


def test_data_service_and_cache_flags_of_training_are_not_used_at_evaluation():
    """A `--cache` that is typed for the evaluation is used."""
    data_service = ("--data_service=localhost:5050", "--dataset=folder")
    for words in (data_service, ("--cache=ram",)):
        record = Record(resolve(*words), ("a", "b"), {})
        for word, cache in (("--crops=1", "none"), ("--cache=ram", "ram")):
            typed = flags.parse(["main.py", "--mode=eval", "--ckpt=x", word])
            data = trained_models.make_evaluation_config(record, typed).data
            assert (data.data_service, data.cache) == ("", cache)


@pytest.mark.parametrize("word", ["--recompute", "--zero_init_residual", "--stochastic_depth=0.1"])
def test_residual_flags_are_refused_for_other_nets(word):
    assert resolve("--model=resnetv2_18", word)
    message = refusal(resolve, "--model=zfnet_bn", word)
    assert word.split("=")[0] in message and "no residual blocks" in message


def test_dropout_flag_zero_differs_from_default():
    assert resolve("--model=alexnet").net.dropout is None
    assert resolve("--model=alexnet", "--dropout=0").net.dropout == 0
    assert "(default: 0.5 for AlexNet and ZFNet, else 0)" in " ".join(flags.format_help().split())
