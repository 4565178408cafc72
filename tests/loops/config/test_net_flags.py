"""Flags that depend on the architecture: sizes of AlexNet and ZFNet, options of residual nets."""

import dataclasses

import pytest

import flags
from loops.checkpointing.run_folder import Record
from loops.config import validation
from loops.evaluation import trained_models
from tests.command_line import refusal, resolve


@pytest.mark.parametrize("model", ["alexnet", "alexnet_bn", "zfnet", "zfnet_bn"])
def test_dense_layers_are_for_the_size_of_the_run(model):
    assert resolve(f"--model={model}").net.input_size == 64  # of the built-in set
    config = resolve(f"--model={model}", "--image_size=96")
    assert config.net.input_size == 96
    assert resolve("--model=resnet_18", "--image_size=96").net.input_size == 0
    assert "at least 64" in refusal(resolve, f"--model={model}", "--image_size=63")


def test_evaluation_at_another_size():
    record = Record(resolve("--model=zfnet", "--image_size=96"), ("a", "b"), {})

    def evaluated(*words):
        typed = flags.parse(["main.py", "--mode=eval", "--ckpt=x", *words])
        merged = trained_models.make_evaluation_config(record, typed)
        validation.check(merged)
        return merged

    assert evaluated().data.image_size == 96
    message = refusal(evaluated, "--image_size=128")
    assert message.startswith("--image_size=128: ") and "96 px" in message
    residual = dataclasses.replace(record, config=resolve("--model=resnet_18"))
    record = residual
    assert evaluated("--image_size=128").data.image_size == 128


def test_how_training_got_its_images_is_no_matter_of_an_evaluation():
    """Not even where both would conflict; a cache that is asked for is one."""
    words = ("--data_service=localhost:5050", "--dataset=folder")
    for of_training in (words, ("--cache=ram",)):
        record = Record(resolve(*of_training), ("a", "b"), {})
        for word, cache in (("--crops=1", "none"), ("--cache=ram", "ram")):
            typed = flags.parse(["main.py", "--mode=eval", "--ckpt=x", word])
            data = trained_models.make_evaluation_config(record, typed).data
            assert (data.data_service, data.cache) == ("", cache)


@pytest.mark.parametrize("word", ["--recompute", "--zero_init_residual", "--stochastic_depth=0.1"])
def test_options_of_residual_blocks(word):
    assert resolve("--model=resnetv2_18", word)
    message = refusal(resolve, "--model=zfnet_bn", word)
    assert word.split("=")[0] in message and "no residual blocks" in message


def test_dropout_of_the_net_itself_and_none():
    assert resolve("--model=alexnet").net.dropout is None
    assert resolve("--model=alexnet", "--dropout=0").net.dropout == 0
    assert "(default: the net's own)" in flags.format_help()
