"""Recipes: what they set, and that what is typed wins."""

import json
import logging

import pytest

import flags
from benchmarks.accuracy_page import records, tables
from loops.config import recipes, resolve


def applied(*words):
    config = flags.parse(["main.py", "--dataset=ilsvrc2012", *words])
    return resolve.resolve(resolve.apply_recipe(config))


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_value_arrives(name, caplog):
    caplog.set_level(logging.INFO, "absl")
    config = applied(f"--recipe={name}")
    found = config.leaves()
    assert {field: found[field] for field in recipes.RECIPES[name]} == recipes.RECIPES[name]
    logged = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    for field, value in recipes.RECIPES[name].items():
        assert f"--recipe={name}: --{field}={value}" in logged


def test_what_is_typed_wins(caplog):
    caplog.set_level(logging.INFO, "absl")
    config = applied("--recipe=rsb_a3", "--steps=7", "--weight_decay=0.3", "--optimizer=sgd")
    assert (config.length.steps, config.length.epochs) == (7, None)
    assert config.optimization.weight_decay == 0.3
    assert config.optimization.optimizer == "sgd"
    assert config.optimization.loss == "bce"
    assert "--recipe=rsb_a3: --weight_decay=0.3 is kept as typed" in caplog.messages


def test_another_optimizer_keeps_its_own_rate_and_decay(caplog):
    caplog.set_level(logging.INFO, "absl")
    found = applied("--recipe=short", "--optimizer=adamw", "--weight_decay=0.05").optimization
    alone = applied("--optimizer=adamw").optimization
    assert found.learning_rate == alone.learning_rate == 5e-4
    assert (found.weight_decay, found.clip_norm, found.ema) == (0.05, 1.0, 0.99)
    left_out = "--learning_rate, --momentum, --nesterov: not for --optimizer=adamw"
    assert f"--recipe=short: {left_out}" in caplog.messages
    same = applied("--recipe=short", "--optimizer=sgd").optimization
    assert same == applied("--recipe=short").optimization


def test_without_a_recipe_nothing_changes():
    config = flags.parse(["main.py"])
    assert resolve.apply_recipe(config) == config


def test_learning_rates_are_those_of_the_sources():
    """At the sources' own batch sizes: 0.05 at 128, 0.1 at 256, 2.048 at 2048, 0.008, 1.7."""
    from loops.optimization import lr_schedules

    sources = {"cosine50": (128, 0.05), "step90": (256, 0.1), "nvidia90": (2048, 2.048)}
    sources |= {"rsb_a3": (2048, 8e-3), "ffcv16": (4096, 1.7)}
    assert {*sources, "none", "short"} == recipes.RECIPES.keys()
    for name, (batch, rate) in sources.items():
        optimization = applied(f"--recipe={name}").optimization
        assert lr_schedules.scale_by_batch_size(
            optimization.learning_rate, optimization, batch
        ) == (pytest.approx(rate))


def test_what_only_residual_blocks_have_is_left_out():
    config = applied("--recipe=short", "--model=alexnet")
    assert not config.net.zero_init_residual
    assert config.optimization.clip_norm == recipes.RECIPES["short"]["clip_norm"]
    assert applied("--recipe=short").net.zero_init_residual


def test_short_is_the_best_of_its_trials():
    """RESULTS.md shows them; the recipe is that very command."""
    (table,) = (table for table in tables.TABLES if table.key == "short")
    errors = {}
    for row in table.rows:
        record = json.loads((records.DEFAULT_FOLDER / f"{row.name}.json").read_text())
        if row.name != "nette-clipped-alexnet":  # another net, longer
            errors[row] = record["evaluations"]["val-1"]["top1_error"]
    best = min(errors, key=errors.get)
    chosen, by_recipe = applied(*best.flags), applied(*tables.TRIAL_FLAGS, "--recipe=short")
    assert chosen.replace(recipe="short") == by_recipe
