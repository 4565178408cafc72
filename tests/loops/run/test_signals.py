"""Ctrl-C and SIGTERM are remembered; the second one does not wait."""

import pathlib
import signal
import subprocess
import sys

import pytest

from loops.run.signals import Stopped, StopSignals

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
    code = (
        "import signal, sys; from loops.run.signals import StopSignals\n"
        "with StopSignals() as signals:\n"
        "    signal.raise_signal(signal.SIGINT); print('first', flush=True)\n"
        "    signal.raise_signal(int(sys.argv[1])); print('second', flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(int(number))]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (128 + number, "first\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_exit_codes(number, code):
    error = Stopped(number, "step 7 is saved")
    assert error.exit_code == code
    assert number.name in str(error) and "step 7 is saved" in str(error)


def test_sigusr1_is_a_wish():
    before = signal.getsignal(signal.SIGUSR1)
    with StopSignals() as signals:
        assert not signals.save_wanted
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        assert signals.save_wanted
        assert signals.received is None
    assert signal.getsignal(signal.SIGUSR1) is before
