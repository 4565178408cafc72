"""Runs command lines of main.py in forked children, which saves importing TensorFlow each time.

`python -m tests.fuzz.fork_server` reads requests, one JSON object a line, and answers each with a
line. TensorFlow starts its devices and threads only in the child, so a fork is safe. A child
differs from a fresh process in three ways that make it fast: the imports are done, every net is the
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
      out, err: standard streams. `err` has the stacks of a child that was killed.
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
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.fork_server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.wait()

    def run(self, argv: list[str], box: pathlib.Path, stop_after: float | None = None) -> Outcome:
        """Runs one command in box/work, with box/home and box/tmp as its other folders.

        Args:
          argv: arguments of main.py.
          box: folder with these three folders.
          stop_after: seconds of processor time after which the command gets SIGTERM, or None. It
            also gets it after ten times these seconds of wall time.
        """
        request = {"argv": argv, "box": str(box), "stop_after": stop_after}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
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
    return Outcome(
        code=code if code >= 0 else 128 - code,
        out=pathlib.Path(box, "out").read_text(errors="replace"),
        err=pathlib.Path(box, "err").read_text(errors="replace"),
        exceeded=exceeded,
        seconds=usage.ru_utime + usage.ru_stime,
    )


def _read_usage(pid: int) -> tuple[float, int]:
    """Returns the processor time in seconds and the resident memory in bytes."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")


def _become_fresh_process(argv: list[str], box: str) -> None:
    os.setsid()
    writable = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, f"{box}/out", writable),
        (2, f"{box}/err", writable),
    ):
        os.dup2(os.open(path, flags, 0o644), descriptor)
    faulthandler.register(signal.SIGUSR2, all_threads=False)
    os.environ |= {"HOME": f"{box}/home", "TMPDIR": f"{box}/tmp"}
    os.chdir(f"{box}/work")
    sys.argv = ["main.py", *argv]


def _exit(code: int) -> None:
    """Ends the child as the interpreter would, but without a second of clearing modules."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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
        if outcome is None:
            tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
            try:
                code = main.main(sys.argv)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                code = 1
            _exit(code)
        print(json.dumps(outcome._asdict()), flush=True)


if __name__ == "__main__":
    _main()
