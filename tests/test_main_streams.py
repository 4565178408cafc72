"""Closed standard streams, an early Ctrl-C, and paths that the system refuses."""

import errno
import os
import pathlib
import subprocess
import sys

import pytest

import main
from loops.runtime import process

ROOT = pathlib.Path(__file__).resolve().parents[1]


PROGRAMS = {
    "help": "import sys, main; sys.exit(main.main(['main.py', '--help']))",
    "summary": (
        "import sys\n"
        "from loops.runtime import process\n"
        "sys.exit(process.run(lambda: print('the summary')))\n"
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_broken_pipe_and_closed_stdout_give_no_traceback(name):
    """As in `python main.py --help | head -1` and `>&-`, for long and short output."""
    command = [sys.executable, "-c", PROGRAMS[name]]
    reader, writer = os.pipe()
    os.close(reader)
    completed = subprocess.run(
        command,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (completed.returncode, completed.stderr) == (141, "")
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    completed = subprocess.run(closed, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (completed.returncode, completed.stderr) == (0, "")


def test_closed_stderr_is_no_error():
    """With `2>&-`, TensorFlow loads and warnings are logged all the same."""
    code = (
        "import sys\n"
        "from absl import logging\n"
        "from loops.runtime import process, tensorflow_startup\n"
        "def warn():\n"
        "    tensorflow_startup.load_tensorflow()\n"
        "    logging.warning('ignored')\n"
        "    print('the summary')\n"
        "sys.exit(process.run(warn))\n"
    )
    closed = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    completed = subprocess.run(closed, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert (completed.returncode, completed.stdout) == (0, "the summary\n")


def test_ctrl_c_without_signal_handler_exits_with_130():
    def interrupt():
        raise KeyboardInterrupt

    assert process.run(interrupt) == 130


@pytest.mark.parametrize("name", ["x" * 300, "locked"])
def test_refused_path_is_a_one_line_error(tmp_path, monkeypatch, capsys, name):
    """A name is too long, or a folder is not readable, which is faked because root reads all."""
    real_scandir = os.scandir

    def scandir(path):
        if pathlib.Path(path).name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for split in ("train", "val"):
        (tmp_path / split / "locked").mkdir(parents=True)
    words = ["--mode=verify", "--dataset=folder", f"--data_dir={tmp_path}"]
    if name != "locked":
        words.append(f"--json={tmp_path / name}")
    assert main.main(["main.py", *words]) == 2
    reason = os.strerror(errno.EACCES if name == "locked" else errno.ENAMETOOLONG)
    (line,) = [s for s in capsys.readouterr().err.splitlines() if s.startswith("error: ")]
    assert f"{name}: {reason}" in line
