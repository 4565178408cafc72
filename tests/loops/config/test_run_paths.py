"""What `--ckpt` and `--init_from` answer if there is no such run."""

import os

import pytest

from input_pipeline.errors import UsageError
from loops.config import mode_flags, run_paths
from tests.command_line import parse, refusal


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs below `checkpoints` in the current folder; `second` is newer."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("first", "second")):
        record = tmp_path / "checkpoints" / name / "config.json"
        record.parent.mkdir(parents=True)
        record.write_text("{}")
        os.utime(record, (number, number))
    (tmp_path / "elsewhere").mkdir()
    for name in ("x.pth", "notes.txt"):
        (tmp_path / name).touch()


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("first", "there is no such folder; did you mean --ckpt=checkpoints/first?"),
        ("first/best", "there is no such folder; did you mean --ckpt=checkpoints/first/best?"),
        ("frist", "there is no such folder; did you mean --ckpt=checkpoints/first?"),
        ("checkpoints/secnod", "there is no such folder; did you mean --ckpt=checkpoints/second?"),
        (
            "qqqq",
            "there is no such folder; published weights are named as in timm/resnet50.a1_in1k",
        ),
        (
            "resnet50.tv_in1k",
            "there is no such folder; did you mean --ckpt=timm/resnet50.tv_in1k?",
        ),
        ("x.pth", "is a file; import it with --mode=import --weights=x.pth"),
        ("notes.txt", "is a file; name the run folder"),
        (
            "checkpoints",
            "contains runs but is not one; name one: checkpoints/second, checkpoints/first",
        ),
    ],
)
def test_answer_is_what_to_type(runs, typed, answer):
    message = refusal(mode_flags.check_inputs, parse("--mode=eval", f"--ckpt={typed}"))
    assert message == f"--ckpt={typed}: {answer}"
    assert refusal(run_paths.require_folder, typed, "--init_from").startswith("--init_from=")


@pytest.mark.parametrize("typed", ["checkpoints/first", "checkpoints/first/best", "elsewhere"])
def test_folders_are_left_to_the_mode(runs, typed):
    mode_flags.check_inputs(parse("--mode=eval", f"--ckpt={typed},timm/resnet50.a1_in1k"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--mode=eval", "--ckpt is missing: name a run folder, as in --ckpt=checkpoints/RUN"),
        ("--mode=recipe", "--ckpt is missing: name a run"),
        ("--mode=repro", "--ckpt is missing: name a run"),
        ("--mode=predict --ckpt=elsewhere", "--image is missing: name files"),
        ("--mode=predict --ckpt=elsewhere --image=no.jpg", "--image=no.jpg: there is no such file"),
        ("--mode=import", "--weights is missing: name a repository"),
        ("--mode=prepare --dataset=folder --data_dir=elsewhere", "--out is missing"),
        ("--mode=preview", "--report is missing"),
        ("--mode=train --init_from=first", "--init_from=first: there is no such folder; did you"),
        ("--dataset=folder", "--dataset=folder needs --data_dir, the folder of its images"),
        ("--mode=verify --dataset=ilsvrc2012", "--dataset=ilsvrc2012 needs --data_dir"),
        ("--dataset=folder --data_dir=no", "--data_dir=no: there is no such folder"),
        ("--data_dir=no", "--data_dir=no: there is no such folder"),
        (
            "--run_name=frist",
            "--run_name=frist: there is no such run in checkpoints; did you mean"
            " --run_name=first; a new one needs --data_dir",
        ),
        (
            "--run_name=q",
            "--run_name=q: there is no such run in checkpoints; a new one needs --data_dir",
        ),
        ("--dataset=folder --run_name=third", "--dataset=folder needs --data_dir"),
    ],
)
def test_what_is_missing_is_said_before_tensorflow_is_loaded(runs, words, message):
    assert refusal(mode_flags.check_inputs, parse(*words.split())).startswith(message)


@pytest.mark.parametrize(
    "words",
    [
        "--mode=eval --logits=a.npz",
        "--mode=eval --watch --ckpt=checkpoints/later",
        "--run_name=first --init_from=checkpoints/removed",
        "--dataset=folder --run_name=first",
        "--mode=train --run_name=first",
        "--model=resnet_18 --run_name=third",
        "--dataset=shapes --data_dir=new",
        "--dataset=lists --train_list=a --val_list=b",
        "--mode=predict --ckpt=elsewhere --image=*.jpg,-",
        "--mode=train",
    ],
)
def test_nothing_is_missing(runs, words):
    try:
        mode_flags.check_inputs(parse(*words.split()))
    except UsageError as error:
        pytest.fail(str(error))
