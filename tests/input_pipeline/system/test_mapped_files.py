"""A file that is cut while it is read ends the process with one line, not with a signal."""

import signal
import subprocess
import sys

import pytest

_SCRIPT = """
import mmap, os, sys
from input_pipeline.system import mapped_files
with open(sys.argv[1], "r+b") as file, open(sys.argv[2], "r+b") as other:
    mapped_files.watch(sys.argv[1])
    mapped = [mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) for f in (file, other)]
    assert mapped[0][20_000] == 1
    os.truncate(sys.argv[3], 10_000)
    print(mapped[0][5_000], mapped[1][5_000], flush=True)
    print(mapped[0][20_000], mapped[1][20_000], flush=True)
"""


def _run(tmp_path, cut, before="", **streams):
    for name in ("a\x1b.tar", "other"):
        (tmp_path / name).write_bytes(b"\1" * 30_000)
    paths = [str(tmp_path / name) for name in ("a\x1b.tar", "other", cut)]
    return subprocess.run(
        [sys.executable, "-c", before + _SCRIPT, *paths],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
        text=True,
        timeout=60,
    )


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the handler is for Linux")


def test_cut_file_is_named(tmp_path):
    ended = _run(tmp_path, "a\x1b.tar")
    assert (ended.stdout, ended.returncode) == ("1 1\n", 3)
    message = f"{tmp_path}/a\\x1b.tar: was cut, or its disk failed; copy it again"
    assert ended.stderr == f"error: {message}\n"


def test_other_bus_errors_end_the_process_as_before(tmp_path):
    ended = _run(tmp_path, "other")
    assert (ended.stdout, ended.returncode) == ("1 1\n", -signal.SIGBUS)


def test_earlier_handlers_get_other_bus_errors(tmp_path):
    ended = _run(tmp_path, "other", "import faulthandler; faulthandler.enable()")
    assert "Fatal Python error: Bus error" in ended.stderr
    assert ended.returncode == -signal.SIGBUS


@pytest.mark.parametrize(
    ("before", "code"),
    [
        ("import os; os.close(2)", 3),
        ("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))", -signal.SIGBUS),
    ],
)
def test_handler_that_cannot_write_or_read_does_not_repeat_forever(tmp_path, before, code):
    # The limit holds for files that are opened after those of the script.
    script = f"def restrict():\n    {before}\n"
    cut = _SCRIPT.replace("    os.truncate", "    restrict()\n    os.truncate")
    for name in ("a", "other"):
        (tmp_path / name).write_bytes(b"\1" * 30_000)
    paths = [str(tmp_path / name) for name in ("a", "other", "a")]
    command = [sys.executable, "-c", script + cut, *paths]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == code
