"""Measures how training time is spent outside of the steps: saving, evaluating, logging."""

import contextlib
import time
from collections.abc import Iterator


class PhaseTimer:
    """Sums the wall time of each phase; the total time starts at construction."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time spent inside the context to a phase, also when an error is raised."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - started

    def values(self) -> dict[str, float]:
        """Returns seconds so far by tag; `system/time/total` includes the steps."""
        total = time.monotonic() - self._start
        seconds = {"total": total, **self._seconds}
        return {f"system/time/{phase}": value for phase, value in seconds.items()}

    def summary(self) -> str:
        """Returns the total time and the share of each phase in one line."""
        total = time.monotonic() - self._start
        shares = (f"{name} {seconds / total:.1%}" for name, seconds in self._seconds.items())
        return f"{total:.1f} s of training, of which " + ", ".join(shares)
