"""Ctrl-C and SIGTERM are remembered; the second one does not wait."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from loops.runtime.stop_signals import StoppedBySignal, StopSignals

ROOT = pathlib.Path(__file__).resolve().parents[3]
BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", BOTH)
def test_the_first_is_remembered(number):
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.received is None
        signal.raise_signal(number)
        assert signals.received == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", BOTH)
def test_the_second_ends_the_process(number):
    """Also where Python does not get a turn, as here while it waits for a digest.

    The first comes thrice at once, as to a process of the group that is signalled besides.
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
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "first\n"
        time.sleep(1.0)  # until it waits, and is not taken for a part of the first
        process.send_signal(number)
        try:
            assert process.wait(timeout=20) == 128 + number
        finally:
            process.kill()
        assert process.stdout.read() == ""


def test_nothing_is_left_behind():
    before = signal.set_wakeup_fd(-1)
    with StopSignals() as signals:
        assert signals._counter.is_alive() and os.fstat(signals._pipe)
    assert not signals._counter.is_alive()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(signals._pipe)
    assert signal.set_wakeup_fd(before) == -1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_exit_codes(number, code):
    error = StoppedBySignal(number, "step 7 is saved")
    assert error.exit_code == code
    assert number.name in str(error) and "step 7 is saved" in str(error)


def test_sigusr1_is_a_wish():
    before = signal.getsignal(signal.SIGUSR1)
    with StopSignals() as signals:
        assert not signals.save_requested
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        assert signals.save_requested
        assert signals.received is None
    assert signal.getsignal(signal.SIGUSR1) is before
