"""What the wall time of a training goes into beside its steps."""

import contextlib
import time


class PhaseTimer:
    """Adds up seconds by what they went into, from when it is made."""

    def __init__(self):
        self._start = time.monotonic()
        self._seconds = {}

    @contextlib.contextmanager
    def phase(self, what):
        """While entered, time goes into something."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[what] = self.seconds(what) + time.monotonic() - started

    def seconds(self, *what):
        """Seconds that some things have taken so far, together."""
        return sum(self._seconds.get(name, 0.0) for name in what)

    def values(self):
        """Seconds so far by tag; `time/total` is all of them, those of the steps included."""
        total = time.monotonic() - self._start
        return {"time/total": total} | {f"time/{k}": v for k, v in self._seconds.items()}

    def summary(self):
        """One line."""
        total = time.monotonic() - self._start
        shares = (f"{what} {seconds / total:.1%}" for what, seconds in self._seconds.items())
        return f"{total:.1f} s of training, of which " + ", ".join(shares)
