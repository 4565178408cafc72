"""Draws an explained prediction as one image, for the notebook and for `--explain`."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from input_pipeline import datasets
from input_pipeline.arithmetic import ceil_div
from input_pipeline.text import escape_unprintable
from loops.tools.predict import image_paths, overlays
from loops.tools.predict.explained_prediction import ExplainedPrediction, Panel

# Lengths are in pixels, colors in RGB.
_WIDTH, _MARGIN, _GAP = 1120, 24, 16
_PICTURE_BOX = (420, 320)  # largest width and height of the picture
_VIEW_HEIGHT, _HEAT_MAP_HEIGHT = 200, 256
_BAR_PITCH = 46  # distance between the bars of two classes
_BACKGROUND_COLOR, _TEXT_COLOR, _MUTED_COLOR = 255, (24, 27, 31), (98, 105, 115)
_BAR_COLOR, _BAR_BACKGROUND_COLOR = (37, 99, 190), (233, 236, 240)
_FONT = cv2.FontFace("sans")


class Figure:
    """An image, uint8 RGB [H, W, 3], that Jupyter displays."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels

    def png(self) -> bytes:
        """Returns the image as a PNG file."""
        return overlays.encode_png(self.pixels)

    def _repr_png_(self) -> bytes:
        return self.png()


class _PlacedPanel(NamedTuple):
    """A panel at its place in a row: left edge, and pixels after resizing."""

    left: int
    panel: Panel
    pixels: np.ndarray


def draw(prediction: ExplainedPrediction) -> Figure:
    """Draws an explained prediction as horizontal strips."""
    height, width = prediction.size
    note = f"{width} × {height} px"
    if prediction.true_class is not None:
        true_class = datasets.display_name(prediction.true_class)
        note = f"{prediction.verdict}: the class is {true_class}, {note}"
    strips = [
        _draw_heading(image_paths.replace_non_utf8(prediction.path), note, 22),
        _draw_summary(prediction),
    ]
    for explanation in prediction.model_explanations:
        strips += [
            _draw_heading("Views", explanation.name),
            *_draw_rows(explanation.views, _VIEW_HEIGHT),
            _draw_heading("Explanation"),
            *_draw_rows(explanation.heat_maps, _HEAT_MAP_HEIGHT),
        ]
    if prediction.carving:
        rows = _draw_rows(prediction.carving, _HEAT_MAP_HEIGHT)
        strips += [_draw_heading("Seam carving"), *rows]
    return Figure(np.concatenate([*strips, _make_blank_strip(_MARGIN)]))


def draw_rows(rows: Iterable[tuple[str, str, Sequence[Panel]]]) -> Figure:
    """Draws rows of panels, each with a title and a note."""
    strips = [
        strip
        for title, note, panels in rows
        for strip in (_draw_heading(title, note), *_draw_rows(panels, _VIEW_HEIGHT))
    ]
    return Figure(np.concatenate([*strips, _make_blank_strip(_MARGIN)]))


def _make_blank_strip(height: int) -> np.ndarray:
    return np.full((height, _WIDTH, 3), _BACKGROUND_COLOR, np.uint8)


def _draw_heading(text: str, note: str = "", size: int = 17) -> np.ndarray:
    strip = _make_blank_strip(size + 36)
    end = _put_text(
        strip, text, (_MARGIN, size + 18), size, weight=700, max_width=_WIDTH - 2 * _MARGIN
    )
    max_width = _WIDTH - _MARGIN - end - 14
    if note and max_width > 80:
        _put_text(strip, note, (end + 14, size + 18), 13, _MUTED_COLOR, max_width=max_width)
    return strip


def _draw_summary(prediction: ExplainedPrediction) -> np.ndarray:
    """Draws the picture on the left and the bars of the top classes on the right."""
    picture = _resize_to_fit(prediction.picture, *_PICTURE_BOX)
    strip = _make_blank_strip(max(picture.shape[0], _BAR_PITCH * len(prediction.top)) + _GAP)
    strip[: picture.shape[0], _MARGIN : _MARGIN + picture.shape[1]] = picture
    left, right = _MARGIN + _PICTURE_BOX[0] + 2 * _GAP, _WIDTH - _MARGIN
    for number, scored in enumerate(prediction.top):
        y = number * _BAR_PITCH
        percent = overlays.format_percent(scored["probability"])
        end = _put_text(strip, scored["name"], (left, y + 18), 16, max_width=right - left - 90)
        if scored["name"] != scored["class"]:
            max_width = right - 90 - end - 10
            position = (end + 10, y + 18)
            _put_text(strip, scored["class"], position, 12, _MUTED_COLOR, max_width=max_width)
        _put_text(strip, percent, (right - _text_width(percent, 16), y + 18), 16, weight=600)
        cv2.rectangle(strip, (left, y + 25), (right, y + 32), _BAR_BACKGROUND_COLOR, cv2.FILLED)
        filled = left + round((right - left) * scored["probability"])
        cv2.rectangle(strip, (left, y + 25), (filled, y + 32), _BAR_COLOR, cv2.FILLED)
    return strip


def _draw_rows(panels: Sequence[Panel], height: int) -> list[np.ndarray]:
    """Draws panels side by side in as few rows as the width allows; returns a strip per row.

    The rows have about the same number of panels, so that the last panel is not alone.
    """
    images = [_resize_to_fit(panel.pixels, 3 * height, height) for panel in panels]
    num_rows = len(_place(panels, images, height, len(panels)))
    rows = _place(panels, images, height, ceil_div(len(panels), num_rows))
    return [_draw_row(row, height) for row in rows]


def _place(
    panels: Sequence[Panel], images: Sequence[np.ndarray], height: int, max_panels: int
) -> list[list[_PlacedPanel]]:
    """Fills rows with panels from the left, at most `max_panels` in each."""
    rows, left = [[]], _MARGIN
    for panel, image in zip(panels, images, strict=True):
        if rows[-1] and (left + image.shape[1] > _WIDTH - _MARGIN or len(rows[-1]) == max_panels):
            rows.append([])
            left = _MARGIN
        rows[-1].append(_PlacedPanel(left, panel, image))
        left += max(image.shape[1], height) + _GAP
    return rows


def _draw_row(row: Sequence[_PlacedPanel], height: int) -> np.ndarray:
    strip = _make_blank_strip(height + 52)
    for left, panel, image in row:
        strip[: image.shape[0], left : left + image.shape[1]] = image
        max_width = max(image.shape[1], height)
        y = image.shape[0]
        _put_text(strip, panel.title, (left, y + 18), 13, weight=600, max_width=max_width)
        _put_text(strip, panel.note, (left, y + 36), 12, _MUTED_COLOR, max_width=max_width)
    return strip


def _resize_to_fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scales an image to fit a box. Small images are enlarged without smoothing."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST if scale > 2 else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=kind)


def _put_text(
    strip: np.ndarray,
    text: str,
    position: tuple[int, int],
    size: int,
    color: tuple[int, int, int] = _TEXT_COLOR,
    weight: int = 400,
    max_width: int = 0,
) -> int:
    """Writes one line of text, cut to `max_width` pixels (0: not cut); returns its right edge."""
    text = " ".join(escape_unprintable(text).split())
    if max_width:
        length = len(text)
        while (
            text
            and _text_width(text if len(text) == length else f"{text}…", size, weight) > max_width
        ):
            text = text[:-1]
        text = text if len(text) == length else f"{text}…"
    if text:
        cv2.putText(strip, text, position, color, _FONT, size, weight)
    return position[0] + _text_width(text, size, weight)


def _text_width(text: str, size: int, weight: int = 400) -> int:
    """Returns the width of a line of text in pixels."""
    if not text:
        return 0
    left, _, width, _ = cv2.getTextSize((_WIDTH, 100), text, (0, 0), _FONT, size, weight)
    return left + width
