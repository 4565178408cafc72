"""Closed standard streams, an early Ctrl-C, and paths that the system refuses."""

import errno
import os
import pathlib
import subprocess
import sys

import pytest

import main
from input_pipeline.errors import UsageError
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


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("buffered", [True, False])
def test_full_disk_behind_stdout_is_one_line(name, buffered):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    environment |= {} if buffered else {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", PROGRAMS[name]]
    with open("/dev/full", "w") as full:
        completed = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert completed.returncode == 2
    (line,) = completed.stderr.splitlines()
    assert line.startswith("error: ") and line.endswith(os.strerror(errno.ENOSPC))


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


def test_current_folder_is_removed(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main.main(["main.py", "--mode=train"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the current folder cannot be used")


@pytest.mark.parametrize("flag", ["-P", "-O"])
def test_program_starts_from_any_folder_with_any_interpreter_flag(tmp_path, flag):
    """-P is PYTHONSAFEPATH, with which Python does not look for modules next to the script."""
    (tmp_path / "flags.py").write_text("raise SystemExit('foreign')")
    (tmp_path / "linked.py").symlink_to(ROOT / "main.py")
    command = [sys.executable, flag, tmp_path / "linked.py", "--mode=nonsense"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    completed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert (completed.returncode, completed.stdout) == (2, b"")
    assert completed.stderr.startswith(b"error: --mode=nonsense")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_text_that_stdout_cannot_encode(encoding):
    code = "import sys; from loops.runtime import process; process.run(lambda: print('caf\\u6f22'))"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", code]
    completed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (completed.returncode, completed.stdout) == (0, "caf\\u6f22\n"), completed.stderr


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.ENOTDIR])
def test_refused_file_is_one_line(capsys, number):
    def fail():
        raise OSError(number, os.strerror(number), "folder/file")

    assert process.run(fail) == 2
    assert capsys.readouterr().err == f"error: folder/file: {os.strerror(number)}\n"


def test_full_disk_without_the_name_of_a_file(capsys):
    def fail():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert process.run(fail) == 2
    assert capsys.readouterr().err == f"error: {os.strerror(errno.ENOSPC)}\n"


def test_error_is_one_line(capsys):
    def fail():
        raise UsageError("--image=a\nb: no such file")

    assert process.run(fail) == 2
    assert capsys.readouterr().err == "error: --image=a\\nb: no such file\n"


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


def test_as_many_files_may_be_open_as_the_system_allows():
    """A data set may have more shards than the usual limit of 1024."""
    code = (
        "import resource\n"
        "from loops.runtime import process\n"
        "def use(): print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        "process.run(use)\n"
    )
    limited = ["sh", "-c", 'ulimit -S -n 256 && exec "$@"', "sh", sys.executable, "-c", code]
    printed = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    soft, hard = map(int, printed.split())
    assert soft == hard != 256
