"""Signals are remembered, and served between two calls of the training step."""

import os
import signal

from input_pipeline.errors import UserError


class Stopped(UserError):
    """A signal ended the program; the message says what has been saved, if there was anything."""

    def __init__(self, signum, what):
        super().__init__(f"stopped by {signal.Signals(signum).name}; {what}")
        self.exit_code = 128 + signum


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is remembered; a second one ends the process.

    SIGUSR1 is remembered as the wish for a checkpoint, until `save_wanted` is set back.

    Attributes:
      received: number of the first SIGINT or SIGTERM, or None.
      save_wanted: whether SIGUSR1 has come.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.received = None
        self.save_wanted = False

    def __enter__(self):
        self._previous = {number: signal.signal(number, self._handle) for number in self._SIGNALS}
        self._previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._wish)
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, _frame):
        if self.received is not None:
            os._exit(128 + number)
        self.received = number

    def _wish(self, _number, _frame):
        self.save_wanted = True


class NoSignals:
    """Stands in for StopSignals where nobody can send one."""

    received = None
    save_wanted = False
