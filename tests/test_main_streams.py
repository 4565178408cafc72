"""The ends of the program that no mode decides: nobody reads it, or Ctrl-C comes early."""

import errno
import os
import pathlib
import subprocess
import sys

import pytest

import main

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("word", ["--help", "--mode=stats"])
def test_a_reader_that_has_gone_costs_no_traceback(word):
    """`python main.py --help | head -1` and a short summary that nobody waits for."""
    code = (
        "import sys, main\n"
        "main.mode_function = lambda mode: lambda config: print('the summary')\n"
        "sys.exit(main.main(['main.py', *sys.argv[1:]]))\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-c", code, word],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")
    shut = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", code, word]
    ended = subprocess.run(shut, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_nobody_to_tell_of_errors():
    """`2>&-`: TensorFlow is loaded and warnings are logged, to nobody."""
    code = (
        "import sys, main\n"
        "from absl import logging\n"
        "def warns(config):\n"
        "    main.tensorflow_startup.load_tensorflow()\n"
        "    logging.warning('unheard')\n"
        "    print('the summary')\n"
        "main.mode_function = lambda mode: warns\n"
        "sys.exit(main.main(['main.py', '--mode=stats']))\n"
    )
    shut = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    ended = subprocess.run(shut, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stdout) == (0, "the summary\n")


def test_ctrl_c_before_a_mode_listens_to_it(monkeypatch):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "mode_function", lambda mode: interrupted)
    assert main.main(["main.py", "--mode=stats"]) == 130


@pytest.mark.parametrize("name", ["x" * 300, "locked"])
def test_a_path_that_the_system_refuses_is_one_line(tmp_path, monkeypatch, capsys, name):
    """A name that is too long, and a folder of somebody else's (a superuser is never refused)."""
    listed = os.scandir

    def scandir(path):
        if pathlib.Path(path).name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listed(path)

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
