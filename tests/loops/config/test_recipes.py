"""Tests of recipes: the values that they set. Typed flags take precedence."""

import json
import logging

import pytest

import flags
from benchmarks.accuracy_page import records, tables
from loops.config import recipes, resolve


def apply(*words):
    config = flags.parse(["main.py", "--dataset=ilsvrc2012", *words])
    return resolve.resolve(resolve.apply_recipe(config))


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipe_sets_and_logs_every_value(name, caplog):
    caplog.set_level(logging.INFO, "absl")
    config = apply(f"--recipe={name}")
    leaves = config.leaves()
    assert {field: leaves[field] for field in recipes.RECIPES[name]} == recipes.RECIPES[name]
    logged = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    for field, value in recipes.RECIPES[name].items():
        assert f"--recipe={name}: --{field}={value}" in logged


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
    same = apply("--recipe=short", "--optimizer=sgd").optimization
    assert same == apply("--recipe=short").optimization


def test_config_without_recipe_is_unchanged():
    config = flags.parse(["main.py"])
    assert resolve.apply_recipe(config) == config


def test_recipe_learning_rates_equal_published_values():
    """Each source publishes the learning rate for its own batch size."""
    from loops.optimization import lr_schedules

    sources = {"cosine50": (128, 0.05), "step90": (256, 0.1), "nvidia90": (2048, 2.048)}
    sources |= {"rsb_a3": (2048, 8e-3), "ffcv16": (4096, 1.7)}
    assert {*sources, "none", "short"} == recipes.RECIPES.keys()
    for name, (batch, rate) in sources.items():
        optimization = apply(f"--recipe={name}").optimization
        assert lr_schedules.scale_by_batch_size(
            optimization.learning_rate, optimization, batch
        ) == (pytest.approx(rate))


def test_recipe_skips_residual_flags_for_other_nets():
    config = apply("--recipe=short", "--model=alexnet")
    assert not config.net.zero_init_residual
    assert config.optimization.clip_norm == recipes.RECIPES["short"]["clip_norm"]
    assert apply("--recipe=short").net.zero_init_residual


def test_recipe_short_is_the_best_trial():
    """RESULTS.md lists the trials. The recipe has the flags of the best one."""
    (table,) = (table for table in tables.TABLES if table.key == "short")
    errors = {}
    for row in table.rows:
        record = json.loads((records.DEFAULT_FOLDER / f"{row.name}.json").read_text())
        if row.name != "nette-clipped-alexnet":  # another net and a longer training
            errors[row] = record["evaluations"]["val-1"]["top1_error"]
    best = min(errors, key=errors.get)
    # The shell replaces the variable.
    best_flags, recipe_flags = (
        [flag.replace("$REAL_IMAGES_DIR", "images") for flag in words]
        for words in (best.flags, (*tables.TRIAL_FLAGS, "--recipe=short"))
    )
    best_config, recipe_config = apply(*best_flags), apply(*recipe_flags)
    assert best_config.replace(recipe="short") == recipe_config


@pytest.mark.parametrize("name", ["rsb_a3", "ffcv16"])
def test_a_typed_image_size_is_also_that_of_training(name, caplog):
    caplog.set_level(logging.INFO, "absl")
    data = apply(f"--recipe={name}", "--image_size=64").data
    assert (data.image_size, data.image_size_schedule) == (64, "")
    schedule = recipes.RECIPES[name]["image_size_schedule"]
    reason = f"--image_size_schedule={schedule} left out, because of --image_size=64"
    assert f"--recipe={name}: {reason}" in caplog.messages
    typed = apply(f"--recipe={name}", "--image_size=64", "--image_size_schedule=0:32").data
    assert (typed.image_size, typed.image_size_schedule) == (64, "0:32")
