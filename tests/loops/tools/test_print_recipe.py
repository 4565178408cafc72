"""`--mode=recipe` prints a file that starts a run like an old one."""

import pytest

import flags
from loops.checkpointing import run_folder
from loops.config import resolve
from loops.tools import print_recipe
from tests.command_line import parse, refusal


def test_printed_lines_are_a_recipe(tmp_path, capsys):
    words = ["main.py", "--recipe=short", "--model=resnet_18", "--learning_rate=0.25"]
    config = resolve.resolve(resolve.apply_recipe(flags.parse(words)))
    run_folder.write_record(tmp_path, run_folder.Record(config, ("a", "b"), {}))
    print_recipe.run(parse("--mode=recipe", f"--ckpt={tmp_path}"))
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == f"# How {tmp_path} was trained: resnet_18 on shapes."
    assert {"--learning_rate=0.25", "--ema=0.99", "--batch_size=64"} <= {*printed.splitlines()}
    (tmp_path / "like.txt").write_text(printed)
    again = flags.parse(["main.py", f"--recipe={tmp_path}/like.txt"])
    assert resolve.resolve(resolve.apply_recipe(again)).replace(recipe="short") == config


@pytest.mark.parametrize("form", ["", "/best", "/step-00000007", "/best/"])
def test_any_form_of_ckpt_names_the_run(tmp_path, capsys, form):
    """A run needs no checkpoint to be printed."""
    config = resolve.resolve(flags.parse(["main.py", "--model=resnet_18"]))
    run_folder.write_record(tmp_path, run_folder.Record(config, ("a", "b"), {}))
    print_recipe.run(parse("--mode=recipe", f"--ckpt={tmp_path}{form}"))
    assert "--model=resnet_18" in capsys.readouterr().out


def test_a_run_folder_is_needed(tmp_path):
    message = refusal(print_recipe.run, parse("--mode=recipe", f"--ckpt={tmp_path}"))
    assert "is not a run folder" in message
