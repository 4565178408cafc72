"""The interface of progress bars, and a bar that shows nothing."""

from collections.abc import Callable
from typing import Protocol


class ProgressBar(Protocol):
    """Counts processed images."""

    def advance(self, images: int) -> None:
        """Adds processed images."""

    def close(self) -> None:
        """Ends the count."""


# Creates a bar. Arguments: the total number of images and, optionally, how many are done.
ProgressFactory = Callable[..., ProgressBar]


class NoProgress:
    """A ProgressBar that shows nothing.

    Args:
      total: number of images.
      done: number of images that are already processed.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        del total, done

    def advance(self, images: int) -> None:
        """Ignores processed images."""

    def close(self) -> None:
        """Does nothing."""
