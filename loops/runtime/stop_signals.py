"""Records signals, so that they are handled between two calls of the training step."""

import errno
import os
import signal
import sys
import termios
import threading
import time
from types import FrameType
from typing import NoReturn

from absl import logging

from input_pipeline.errors import UserError

# A repeated signal within this time counts once: `timeout` and batch systems signal a process and
# its process group.
_SAME_SIGNAL_SECONDS = 0.5
_LAST_WORD_SECONDS = 0.2  # a paused terminal accepts no text


class StoppedBySignal(UserError):
    """A signal ended the program; the message states what was saved."""

    def __init__(self, signum: int, what: str) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; {what}")
        self.exit_code = 128 + signum


class StopSignals:
    """Inside the context, records the first SIGINT, SIGTERM or SIGHUP. Outside of it, records none.

    A second SIGINT or SIGTERM exits the process. A second SIGHUP does not, because a terminal that
    is closed sends several. SIGHUP stays ignored where it was ignored, as under nohup.

    Python runs signal handlers only between bytecode instructions, so never while TensorFlow waits
    for a disk or another worker. However, it writes each signal's number to a wakeup pipe at once.
    A thread reads this pipe and exits the process at the second signal.

    SIGUSR1 requests a checkpoint; the caller resets `save_requested`.

    Args:
      answer: what the first SIGINT or SIGTERM leads to, for the log; "" logs nothing.

    Attributes:
      received: number of the first SIGINT, SIGTERM or SIGHUP, or None.
      save_requested: whether SIGUSR1 was received.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, answer: str = "") -> None:
        self._answer = answer
        self.received: int | None = None
        self.save_requested = False

    def __enter__(self) -> "StopSignals":
        stops = [*self._SIGNALS]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            stops.append(signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._handle_stop) for number in stops}
        self._previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._handle_save_request)
        read_end, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._watcher = threading.Thread(
            target=self._exit_at_second_signal, args=(read_end,), daemon=True
        )
        self._watcher.start()
        self._previous_pipe = signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_) -> None:
        signal.set_wakeup_fd(self._previous_pipe)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._pipe)
        self._watcher.join()

    def _handle_stop(self, number: int, _frame: FrameType | None) -> None:
        self.received = self.received or number
        if number == signal.SIGHUP:
            _detach_from_closed_terminal()

    def _exit_at_second_signal(self, read_end: int) -> None:
        """Runs in the thread; exits the process at the second SIGINT or SIGTERM."""
        first = None
        with open(read_end, "rb", buffering=0) as pipe:
            while number := pipe.read(1):
                if number[0] not in self._SIGNALS:
                    continue
                now = time.monotonic()
                if first is None and self._answer:
                    # In another thread, because a paused terminal would block it.
                    threading.Thread(target=self._log_answer, args=number, daemon=True).start()
                first = first or now
                if now - first > _SAME_SIGNAL_SECONDS:
                    word = threading.Thread(target=self._write_last_word, args=number, daemon=True)
                    word.start()
                    word.join(_LAST_WORD_SECONDS)
                    os._exit(128 + number[0])

    def _log_answer(self, number: int) -> None:
        # Called here, because the screen shows only lines that the project's own files log.
        logging.info("%s: %s", signal.Signals(number).name, self._answer)

    def _write_last_word(self, number: int) -> None:
        # Not through `sys.stderr`, whose lock another thread may hold.
        name = signal.Signals(number).name
        os.write(2, f"\nerror: stopped at once by a second {name}\n".encode())

    def _handle_save_request(self, _number: int, _frame: FrameType | None) -> None:
        self.save_requested = True


def _detach_from_closed_terminal() -> None:
    """Redirects stdout and stderr to /dev/null if their terminal is gone: writing would fail."""
    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor)
                os.close(null)


def exit_now(stopped: StoppedBySignal) -> NoReturn:
    """Ends the process with the message and exit code of a stopped mode, without destructors."""
    sys.stderr.write(f"error: {stopped}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(stopped.exit_code)
