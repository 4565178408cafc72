"""SIGINT and SIGTERM: the first is recorded, the second exits the process."""

import os
import pathlib
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from loops.runtime.stop_signals import StoppedBySignal, StopSignals

ROOT = pathlib.Path(__file__).resolve().parents[3]
STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def hangups():
    """Stops ignoring SIGHUP, as tests that run under nohup do."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [*STOP_SIGNALS, signal.SIGHUP])
def test_first_signal_is_recorded(number):
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.received is None
        signal.raise_signal(number)
        assert signals.received == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_first_signal_is_answered_once(number):
    """On the screen, which leaves out what packages log."""
    code = (
        "import signal, time; from loops.runtime import log_format, stop_signals\n"
        "log_format.set_up()\n"
        "with stop_signals.StopSignals('saves and stops'):\n"
        f"    for _ in range(2): signal.raise_signal({int(number)})\n"
        "    time.sleep(20)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        assert line.endswith(f"{number.name}: saves and stops\n")
        process.kill()
        assert process.stderr.read() == ""


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_second_signal_exits_the_process(number):
    """This works even while Python cannot run handlers, such as during a long hash.

    The first signal arrives three times at once, because a batch system may signal both the
    process and its group.
    """
    code = (
        "import hashlib, signal; from loops.runtime.stop_signals import StopSignals\n"
        "with StopSignals() as signals:\n"
        "    signal.raise_signal(signal.SIGUSR1)\n"
        "    for _ in range(3): signal.raise_signal(signal.SIGINT)\n"
        "    print('first', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9); print('second', flush=True)\n"
    )
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline() == "first\n"
        time.sleep(1.0)  # later than a repetition of the first signal
        process.send_signal(number)
        try:
            assert process.wait(timeout=20) == 128 + number
        finally:
            process.kill()
        assert process.stdout.read() == ""
        last_line = process.stderr.read().splitlines()[-1]
        assert last_line == f"error: stopped at once by a second {number.name}"


def test_second_signal_exits_although_the_screen_is_paused():
    """A full pipe stands in for a terminal that Ctrl-S has paused."""
    code = (
        "import os, signal, time; from loops.runtime.stop_signals import StopSignals\n"
        "with StopSignals():\n"
        "    signal.raise_signal(signal.SIGINT); time.sleep(0.7)\n"
        "    os.set_blocking(2, False)\n"
        "    try:\n"
        "        while True: os.write(2, b'x' * 4096)\n"
        "    except BlockingIOError: os.set_blocking(2, True)\n"
        "    signal.raise_signal(signal.SIGINT); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(timeout=20) == 128 + signal.SIGINT
        finally:
            process.kill()


def test_ignored_sighup_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.received is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_closed_terminal_may_be_written_to_after_sighup():
    """A closed terminal sends SIGHUP, often twice, and refuses what is written to it."""
    code = (
        "import os, signal, sys, time; from loops.runtime.stop_signals import StopSignals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "with StopSignals() as signals:\n"
        "    print('ready', flush=True)\n"
        "    while not signals.received: time.sleep(0.05)\n"
        "    print('out', flush=True); print('err', file=sys.stderr, flush=True)\n"
        "    time.sleep(0.7); signal.raise_signal(signal.SIGHUP); time.sleep(0.3)\n"
        "os._exit(signals.received + 10)\n"
    )
    master, slave = pty.openpty()
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=slave, stderr=slave) as process:
        os.close(slave)
        try:
            output = b""
            while not output.endswith(b"\n"):
                output += os.read(master, 100)
            assert output == b"ready\r\n"
            os.close(master)
            process.send_signal(signal.SIGHUP)
            assert process.wait(timeout=30) == signal.SIGHUP + 10
        finally:
            process.kill()


def list_descriptors():
    """Returns the open file descriptors, without the one that lists them."""
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


def test_exit_releases_thread_pipe_and_handlers():
    before = signal.set_wakeup_fd(-1)
    threads, descriptors = set(threading.enumerate()), list_descriptors()
    with StopSignals():
        (thread,) = set(threading.enumerate()) - threads
        assert thread.is_alive()
        assert len(list_descriptors() - descriptors) == 2  # both ends of the pipe
    assert not thread.is_alive()
    assert list_descriptors() == descriptors
    assert signal.set_wakeup_fd(before) == -1


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_exit_code(number, code):
    error = StoppedBySignal(number, "step 7 is saved")
    assert error.exit_code == code
    assert number.name in str(error) and "step 7 is saved" in str(error)


def test_sigusr1_requests_checkpoint():
    before = signal.getsignal(signal.SIGUSR1)
    with StopSignals() as signals:
        assert not signals.save_requested
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        assert signals.save_requested
        assert signals.received is None
    assert signal.getsignal(signal.SIGUSR1) is before
