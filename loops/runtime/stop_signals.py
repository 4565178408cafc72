"""Records signals, so that they are handled between two calls of the training step."""

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

from input_pipeline.errors import UserError

# A repeated signal within this time counts once: `timeout` and batch systems signal a process and
# its process group.
_SAME_SIGNAL_SECONDS = 0.5


class StoppedBySignal(UserError):
    """A signal ended the program; the message states what was saved."""

    def __init__(self, signum: int, what: str) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; {what}")
        self.exit_code = 128 + signum


class StopSignals:
    """Inside the context, records the first SIGINT or SIGTERM; a second one exits the process.

    Python runs signal handlers only between bytecode instructions, so never while TensorFlow waits
    for a disk or another worker. However, it writes each signal's number to a wakeup pipe at once.
    A thread reads this pipe and exits the process at the second signal.

    SIGUSR1 requests a checkpoint; the caller resets `save_requested`.

    Attributes:
      received: number of the first SIGINT or SIGTERM, or None.
      save_requested: whether SIGUSR1 was received.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None
        self.save_requested = False

    def __enter__(self) -> "StopSignals":
        self._previous = {
            number: signal.signal(number, self._handle_stop) for number in self._SIGNALS
        }
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

    def _exit_at_second_signal(self, read_end: int) -> None:
        """Runs in the thread; exits the process at the second SIGINT or SIGTERM."""
        first = None
        with open(read_end, "rb", buffering=0) as pipe:
            while number := pipe.read(1):
                if number[0] not in self._SIGNALS:
                    continue
                now = time.monotonic()
                first = first or now
                if now - first > _SAME_SIGNAL_SECONDS:
                    os._exit(128 + number[0])

    def _handle_save_request(self, _number: int, _frame: FrameType | None) -> None:
        self.save_requested = True


class NoSignals:
    """Replaces StopSignals in programs that handle no signals."""

    received = None
    save_requested = False


def exit_now(stopped: StoppedBySignal) -> NoReturn:
    """Ends the process with the message and exit code of a stopped mode, without destructors."""
    sys.stderr.write(f"error: {stopped}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(stopped.exit_code)
