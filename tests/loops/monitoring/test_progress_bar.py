"""Progress: one log line per minute, or a bar on a terminal."""

import io
import logging
import sys
import time

import pytest

from loops.monitoring import progress_bar


@pytest.fixture
def now(monkeypatch):
    """A fake clock; the test sets now[0] in seconds."""
    seconds = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    return seconds


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_one_line_per_minute(now, log, capsys):
    bar = progress_bar.Progress("train", total=10_000)
    for _ in range(59):
        now[0] += 1.0
        bar.advance(20)
    assert log.messages == []
    now[0] += 1.0
    bar.advance(20, "loss 0.123")
    # 1,200 images in 60 s; the other 8,800 take 440 s.
    (line,) = log.messages
    assert line == "train: 1200 of 10000 images, 20.0 images/s, 0:07:20 left, loss 0.123"
    now[0] += 59.0
    bar.advance(20)
    assert len(log.messages) == 1
    now[0] += 1.0
    bar.advance(20)
    assert len(log.messages) == 2
    bar.close()
    captured = capsys.readouterr()
    assert captured.out == "" and "\r" not in captured.err


def test_rate_excludes_images_of_earlier_process(now, log):
    bar = progress_bar.Progress("train", total=10_000, initial=4_000)
    now[0] += 100.0
    bar.advance(1_000)
    assert log.messages == ["train: 5000 of 10000 images, 10.0 images/s, 0:08:20 left"]


def test_rate_excludes_pauses_and_time_left_includes_them(now, log):
    bar = progress_bar.Progress("train", total=2_000)
    now[0] += 50.0
    bar.advance(500)
    now[0] += 40.0
    bar.exclude_time(40.0)
    now[0] += 50.0
    bar.advance(500)
    assert log.messages == ["train: 1000 of 2000 images, 10.0 images/s, 0:02:20 left"]


def test_call_that_traces_counts_for_neither_rate_nor_time_left(now, log):
    bar = progress_bar.Progress("train", total=1_010)
    bar.announce("compiling")
    now[0] += 500.0
    bar.skip(10)
    assert bar.seconds_left() == float("inf")
    now[0] += 50.0
    bar.advance(500, name="epoch 1/2")
    assert log.messages == ["compiling ...", "epoch 1/2: 10.0 images/s, 0:00:50 left"]


def test_unknown_time_left(now, log):
    bar = progress_bar.Progress("eval", total=100)
    now[0] += 61.0
    bar.advance(0)
    assert log.messages == ["eval: 0 of 100 images, 0.0 images/s, ? left"]


def test_bar_on_terminal(now, log, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = progress_bar.Progress("train", total=100, initial=20)
    for _ in range(4):
        now[0] += 100.0
        bar.advance(20, "loss 0.5")
    bar.close()
    assert log.messages == []
    assert "train" in terminal.getvalue() and "\r" in terminal.getvalue()
    assert " 20%|" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00:00"),
        (59.4, "0:00:59"),
        (59.6, "0:01:00"),
        (3599.9, "1:00:00"),
        (90_061, "25:01:01"),
        (float("inf"), "?"),
    ],
)
def test_format_duration(seconds, shown):
    assert progress_bar.format_duration(seconds) == shown
