"""Shows progress as a bar on a terminal and as one log line per minute elsewhere."""

import sys
import time

import tqdm
from absl import logging

_SECONDS_BETWEEN_LINES = 60.0
# Forms of a bar: before the first image, and with the name and a text.
_FIRST_BAR = "{} {{percentage:3.0f}}%|{{bar}}|"
_BAR = f"{_FIRST_BAR} {{}}"


class Progress:
    """Counts images; shows the rate and the remaining time.

    Args:
      name: name of the task, such as "eval".
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
                bar_format=_FIRST_BAR.format(name),
                dynamic_ncols=True,
                leave=False,
            )

    def advance(self, images: int, note: str = "", name: str = "") -> None:
        """Adds processed images.

        Args:
          images: how many.
          note: is shown next to the rate.
          name: is shown from now on instead of the task and the number of images.
        """
        self._images += images
        now = time.monotonic()
        is_due = now - self._last_line >= _SECONDS_BETWEEN_LINES
        if self._bar is None and not is_due:
            return
        seconds = now - self._start - self._excluded_seconds
        rate = (self._images - self._initial) / seconds if seconds else 0.0
        parts = [] if name else [f"{self._images} of {self._total} images"]
        parts += [f"{rate:.1f} images/s", f"{format_duration(self.seconds_left())} left"]
        text = ", ".join([*parts, note] if note else parts)
        if self._bar is not None:
            self._bar.bar_format = _BAR.format(name or self._name, text)
            self._bar.update(images)
        else:
            self._last_line = now
            logging.info("%s: %s", name or self._name, text)

    def seconds_left(self) -> float:
        """Returns the expected time until the end. It assumes that pauses stay as frequent."""
        if self._images == self._total:
            return 0.0
        done = self._images - self._initial
        seconds = time.monotonic() - self._start
        return seconds / done * (self._total - self._images) if done else float("inf")

    def announce(self, text: str) -> None:
        """Says what the next images wait for: in place of the bar, or as a log line."""
        if self._bar is None:
            logging.info("%s ...", text)
        else:
            self._bar.bar_format = f"{text} ..."
            self._bar.refresh()

    def skip(self, images: int) -> None:
        """Adds images of a call that traced, and measures from now on."""
        self._images += images
        self._start, self._initial, self._excluded_seconds = time.monotonic(), self._images, 0.0
        if self._bar is not None:
            self._bar.bar_format = _FIRST_BAR.format(self._name)
            self._bar.update(images)

    def exclude_time(self, seconds: float) -> None:
        """Excludes a pause, such as an evaluation or a save, from the rate."""
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
