"""Signals are remembered, and served between two calls of the training step."""

import os
import signal
import threading
import time

from input_pipeline.errors import UserError

# What follows sooner is the same wish: `timeout` and batch systems signal a process and its group.
_SAME_SIGNAL_SECONDS = 0.5


class StoppedBySignal(UserError):
    """A signal ended the program; the message says what has been saved, if there was anything."""

    def __init__(self, signum, what):
        super().__init__(f"stopped by {signal.Signals(signum).name}; {what}")
        self.exit_code = 128 + signum


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is remembered; a second one ends the process.

    Python calls its handlers between two of its own instructions, and so never while TensorFlow
    waits for a disk or another worker that does not answer. It writes each signal's number to a
    pipe at once, though; a thread reads there and counts.

    SIGUSR1 is remembered as the wish for a checkpoint, until `save_wanted` is set back.

    Attributes:
      received: number of the first SIGINT or SIGTERM, or None.
      save_wanted: whether SIGUSR1 has come.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.received = None
        self.save_requested = False

    def __enter__(self):
        self._previous = {
            number: signal.signal(number, self._handle_stop) for number in self._SIGNALS
        }
        self._previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._handle_save_request)
        heard, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._counter = threading.Thread(
            target=self._exit_at_second_signal, args=(heard,), daemon=True
        )
        self._counter.start()
        self._previous_pipe = signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_):
        signal.set_wakeup_fd(self._previous_pipe)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._pipe)
        self._counter.join()

    def _handle_stop(self, number, _frame):
        self.received = self.received or number

    def _exit_at_second_signal(self, heard):
        """In the thread: ends the process at the second signal that asks for an end."""
        first = None
        with open(heard, "rb", buffering=0) as pipe:
            while number := pipe.read(1):
                if number[0] not in self._SIGNALS:
                    continue
                now = time.monotonic()
                first = first or now
                if now - first > _SAME_SIGNAL_SECONDS:
                    os._exit(128 + number[0])

    def _handle_save_request(self, _number, _frame):
        self.save_requested = True


class NoSignals:
    """Stands in for StopSignals where nobody can send one."""

    received = None
    save_wanted = False
