"""Tests of recipes: the values that they set. Typed flags take precedence."""

import json
import logging

import pytest

import flags
from input_pipeline import user_code
from loops.config import config_json, recipes, resolve
from loops.config.config import Config, all_flags
from tests.command_line import refusal


def apply(*words):
    config = flags.parse(["main.py", "--dataset=ilsvrc2012", *words])
    return resolve.resolve(resolve.apply_recipe(config))


def read(name):
    return recipes.read(str(name), all_flags())


@pytest.mark.parametrize("name", recipes.names())
def test_recipe_sets_and_logs_every_value(name, caplog):
    caplog.set_level(logging.INFO, "absl")
    config = apply(f"--recipe={name}")
    leaves = config.leaves()
    assert {field: leaves[field] for field in read(name)} == read(name)
    assert bool(read(name)) == (name != "none")
    logged = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    flags_of_recipe = " ".join(f"--{field}={value}" for field, value in read(name).items())
    assert logged == ([f"--recipe={name} sets {flags_of_recipe}"] if name != "none" else [])


def test_typed_flags_override_recipe(caplog):
    caplog.set_level(logging.INFO, "absl")
    config = apply("--recipe=rsb_a3", "--steps=7", "--weight_decay=0.3", "--optimizer=sgd")
    assert (config.length.steps, config.length.epochs) == (7, None)
    assert config.optimization.weight_decay == 0.3
    assert config.optimization.optimizer == "sgd"
    assert config.optimization.loss == "bce"
    assert "--recipe=rsb_a3: the typed --weight_decay=0.3 is kept" in caplog.messages


def test_recipe_values_for_other_optimizer_are_ignored(caplog):
    caplog.set_level(logging.INFO, "absl")
    mixed = apply("--recipe=short", "--optimizer=adamw", "--weight_decay=0.05").optimization
    alone = apply("--optimizer=adamw").optimization
    assert mixed.learning_rate == alone.learning_rate == 5e-4
    assert (mixed.weight_decay, mixed.clip_norm, mixed.ema) == (0.05, 1.0, 0.99)
    ignored = "--learning_rate, --momentum, --nesterov left out, because of --optimizer=adamw"
    assert f"--recipe=short: {ignored}" in caplog.messages
    same = apply("--recipe=short", "--optimizer=muon").optimization
    assert same == apply("--recipe=short").optimization


def test_config_without_recipe_is_unchanged():
    config = flags.parse(["main.py"])
    assert resolve.apply_recipe(config) == config


def test_recipe_learning_rates_equal_published_values():
    """Each source publishes the learning rate for its own batch size."""
    from loops.optimization import lr_schedules

    sources = {"cosine50": (128, 0.05), "step90": (256, 0.1), "nvidia90": (2048, 2.048)}
    sources |= {"tv1": (256, 0.1)}
    sources |= {"rsb_a3": (2048, 8e-3), "ffcv16": (4096, 1.7)}
    sources |= {"rsb_a2": (2048, 5e-3), "tv2": (1024, 0.5)}
    assert {*sources, "none", "short", "finetune"} == {*recipes.names()}
    for name, (batch, rate) in sources.items():
        optimization = apply(f"--recipe={name}").optimization
        assert lr_schedules.scale_by_batch_size(
            optimization.learning_rate, optimization, batch
        ) == (pytest.approx(rate))


def test_recipe_skips_residual_flags_for_other_nets():
    config = apply("--recipe=short", "--model=alexnet")
    assert not config.net.zero_init_residual
    assert config.optimization.clip_norm == read("short")["clip_norm"]
    assert apply("--recipe=short").net.zero_init_residual


@pytest.mark.parametrize("name", ["rsb_a3", "ffcv16"])
def test_a_typed_image_size_is_also_that_of_training(name, caplog):
    caplog.set_level(logging.INFO, "absl")
    data = apply(f"--recipe={name}", "--image_size=64").data
    assert (data.image_size, data.image_size_schedule) == (64, "")
    schedule = read(name)["image_size_schedule"]
    reason = f"--image_size_schedule={schedule} left out, because of --image_size=64"
    assert f"--recipe={name}: {reason}" in caplog.messages
    typed = apply(f"--recipe={name}", "--image_size=64", "--image_size_schedule=0:32").data
    assert (typed.image_size, typed.image_size_schedule) == (64, "0:32")


FILE = """# My recipe.
// Another comment.

--learning_rate=0.3
  --nonesterov
--zero_init_residual
-mixed_precision=TRUE
--augment=standard,randaugment(1,5)
--clip_norm=1
"""
FILE_VALUES = {
    "learning_rate": 0.3,
    "nesterov": False,
    "zero_init_residual": True,
    "mixed_precision": True,
    "augment": "standard,randaugment(1,5)",
    "clip_norm": 1.0,
}


def test_a_recipe_is_a_file_in_the_form_of_a_flagfile(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(FILE, encoding="utf-8-sig")  # as Windows editors write it
    assert read(path) == FILE_VALUES
    by_recipe = apply(f"--recipe={path}", "--clip_norm=2")
    by_flags = apply(f"--flagfile={path}", "--clip_norm=2")
    assert by_recipe.optimization.clip_norm == 2
    assert by_recipe.replace(recipe="none") == by_flags


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rate=1", "'learning_rate=1' is not a flag: write --name=value"),
        ("--learnin_rate=1", "there is no flag --learnin_rate; did you mean --learning_rate?"),
        ("--ckpt=a", "a recipe cannot set --ckpt, only how to train"),
        ("--json=/etc/x", "a recipe cannot set --json"),
        ("--data_dir=a", "a recipe cannot set --data_dir"),
        ("--recipe=short", "a recipe cannot set --recipe"),
        ("--mode=eval", "a recipe cannot set --mode"),
        ("--seed=2", "a recipe cannot set --seed"),
        ("--init_from=x", "a recipe cannot set --init_from"),
        ("--batch_size=many", "--batch_size=many: must be a whole number"),
        ("--batch_size", "--batch_size has no value: write --batch_size=value"),
        ("--nesterov=perhaps", "--nesterov=perhaps: must be true or false"),
        ("--momentum=2", "--momentum=2.0: must be at least 0 and at most 1"),
        ("--optimizer=sdg", "--optimizer=sdg: unknown value; did you mean sgd"),
        ("--augment=erasing(7)", "--augment=erasing(7): erasing: probability=7: must be"),
        ("--epochs=1", "--epochs is set twice"),
    ],
)
def test_errors_in_a_recipe_name_the_line(tmp_path, line, message):
    path = tmp_path / "mine.txt"
    path.write_text(f"# mine\n--epochs=2\n\n{line}\n")
    assert refusal(read, path).startswith(f"--recipe={path}, line 4: {message}")


def test_unreadable_recipes(tmp_path):
    message = "there is no such file or folder"
    assert refusal(read, "./nowhere.txt") == f"--recipe=./nowhere.txt: {message}"
    assert "it has no config.json" in refusal(read, tmp_path)
    (tmp_path / "config.json").write_text('{"config": {"optimization": {"momentum": "x"}}}')
    assert "is not the record of a run" in refusal(read, tmp_path)
    (tmp_path / "config.json").write_text('{"config": {"optimization": {"momentum": 7}}}')
    assert "--momentum=7.0: must be at least 0" in refusal(read, tmp_path)
    assert "did you mean rsb_a3" in refusal(flags.parse, ["main.py", "--recipe=rsb_a4"])


RUN_WORDS = ["--recipe=rsb_a3", "--model=resnet_18", "--steps=9", "--seed=3", "--data_dir=here"]


def test_a_run_is_a_recipe(tmp_path):
    """A new run has the flags of the old one, but neither its seed nor its paths."""
    old = apply(*RUN_WORDS)
    (tmp_path / "config.json").write_text(json.dumps({"config": config_json.to_json(old)}))
    new = apply(f"--recipe={tmp_path}")
    assert new.replace(recipe="rsb_a3", seed=3, data_dir="here") == old
    typed = apply(f"--recipe={tmp_path}", "--epochs=2", "--model=resnet_34", "--mixup=0.5")
    assert (typed.length.steps, typed.length.epochs) == (None, 2)
    assert (typed.net.model, typed.data.mixup) == ("resnet_34", 0.5)


def test_the_printed_recipe_of_a_run_gives_its_flags(tmp_path):
    old = apply(*RUN_WORDS, "--nonesterov", "--zero_init_residual")
    lines = list(recipes.format_lines(old.leaves(), all_flags()))
    assert {"--nonesterov", "--zero_init_residual", "--model=resnet_18"} <= {*lines}
    (tmp_path / "mine.txt").write_text("\n".join(lines))
    new = apply(f"--recipe={tmp_path}/mine.txt")
    assert new.replace(recipe="rsb_a3", seed=3, data_dir="here") == old
    assert list(recipes.format_lines(Config().leaves(), all_flags())) == []


def test_typed_augmentations_and_flags_override_those_of_a_recipe(tmp_path, caplog):
    caplog.set_level(logging.INFO, "absl")
    config = apply("--recipe=rsb_a3", "--augment=standard,mixup(0.7)")
    assert (config.data.mixup, config.data.cutmix) == (0, 1)
    reason = "--mixup=0.1 left out, because of mixup in --augment=standard,mixup(0.7)"
    assert f"--recipe=rsb_a3: {reason}" in caplog.messages
    (tmp_path / "mine.txt").write_text("--augment=standard,mixup(0.7),crop(0.3,0.9)")
    config = apply(f"--recipe={tmp_path}/mine.txt", "--mixup=0.1")
    assert (config.data.mixup, config.data.augment) == (
        0.1,
        "standard,crop(min_area=0.3,max_area=0.9)",
    )


def test_recipes_may_set_what_affects_training_only():
    for flag in all_flags().values():
        if flag.in_recipe:
            assert "train" in flag.modes and flag.affects_training, flag.name
            assert not (flag.is_path or flag.is_path_list or flag.is_output_file), flag.name


def test_average_and_test_size_of_tv2_are_the_published_ones():
    """Decay 0.99998 every 32 steps, rescaled by batch and epochs; crops of 224 from 232 px."""
    config = apply("--recipe=tv2")
    adjusted = 1 - (1 - 0.99998) * 1024 * 32 / 600
    assert config.optimization.ema == pytest.approx(adjusted ** (1 / 32), abs=1e-7)
    assert round(224 / config.data.crop_fraction) == 232


def test_flags_without_effect_are_refused():
    words = ("--milestones=3,5", "--mixup_off_epoch=2", "--beta1=0.8", "--epsilon=0.5")
    for word in words:
        assert refusal(apply, word).startswith(f"{word}: ")
    assert "ascending" in refusal(apply, "--schedule=step", "--milestones=5,3")
    config = apply("--schedule=step", "--cutmix=1", "--optimizer=lamb", *words)
    assert config.optimization.beta1 == 0.8


def test_a_recipe_file_cannot_name_code_but_a_run_has_its_copy(tmp_path):
    (tmp_path / "net.py").write_text("raise SystemExit('is never executed')\n")
    (tmp_path / "mine.txt").write_text(f"--model={tmp_path}/net.py:make\n")
    assert "line 1: a recipe cannot name code" in refusal(read, tmp_path / "mine.txt")
    config = flags.parse(["main.py", f"--model={tmp_path}/net.py:make"])
    lines = list(recipes.format_lines(config.leaves(), all_flags()))
    assert lines == ["# Give --model=net.py:make on the command line."]
    leaves = config.leaves().values()
    record = {"config": config_json.to_json(config), "code": user_code.list_files(leaves)}
    (tmp_path / "config.json").write_text(json.dumps(record))
    user_code.save_copies(tmp_path, leaves)
    assert read(tmp_path) == {"model": config.net.model}
    (tmp_path / "code" / "net.py").write_text("changed = True\n")
    assert "was changed" in refusal(read, tmp_path)
