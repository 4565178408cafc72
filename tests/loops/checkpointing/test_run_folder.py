"""A run's folder: its name, its record, its lock, and every form of `--ckpt`."""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest
import tensorflow as tf

from input_pipeline.errors import UsageError
from input_pipeline.system import folder_lock
from loops.checkpointing import checkpoint, run_folder
from loops.config import resolve, validation
from loops.config.config import Config

CONFIG = resolve.resolve(Config())


def config_with(**values):
    return CONFIG.replace(**values)


@contextlib.contextmanager
def refused(*words):
    """The block raises a UsageError of one line that has all the words."""
    with pytest.raises(UsageError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if str(word) not in message] == [], message


def save(run, step, top1=None):
    metrics = {} if top1 is None else {"top1": top1}
    return checkpoint.save(run, step, {"c": {"step": tf.Variable(step)}}, metrics)


def damage(step_dir):
    os.truncate(step_dir / "ckpt.index", 5)


def test_the_name_of_a_run():
    named = run_folder.resolve_run_dir(config_with(checkpoint_dir="out/runs", run_name="first"))
    assert named == pathlib.Path("out/runs/first")
    config = config_with(checkpoint_dir="out", model="resnet_18", dataset="folder")
    unnamed = run_folder.resolve_run_dir(config)
    assert unnamed.parent == pathlib.Path("out")
    assert unnamed.match("resnet_18-folder-[0-9]*-[0-9]*")


@pytest.mark.parametrize("name", ["a/b", "/abs", "..", ".", "a/"])
def test_a_name_that_is_a_path(name):
    with refused(f"--run_name={name}:"):
        run_folder.resolve_run_dir(config_with(run_name=name))


def test_a_name_that_reads_as_a_step():
    """Its folder could never be evaluated: --ckpt would take it for a step of another run."""
    with refused("--run_name=aaaaa", "longer than 200 bytes"):
        run_folder.resolve_run_dir(config_with(run_name="a" * 201))
    with refused("--run_name=\udce9:", "not UTF-8"):  # a byte of Latin-1
        run_folder.resolve_run_dir(config_with(run_name="\udce9"))
    with refused("--checkpoint_dir=d/\udce9:", "not UTF-8"):
        run_folder.resolve_run_dir(config_with(checkpoint_dir="d/\udce9", run_name="a"))
    with refused("--run_name=step-00000010"):
        run_folder.resolve_run_dir(config_with(run_name="step-00000010"))


@pytest.fixture
def record():
    facts = {"train": {"images": 23, "fingerprint": "ab"}}
    return run_folder.Record(CONFIG, ("disc", "grid"), facts)


def test_the_record_survives(tmp_path, record):
    run_folder.write_record(tmp_path, record)
    assert run_folder.read_record(tmp_path) == record
    data = json.loads((tmp_path / "config.json").read_text())
    assert data["config"] == json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    # The CPU build has another name.
    assert {"tensorflow", "tensorflow-cpu"} & set(data["versions"])
    assert {"python", "keras", "numpy"} <= set(data["versions"])
    assert data["argv"] == sys.argv
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_the_record_is_replaced_whole(tmp_path, record, monkeypatch):
    run_folder.write_record(tmp_path, record)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        run_folder.write_record(tmp_path, dataclasses.replace(record, class_names=("x",)))
    assert run_folder.read_record(tmp_path) == record


def test_no_record(tmp_path):
    with refused(tmp_path, "config.json"):
        run_folder.read_record(tmp_path)
    with refused("config.json"):
        run_folder.read_record(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        "{}",
        '{"config": null, "class_names": [], "dataset": {}}',
        '{"config": {"net": 7}, "class_names": [], "dataset": {}}',
        '{"config": {}, "class_names": 7, "dataset": {}}',
        '{"config": {}, "class_names": []}',
        "\udcff\udc80",  # bytes that are no UTF-8
    ],
)
def test_a_broken_record(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with refused(tmp_path / "config.json"):
        run_folder.read_record(tmp_path)


@pytest.mark.parametrize(
    ("branch", "name", "value"),
    [
        ("net", "model", "resnet_19"),
        ("data", "dataset", "imagenet21k"),
        ("optimization", "schedule", "sawtooth"),
    ],
)
def test_a_record_with_a_value_that_is_not_known_here(tmp_path, record, branch, name, value):
    """Written by another version, or by hand: one line, before anything is built from it."""
    run_folder.write_record(tmp_path, record)
    data = json.loads((tmp_path / "config.json").read_text())
    data["config"][branch][name] = value
    (tmp_path / "config.json").write_text(json.dumps(data))
    with refused(value):
        validation.check(run_folder.read_record(tmp_path).config)


def test_the_lock_refuses_a_second_trainer(tmp_path):
    run = tmp_path / "deep" / "run"
    with run_folder.lock(run):
        assert run.is_dir()
        with refused("--run_name=run:", "another process"), run_folder.lock(run):
            pytest.fail("two hold the lock")
    with run_folder.lock(run):
        pass


def test_the_lock_against_another_process(tmp_path):
    """The other one takes the lock with plain fcntl, and is then killed with it in its hands."""
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'a')\n"
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, tmp_path / ".lock"]
    with run_folder.lock(tmp_path):
        tried = subprocess.run(command, input="", capture_output=True, text=True, timeout=30)
        assert "held" not in tried.stdout and "BlockingIOError" in tried.stderr
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with refused("another process"), run_folder.lock(tmp_path):
                pytest.fail("two hold the lock")
        finally:
            other.send_signal(signal.SIGKILL)
        other.wait(timeout=30)
    with run_folder.lock(tmp_path):
        pass


def test_a_look_at_the_lock_does_not_stop_a_trainer(tmp_path, monkeypatch):
    """Another process that asks whether somebody trains holds the lock while it asks."""
    monkeypatch.setattr(folder_lock, "_RETRY_SECONDS", 10.0)
    (tmp_path / ".lock").touch()
    with open(tmp_path / ".lock") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        ending = threading.Timer(0.05, fcntl.flock, (looking, fcntl.LOCK_UN))
        ending.start()
        with run_folder.lock(tmp_path):
            pass
        ending.join()


def test_the_lock_is_freed_by_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), run_folder.lock(tmp_path):
        raise ZeroDivisionError
    with run_folder.lock(tmp_path):
        pass


@pytest.fixture
def run(tmp_path):
    """Steps 1 to 3, the second with the highest accuracy."""
    folder = tmp_path / "run"
    folder.mkdir()
    for step, top1 in ((1, 0.5), (2, 0.8), (3, 0.7)):
        save(folder, step, top1)
    return folder


def test_ckpt_of_a_run(run):
    assert run_folder.find_checkpoint(str(run)) == (run, run / "step-00000003")
    assert run_folder.find_checkpoint(f"{run}/") == (run, run / "step-00000003")
    damage(run / "step-00000003")
    assert run_folder.find_checkpoint(str(run)) == (run, run / "step-00000002")


def test_ckpt_best(run):
    assert run_folder.find_checkpoint(f"{run}/best") == (run, run / "step-00000002")
    damage(run / "step-00000002")
    assert run_folder.find_checkpoint(f"{run}/best") == (run, run / "step-00000003")


def test_ckpt_of_a_step(run, monkeypatch):
    expected = (run, run / "step-00000001")
    assert run_folder.find_checkpoint(str(expected[1])) == expected
    assert run_folder.find_checkpoint(f"{expected[1]}/") == expected
    monkeypatch.chdir(run)
    found_run, found_step = run_folder.find_checkpoint("step-00000001")
    assert (found_run.samefile(run), found_step.samefile(expected[1])) == (True, True)


def test_ckpt_in_the_current_folder(run, monkeypatch):
    monkeypatch.chdir(run)
    found_run, found_step = run_folder.find_checkpoint(".")
    assert found_run.samefile(run) and found_step.samefile(run / "step-00000003")
    assert run_folder.find_checkpoint("best")[1].samefile(run / "step-00000002")


def test_ckpt_of_a_run_that_is_called_best(run):
    os.rename(run, run.with_name("best"))
    best = run.with_name("best")
    assert run_folder.find_checkpoint(str(best)) == (best, best / "step-00000003")
    assert run_folder.find_checkpoint(f"{best}/best") == (best, best / "step-00000002")


def test_ckpt_missing():
    with refused("--ckpt", "missing"):
        run_folder.find_checkpoint("")


@pytest.mark.parametrize("name", ["nowhere", "nowhere/best", "step-00000009", "file"])
def test_ckpt_that_is_not_there(tmp_path, name):
    (tmp_path / "file").write_text("")
    with refused(f"--ckpt={tmp_path / name}:", "no such folder"):
        run_folder.find_checkpoint(str(tmp_path / name))


@pytest.mark.parametrize("suffix", ["", "/best"])
def test_ckpt_of_a_run_that_never_saved(tmp_path, suffix):
    (tmp_path / "config.json").write_text("{}")
    with refused(f"--ckpt={tmp_path}{suffix}:", "saved", "train"):
        run_folder.find_checkpoint(f"{tmp_path}{suffix}")


def test_ckpt_best_of_a_run_that_never_evaluated(tmp_path):
    save(tmp_path, 4)
    with refused(f"--ckpt={tmp_path}/best:", "evaluated"):
        run_folder.find_checkpoint(f"{tmp_path}/best")
    assert run_folder.find_checkpoint(str(tmp_path))[1].name == "step-00000004"


def test_ckpt_where_nothing_is_intact(run):
    for step in (1, 2, 3):
        damage(run / f"step-{step:08d}")
    for ckpt in (run, run / "best"):
        with refused(f"--ckpt={ckpt}:", "intact"):
            run_folder.find_checkpoint(str(ckpt))
    with refused(f"--ckpt={run}/step-00000001:", "not intact"):
        run_folder.find_checkpoint(f"{run}/step-00000001")
