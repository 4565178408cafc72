"""Ctrl-C and SIGTERM: remembered, and served between two calls of the training step."""

import os
import signal

from input_pipeline.errors import UserError


class Stopped(UserError):
    """Training was stopped by a signal and its state is saved."""

    def __init__(self, signum, what):
        super().__init__(f"stopped by {signal.Signals(signum).name}; {what}")
        self.exit_code = 128 + signum


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is remembered; a second one ends the process."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.received = None

    def __enter__(self):
        self._previous = {number: signal.signal(number, self._handle) for number in self._SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, _frame):
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
