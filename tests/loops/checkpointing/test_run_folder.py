"""The run folder: its name, its record, its lock, and all forms of `--ckpt`."""

import contextlib
import dataclasses
import errno
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
from input_pipeline.sources import shapes
from input_pipeline.system import folder_lock
from loops.checkpointing import checkpoint, run_folder
from loops.config import resolve, validation
from loops.config.config import Config

CONFIG = resolve.resolve(Config())


def make_config(**values):
    return CONFIG.replace(**values)


@contextlib.contextmanager
def raises_usage_error(*words):
    """Asserts that the block raises a UsageError of one line that contains all words."""
    with pytest.raises(UsageError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if str(word) not in message] == [], message


def save(run, step, top1=None):
    metrics = {} if top1 is None else {"top1": top1}
    return checkpoint.save(run, step, {"c": {"step": tf.Variable(step)}}, metrics)


def corrupt(step_dir):
    os.truncate(step_dir / "ckpt.index", 5)


def test_run_name():
    named = run_folder.resolve_run_dir(make_config(checkpoint_dir="out/runs", run_name="first"))
    assert named == pathlib.Path("out/runs/first")
    config = make_config(checkpoint_dir="out", model="resnet_18", dataset="folder")
    unnamed = run_folder.resolve_run_dir(config)
    assert unnamed.parent == pathlib.Path("out")
    assert unnamed.match("resnet_18-folder-[0-9]*-[0-9]*")


@pytest.mark.parametrize("name", ["a/b", "/abs", "..", ".", "a/", "~", "~x"])
def test_run_name_must_not_be_a_path(name):
    with raises_usage_error(f"--run_name={name}:"):
        run_folder.resolve_run_dir(make_config(run_name=name))


def test_unusable_run_names():
    """A run named like a step could not be evaluated: --ckpt would read it as a step."""
    with raises_usage_error("--run_name=aaaaa", "longer than 200 bytes"):
        run_folder.resolve_run_dir(make_config(run_name="a" * 201))
    with raises_usage_error("--run_name=\udce9:", "not UTF-8"):  # a byte of Latin-1
        run_folder.resolve_run_dir(make_config(run_name="\udce9"))
    with raises_usage_error("--checkpoint_dir=d/\udce9:", "not UTF-8"):
        run_folder.resolve_run_dir(make_config(checkpoint_dir="d/\udce9", run_name="a"))
    with raises_usage_error("--run_name=step-00000010"):
        run_folder.resolve_run_dir(make_config(run_name="step-00000010"))


@pytest.fixture
def record():
    splits = {"train": {"images": 23, "fingerprint": "ab"}}
    return run_folder.Record(CONFIG, ("disc", "grid"), splits)


def test_record_round_trip(tmp_path, record):
    run_folder.write_record(tmp_path, record)
    assert run_folder.read_record(tmp_path) == record
    data = json.loads((tmp_path / "config.json").read_text())
    expected = dataclasses.asdict(CONFIG)
    del expected["typed"], expected["run"]["verbose"]
    assert data["config"] == json.loads(json.dumps(expected))
    # The CPU build of TensorFlow has another package name.
    assert {"tensorflow", "tensorflow-cpu"} & set(data["versions"])
    assert {"python", "keras", "numpy"} <= set(data["versions"])
    assert data["argv"] == sys.argv
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_built_in_images_of_a_foreign_run_are_not_drawn_where_it_says(
    tmp_path, record, monkeypatch
):
    """They are the same everywhere, so the ones of this machine are read."""
    monkeypatch.setattr(shapes, "SPLIT_SIZES", {"train": 10, "val": 10, "test": 10})
    for folder in ("nowhere", "shapes"):
        shapes_record = dataclasses.replace(
            record, config=record.config.replace(dataset="shapes", data_dir=str(tmp_path / folder))
        )
        run_folder.write_record(tmp_path, shapes_record)
        if folder == "shapes":
            shapes.make(str(tmp_path / folder))
        data_dir = run_folder.read_record(tmp_path).config.data.data_dir
        assert data_dir == (str(tmp_path / folder) if folder == "shapes" else "")
    assert not (tmp_path / "nowhere").exists()


def test_beginning_of_a_run_is_no_other_folder(tmp_path):
    """A run may be killed, or find a full disk, before its record is written."""
    for name in ("code", "log.txt", ".lock"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).mkdir()
        assert not run_folder.contains_other_files(tmp_path / "run")
    (tmp_path / "run/photo.jpg").touch()
    assert run_folder.contains_other_files(tmp_path / "run")


def test_record_is_replaced_atomically(tmp_path, record, monkeypatch):
    run_folder.write_record(tmp_path, record)

    def raise_disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", raise_disk_full)
    with pytest.raises(OSError, match="No space"):
        run_folder.write_record(tmp_path, dataclasses.replace(record, class_names=("x",)))
    assert run_folder.read_record(tmp_path) == record


def test_missing_record(tmp_path):
    with raises_usage_error(tmp_path, "config.json"):
        run_folder.read_record(tmp_path)
    with raises_usage_error("config.json"):
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
        "\udcff\udc80",  # bytes that are not UTF-8
    ],
)
def test_invalid_record(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with raises_usage_error(tmp_path / "config.json"):
        run_folder.read_record(tmp_path)


@pytest.mark.parametrize(
    ("branch", "name", "value"),
    [
        ("net", "model", "resnet_19"),
        ("data", "dataset", "imagenet21k"),
        ("optimization", "schedule", "sawtooth"),
    ],
)
def test_record_with_unknown_value(tmp_path, record, branch, name, value):
    """A record of another version, or an edited one, is refused before it is used."""
    run_folder.write_record(tmp_path, record)
    data = json.loads((tmp_path / "config.json").read_text())
    data["config"][branch][name] = value
    (tmp_path / "config.json").write_text(json.dumps(data))
    with raises_usage_error(value):
        validation.check(run_folder.read_record(tmp_path).config)


def test_lock_refuses_second_trainer(tmp_path):
    run = tmp_path / "deep" / "run"
    with run_folder.lock(run):
        assert run.is_dir()
        with raises_usage_error("--run_name=run:", "another process"), run_folder.lock(run):
            pytest.fail("the lock is held twice")
    with run_folder.lock(run):
        pass


def test_lock_against_another_process(tmp_path):
    """The other process takes the lock with fcntl and is killed while it holds the lock."""
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'a')\n"
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, tmp_path / ".lock"]
    with run_folder.lock(tmp_path):
        attempt = subprocess.run(command, input="", capture_output=True, text=True, timeout=30)
        assert "held" not in attempt.stdout and "BlockingIOError" in attempt.stderr
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with raises_usage_error("another process"), run_folder.lock(tmp_path):
                pytest.fail("the lock is held twice")
        finally:
            other.send_signal(signal.SIGKILL)
        other.wait(timeout=30)
    with run_folder.lock(tmp_path):
        pass


def test_query_of_lock_does_not_stop_trainer(tmp_path, monkeypatch):
    """A process that checks whether the folder is locked holds a shared lock for a moment."""
    monkeypatch.setattr(folder_lock, "_RETRY_SECONDS", 10.0)
    (tmp_path / ".lock").touch()
    with open(tmp_path / ".lock") as query:
        fcntl.flock(query, fcntl.LOCK_SH)
        release = threading.Timer(0.05, fcntl.flock, (query, fcntl.LOCK_UN))
        release.start()
        with run_folder.lock(tmp_path):
            pass
        release.join()


def test_lock_is_released_after_error(tmp_path):
    with pytest.raises(ZeroDivisionError), run_folder.lock(tmp_path):
        raise ZeroDivisionError
    with run_folder.lock(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog, number):
    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with run_folder.lock(tmp_path / "run"):
        assert not folder_lock.is_held(tmp_path / "run")
        (tmp_path / "run/file").write_text("")
    (warning,) = caplog.messages
    assert "no locks" in warning and os.strerror(number) in warning
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["file"]


def test_unnamed_runs_get_folders_of_their_own(tmp_path):
    """The first one is locked, the second one was killed and left an empty folder."""
    with contextlib.ExitStack() as one, contextlib.ExitStack() as two:
        assert run_folder.lock_unnamed(tmp_path / "r", one) == tmp_path / "r"
        (tmp_path / "r-2").mkdir()
        assert run_folder.lock_unnamed(tmp_path / "r", two) == tmp_path / "r-3"
        assert folder_lock.is_held(tmp_path / "r-3")
    assert [p.name for p in tmp_path.iterdir()] == ["r-2"]
    with contextlib.ExitStack() as stack, raises_usage_error("--checkpoint_dir=/proc"):
        run_folder.lock_unnamed(pathlib.Path("/proc/r"), stack)


def test_git_commit_is_that_of_this_code(tmp_path, monkeypatch):
    """Git sets GIT_DIR for its hooks, which then names another repository."""
    expected = run_folder.get_git_commit()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert run_folder.get_git_commit() == expected
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert run_folder.get_git_commit() == ""


@pytest.fixture
def run(tmp_path):
    """A run with steps 1 to 3; step 2 has the highest accuracy."""
    folder = tmp_path / "run"
    folder.mkdir()
    for step, top1 in ((1, 0.5), (2, 0.8), (3, 0.7)):
        save(folder, step, top1)
    return folder


def test_ckpt_names_run(run):
    assert run_folder.find_checkpoint(str(run)) == (run, run / "step-00000003")
    assert run_folder.find_checkpoint(f"{run}/") == (run, run / "step-00000003")
    corrupt(run / "step-00000003")
    assert run_folder.find_checkpoint(str(run)) == (run, run / "step-00000002")


def test_ckpt_names_best(run):
    assert run_folder.find_checkpoint(f"{run}/best") == (run, run / "step-00000002")
    corrupt(run / "step-00000002")
    assert run_folder.find_checkpoint(f"{run}/best") == (run, run / "step-00000003")


def test_ckpt_names_step(run, monkeypatch):
    expected = (run, run / "step-00000001")
    assert run_folder.find_checkpoint(str(expected[1])) == expected
    assert run_folder.find_checkpoint(f"{expected[1]}/") == expected
    monkeypatch.chdir(run)
    run_dir, step_dir = run_folder.find_checkpoint("step-00000001")
    assert (run_dir.samefile(run), step_dir.samefile(expected[1])) == (True, True)


def test_ckpt_in_current_folder(run, monkeypatch):
    monkeypatch.chdir(run)
    run_dir, step_dir = run_folder.find_checkpoint(".")
    assert run_dir.samefile(run) and step_dir.samefile(run / "step-00000003")
    assert run_folder.find_checkpoint("best")[1].samefile(run / "step-00000002")


def test_ckpt_of_run_named_best(run):
    os.rename(run, run.with_name("best"))
    best = run.with_name("best")
    assert run_folder.find_checkpoint(str(best)) == (best, best / "step-00000003")
    assert run_folder.find_checkpoint(f"{best}/best") == (best, best / "step-00000002")


def test_ckpt_is_empty():
    with raises_usage_error("--ckpt", "missing"):
        run_folder.find_checkpoint("")


@pytest.mark.parametrize("name", ["nowhere", "nowhere/best", "step-00000009"])
def test_ckpt_does_not_exist(tmp_path, name):
    with raises_usage_error(f"--ckpt={tmp_path / name}:", "no such folder"):
        run_folder.find_checkpoint(str(tmp_path / name))


def test_ckpt_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with raises_usage_error(f"--ckpt={tmp_path}/file:", "is a file; name the run folder"):
        run_folder.find_checkpoint(str(tmp_path / "file"))


@pytest.mark.parametrize("suffix", ["", "/best"])
def test_ckpt_of_run_without_checkpoint(tmp_path, suffix):
    (tmp_path / "config.json").write_text("{}")
    with raises_usage_error(
        f"--ckpt={tmp_path}{suffix}:", "contains no intact checkpoint", "train"
    ):
        run_folder.find_checkpoint(f"{tmp_path}{suffix}")


def test_ckpt_best_of_run_without_evaluation(tmp_path):
    save(tmp_path, 4)
    with raises_usage_error(f"--ckpt={tmp_path}/best:", "evaluated"):
        run_folder.find_checkpoint(f"{tmp_path}/best")
    assert run_folder.find_checkpoint(str(tmp_path))[1].name == "step-00000004"


def test_ckpt_of_run_with_only_corrupt_checkpoints(run):
    for step in (1, 2, 3):
        corrupt(run / f"step-{step:08d}")
    for ckpt in (run, run / "best"):
        with raises_usage_error(f"--ckpt={ckpt}:", "intact"):
            run_folder.find_checkpoint(str(ckpt))
    with raises_usage_error(f"--ckpt={run}/step-00000001:", "not intact"):
        run_folder.find_checkpoint(f"{run}/step-00000001")
