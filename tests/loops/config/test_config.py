"""Tests of configs: JSON files, and merging with flags on resume and on evaluation."""

import dataclasses
import json
import logging

import pytest

from loops.config import config_json
from loops.config.config import Config, select_flags
from loops.config.config import merge as merge_configs
from loops.config.resolve import resolve as resolve_config
from loops.config.resolve import resolve_training
from loops.config.tools import EvalConfig
from loops.config.training import LengthConfig
from tests.command_line import leaf, parse, refusal, resolve


def warning_messages(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def to_json(config):
    return json.loads(json.dumps(config_json.to_json(config)))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--model=resnetse_34", "--mixed_precision", "--steps=9", "--top_k=1,3", "--crops=1"),
        ("--dataset=lists", "--train_list=a b.txt", "--learning_rate=0.3", "--nolinear_scaling"),
    ],
)
def test_config_json_round_trip(words, caplog):
    config = resolve(*words)
    restored = config_json.from_json(Config, to_json(config), "config.json")
    assert restored == config
    assert warning_messages(caplog) == []


def test_config_fields_missing_in_old_json_get_defaults(caplog):
    config = resolve("--keep=7", "--momentum=0.8")
    data = to_json(config)
    del data["run"]["keep"]
    del data["evaluation"]
    restored = config_json.from_json(Config, data, "OLD/config.json")
    assert restored.run.keep == 3
    assert restored.evaluation == EvalConfig()
    assert restored.optimization == config.optimization
    (message,) = warning_messages(caplog)
    assert "OLD/config.json: no keep, evaluation; using the defaults" in message


def test_unknown_config_fields_in_newer_json_are_ignored(caplog):
    data = to_json(resolve("--momentum=0.8"))
    data["data"]["hue"] = 0.1
    data["teacher"] = {"ckpt": "x"}
    restored = config_json.from_json(Config, data, "NEW/config.json")
    assert restored == resolve("--momentum=0.8")
    (message,) = warning_messages(caplog)
    assert "NEW/config.json" in message and "hue, teacher" in message


MAY_CHANGE_ON_RESUME = select_flags(on_resume=True)
MAY_CHANGE_ON_EVAL = select_flags(on_eval=True)


def merge(saved, *words, may_change=MAY_CHANGE_ON_RESUME, mode="resume"):
    return merge_configs(saved, parse(*words), may_change, mode)


SAVED = ("--model=resnet_18", "--batch_size=40", "--learning_rate=0.3", "--save_every=11")


@pytest.mark.parametrize(
    ("word", "old"),
    [
        ("--model=resnet_34", "resnet_18"),
        ("--batch_size=41", "40"),
        ("--learning_rate=0.1", "0.3"),
        ("--mixed_precision", "False"),
        ("--image_size=128", "64"),
        ("--seed=1", "0"),
        ("--dataset=folder", "shapes"),
        ("--augment=none", "standard"),
    ],
)
def test_conflicting_flag_on_resume_is_refused(word, old):
    message = refusal(merge, resolve(*SAVED), word)
    name, _, new = word.partition("=")
    assert name in message
    assert (new or "True") in message and old in message
    assert "resume" in message


@pytest.mark.parametrize(
    "word", ["--model=resnet_18", "--batch_size=40", "--learning_rate=0.3", "--image_size=64"]
)
def test_equal_flag_on_resume_is_accepted(word):
    saved = resolve(*SAVED)
    assert merge(saved, word) == saved


def test_untyped_flags_keep_values_of_run_on_resume():
    saved = resolve(*SAVED, "--nonesterov", "--keep=9", "--steps=3")
    assert merge(saved) == saved


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("--save_every=2epochs", "2epochs"),
        ("--eval_every=5", "5"),
        ("--log_every=5", "5"),
        ("--keep=9", 9),
        ("--checkpoint_dir=/elsewhere", "/elsewhere"),
        ("--data_dir=/elsewhere", "/elsewhere"),
        ("--reader_threads=2", 2),
        ("--strategy=one", "one"),
        ("--cpu_devices=2", 2),
    ],
)
def test_flags_that_may_change_on_resume(word, value):
    merged = merge(resolve(*SAVED), word)
    assert leaf(merged, word[2:].split("=")[0]) == value
    assert merged.net.model == "resnet_18"
    assert merged.optimization.learning_rate == 0.3


def test_flags_that_may_change_only_on_eval():
    saved = resolve(*SAVED)
    words = ("--ckpt=x", "--split=test", "--image_size=96", "--crops=1", "--eval_batch_size=7")
    merged = merge(saved, *words, may_change=MAY_CHANGE_ON_EVAL, mode="evaluate")
    assert merged.data == dataclasses.replace(saved.data, image_size=96)
    assert merged.evaluation == dataclasses.replace(
        saved.evaluation, ckpt="x", split="test", crops=1, eval_batch_size=7
    )
    message = refusal(
        lambda: merge(saved, "--model=resnet_34", may_change=MAY_CHANGE_ON_EVAL, mode="evaluate")
    )
    assert "--model=resnet_34" in message and "resnet_18" in message and "evaluate" in message
    assert "--split=test" in refusal(merge, saved, "--split=test")


@pytest.mark.parametrize("saved", ["--epochs=4", "--steps=400", "--examples=9000"])
@pytest.mark.parametrize("new", ["--epochs=5", "--steps=500", "--examples=9500"])
def test_new_length_flag_replaces_saved_length(saved, new):
    length = merge(resolve(*SAVED, saved), new).length
    name, _, value = new[2:].partition("=")
    assert getattr(length, name) == float(value)
    others = {"epochs", "steps", "examples"} - {name}
    assert [getattr(length, other) for other in others] == [None, None]


def test_new_length_flag_replaces_epochs_of_dataset():
    saved = resolve(*SAVED)
    assert saved.length.epochs is not None
    assert merge(saved, "--steps=6").length == LengthConfig(steps=6)


def test_two_new_length_flags_are_refused():
    merged = merge(resolve(*SAVED), "--steps=6", "--examples=7")
    assert "--steps" in refusal(resolve_config, merged)


@pytest.mark.parametrize(
    ("words", "is_told"),
    [
        (["--model=resnet_50"], True),
        (["--dataset=shapes"], False),
        (["--data_dir={folder}"], False),
    ],
)
def test_training_on_the_toy_set_unasked_is_told(tiny_folder, caplog, words, is_told):
    """A resumed run is on the data that it began with."""
    config = parse("--mode=train", *(word.format(folder=tiny_folder) for word in words))
    resolved = resolve_training(config)
    told = [m for m in warning_messages(caplog) if "toy set shapes" in m and "--data_dir" in m]
    assert len(told) == is_told
    resolve_training(parse("--mode=train", "--run_name=x"), saved=resolved)
    assert sum("toy set" in message for message in warning_messages(caplog)) == is_told


def test_config_is_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().mode = "eval"
    with pytest.raises(TypeError):
        LengthConfig(3.0)


@pytest.mark.parametrize(
    ("branch", "name", "value"),
    [
        ("optimization", "momentum", "0.9"),
        ("data", "batch_size", 8.5),
        ("net", "recompute", 1),
        ("data", "augment", None),
        ("length", "seed", True),
    ],
)
def test_config_json_value_of_wrong_type_is_refused(branch, name, value):
    """An edited file would otherwise cause a traceback much later."""
    data = to_json(resolve())
    data[branch][name] = value
    with pytest.raises(ValueError, match=f"^{name} is {value!r}, expected "):
        config_json.from_json(Config, data, "config.json")


def test_integer_in_config_json_is_accepted_as_float():
    data = to_json(resolve("--momentum=0.5"))
    data["length"]["epochs"] = 3
    assert config_json.from_json(Config, data, "config.json").length.epochs == 3


def test_output_file_flag_of_saved_config_is_not_inherited():
    """The folder of the file may no longer exist."""
    saved = resolve("--json=out.json", "--steps=9")
    for words, json_file in (((), ""), (("--json=new.json",), "new.json")):
        config = parse("--steps=12", *words)
        merged = merge_configs(saved, config, MAY_CHANGE_ON_RESUME, "resume")
        assert merged.evaluation.json == json_file and merged.length.steps == 12
