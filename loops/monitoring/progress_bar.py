"""Shows progress as a bar on a terminal and as one log line per minute elsewhere."""

import sys
import time

import tqdm
from absl import logging

_SECONDS_BETWEEN_LINES = 60.0


class Progress:
    """Counts images; shows the rate and the remaining time.

    Args:
      name: name of the task, such as "train".
      total: number of images in total.
      initial: number of images processed earlier.
    """

    def __init__(self, name: str, total: int, initial: int = 0) -> None:
        self._name, self._total, self._images = name, total, initial
        self._initial = initial
        self._start = self._last_line = time.monotonic()
        self._excluded_seconds = 0.0
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(
                total=total,
                initial=initial,
                desc=name,
                unit=" images",
                unit_scale=True,
                dynamic_ncols=True,
                leave=False,
            )

    def advance(self, images: int, note: str = "") -> None:
        """Adds processed images; `note` is shown next to the rate."""
        self._images += images
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(images)
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = (self._images - self._initial) / (now - self._start - self._excluded_seconds)
            left = (self._total - self._images) / rate if rate else float("inf")
            logging.info(
                "%s: %d of %d images, %.1f images/s, %s left%s",
                self._name,
                self._images,
                self._total,
                rate,
                format_duration(left),
                f", {note}" if note else "",
            )

    def exclude_time(self, seconds: float) -> None:
        """Excludes a pause, such as an evaluation or a save, from the rate in log lines."""
        self._excluded_seconds += seconds

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()


def format_duration(seconds: float) -> str:
    """Formats a duration as h:mm:ss."""
    if seconds == float("inf"):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
