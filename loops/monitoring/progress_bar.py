"""Progress that a person sees: a bar on a terminal, one plain line a minute elsewhere."""

import sys
import time

import tqdm
from absl import logging

_SECONDS_BETWEEN_LINES = 60.0


class Progress:
    """Counts images and shows rate and time left.

    Args:
      what: what is being done, as in "train".
      total: images in all.
      done: images done before.
    """

    def __init__(self, what, total, done=0):
        self._what, self._total, self._done = what, total, done
        self._first_done = done
        self._start = self._last_line = time.monotonic()
        self._paused = 0.0
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(
                total=total,
                initial=done,
                desc=what,
                unit=" images",
                unit_scale=True,
                dynamic_ncols=True,
                leave=False,
            )

    def advance(self, images, note=""):
        """Counts images done; `note` stands beside the rate."""
        self._done += images
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(images)
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = (self._done - self._first_done) / (now - self._start - self._paused)
            left = (self._total - self._done) / rate if rate else float("inf")
            logging.info(
                "%s: %d of %d images, %.1f images/s, %s left%s",
                self._what,
                self._done,
                self._total,
                rate,
                format_duration(left),
                f", {note}" if note else "",
            )

    def exclude_time(self, seconds):
        """Leaves a pause (an evaluation, a save) out of the rate of the plain lines."""
        self._paused += seconds

    def close(self):
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()


def format_duration(seconds):
    """A duration as h:mm:ss."""
    if seconds == float("inf"):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
