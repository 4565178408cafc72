"""Chooses the images that the page or the figures of a prediction show."""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Each takes seconds and about 300 kB.
MAX_DRAWN_IMAGES = 50


class DrawnImages:
    """Keeps the most confident mistakes, then the first other images.

    Memory is bounded: at most `MAX_DRAWN_IMAGES` are kept.
    """

    def __init__(self) -> None:
        # Each has the confidence of a mistake, or else 0, then the negative number of the image.
        self._heap: list[tuple[float, int, str, np.ndarray]] = []

    def add(self, number: int, image: Mapping[str, Any], path: str, logits: np.ndarray) -> None:
        """Adds an image, and drops the one that matters least if there are too many.

        Args:
          number: its index in `images` of the JSON results.
          image: its entry there.
          path: path of the file.
          logits: float32 [M, V, C] from `Ensemble.predict`.
        """
        confidence = image["predictions"][0]["probability"] if _is_mistake(image) else 0.0
        # The logits may be a slice of a whole batch, which would stay in memory.
        heapq.heappush(self._heap, (confidence, -number, path, logits.copy()))
        if len(self._heap) > MAX_DRAWN_IMAGES:
            heapq.heappop(self._heap)

    def in_order(self) -> list[tuple[int, str, np.ndarray]]:
        """Returns (number, path, logits) of each kept image.

        Mistakes come first, the most confident one at the start, then the others in their order.
        """
        kept = sorted(self._heap, key=lambda image: image[:2], reverse=True)
        return [(-negative, path, logits) for _, negative, path, logits in kept]


def describe(images: Sequence[Mapping[str, Any]], count: int) -> str:
    """Says which `count` of the images of the JSON results are drawn."""
    mistakes = sum(map(_is_mistake, images))
    if not mistakes:
        return f"the first {count}"
    if mistakes > count:
        return f"the {count} most confident of {mistakes} mistakes"
    others = f" and the first {count - mistakes} others" if mistakes < count else ""
    return f"all mistakes ({mistakes}){others}"


def _is_mistake(image: Mapping[str, Any]) -> bool:
    return (
        image.get("true_class", image["predictions"][0]["class"])
        != (image["predictions"][0]["class"])
    )
