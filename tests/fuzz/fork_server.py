"""Runs command lines of main.py in forked children, which saves importing TensorFlow each time.

`python -m tests.fuzz.fork_server` reads requests, one JSON object a line, and answers each with a
line. TensorFlow starts its devices and threads only in the child, so a fork is safe. A child
differs from a fresh process in three ways that save time. The imports are done, every net is the
one of `tiny_nets`, and TensorFlow does not optimize graphs.
"""

import atexit
import contextlib
import faulthandler
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
_POLL_SECONDS = 0.05
_LIMIT_SECONDS = 60
_LIMIT_BYTES = 4 << 30


class Outcome(NamedTuple):
    """How a command ended.

    Attributes:
      code: exit code as a shell reports it: 128 plus the number of a signal that ended it.
      out: stdout.
      err: stderr; of a command that was killed, also its stack.
      exceeded: the limit for which it was killed: "time", "memory" or "".
      seconds: processor time.
    """

    code: int
    out: str
    err: str
    exceeded: str
    seconds: float


class ForkServer:
    """Client of the process that forks; a context manager."""

    def __enter__(self) -> "ForkServer":
        words = [sys.executable, "-m", "tests.fuzz.fork_server"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(words, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.wait()

    def run(self, argv: list[str], box: pathlib.Path, stop_after: float | None = None) -> Outcome:
        """Runs one command in box/work, with box/home and box/tmp as its other folders.

        Args:
          argv: arguments of main.py.
          box: folder with these three folders.
          stop_after: seconds of processor time, or tens of seconds, after which the command gets
            SIGTERM; None for never.
        """
        request = {"argv": argv, "box": str(box), "stop_after": stop_after}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Outcome(**json.loads(self._process.stdout.readline()))


def _serve(argv: list[str], box: str, stop_after: float | None) -> Outcome | None:
    """Runs a command in a child and returns how it ended; returns None in the child."""
    start = time.monotonic()
    child = os.fork()
    if not child:
        _become_fresh_process(argv, box)
        return None
    exceeded, exited = "", os.pidfd_open(child)
    while not exceeded and not select.select([exited], [], [], _POLL_SECONDS)[0]:
        wall, (processor, resident) = time.monotonic() - start, _read_usage(child)
        if stop_after and max(processor, wall / 10) > stop_after:
            os.kill(child, signal.SIGTERM)
            stop_after = None
        if resident > _LIMIT_BYTES:
            exceeded = "memory"
        elif wall > _LIMIT_SECONDS:
            exceeded = "time"
    if exceeded:
        os.kill(child, signal.SIGUSR2)  # it prints its stack
        select.select([exited], [], [], 0.5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # also what it has started
    os.close(exited)
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    out, err = (pathlib.Path(box, name).read_text(errors="replace") for name in ("out", "err"))
    seconds = usage.ru_utime + usage.ru_stime
    return Outcome(code if code >= 0 else 128 - code, out, err, exceeded, seconds)


def _read_usage(pid: int) -> tuple[float, int]:
    """Returns the processor time in seconds and the resident memory in bytes."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")


def _become_fresh_process(argv: list[str], box: str) -> None:
    os.setsid()
    for descriptor, path in enumerate((os.devnull, f"{box}/out", f"{box}/err")):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if descriptor else os.O_RDONLY
        os.dup2(os.open(path, flags, 0o644), descriptor)
    faulthandler.register(signal.SIGUSR2, all_threads=False)
    home = f"{box}/home"
    os.environ |= {"HOME": home, "XDG_CONFIG_HOME": f"{home}/.config", "TMPDIR": f"{box}/tmp"}
    os.chdir(f"{box}/work")
    sys.argv = ["main.py", *argv]


def _main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    import main
    from input_pipeline.sources import shapes
    from loops.config import modes
    from nets import registry
    from tests.loops import tiny_nets

    for mode in modes.names():
        main.mode_function(mode)
    registry.build_model = tiny_nets.build
    shapes.SPLIT_SIZES = {"train": 20, "val": 10, "test": 10}
    while line := sys.stdin.readline():
        outcome = _serve(**json.loads(line))
        if outcome is not None:
            print(json.dumps(outcome._asdict()), flush=True)
            continue
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        code = 1
        try:
            code = main.main(sys.argv)
        except Exception:
            sys.excepthook(*sys.exc_info())
        # The end of the interpreter, without the second that it takes to clear all modules.
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _main()
