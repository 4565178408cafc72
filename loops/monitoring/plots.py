"""Draws with OpenCV: image grids, filters, curves, reliability diagram, confusion matrix."""

import itertools
import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from input_pipeline.text import escape_unprintable

_Color = tuple[int, int, int]  # RGB
_BLACK, _GRAY, _LIGHT, _WHITE = (0,) * 3, (150,) * 3, (225,) * 3, (255,) * 3
_BLUE, _RED = (31, 90, 180), (200, 60, 50)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_image_grid(
    images: Sequence[np.ndarray] | np.ndarray,
    titles: Sequence[str],
    columns: int = 8,
    cell: int = 128,
    caption: int = 18,
) -> np.ndarray:
    """Draws images row by row with a title below each.

    Args:
      images: uint8 [N, S, S, 3], RGB.
      titles: N strings of one or more lines; long lines are truncated.
      columns: images per row.
      cell: side of a drawn image in pixels.
      caption: height of a line of a title in pixels.

    Returns:
      uint8 [rows * (cell + lines * caption), columns * cell, 3], RGB, on white.
    """
    rows = math.ceil(len(images) / columns)
    height = cell + caption * max(title.count("\n") + 1 for title in titles)
    canvas = np.full((rows * height, columns * cell, 3), 255, np.uint8)
    for number, (image, title) in enumerate(zip(images, titles, strict=True)):
        top, left = number // columns * height, number % columns * cell
        method = cv2.INTER_AREA if image.shape[0] > cell else cv2.INTER_NEAREST
        canvas[top : top + cell, left : left + cell] = cv2.resize(
            image, (cell, cell), None, 0, 0, method
        )
        for index, text in enumerate(title.split("\n")):
            position = (left + 3, top + cell + caption * (index + 1) - 5)
            _draw_text(canvas, text[: cell // 7], position)
    return canvas


def draw_filters(kernel: np.ndarray, columns: int = 16, zoom: int = 4) -> np.ndarray:
    """Draws the filters of a first convolution as colors (Zeiler & Fergus 2013, figure 6).

    Each filter is scaled by its own largest weight, so that a weight of 0 is gray.

    Args:
      kernel: float [h, w, 3, F].
      columns: filters per row.
      zoom: side of a drawn weight in pixels.

    Returns:
      uint8 [H, W, 3], RGB, with lines of a weight's width between the filters.
    """
    filters = np.moveaxis(kernel, -1, 0).astype(np.float64)  # [F, h, w, 3]
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    pixels = np.round(127.5 + 127.5 * filters / np.maximum(largest, 1e-12)).astype(np.uint8)
    framed = np.pad(pixels, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)
    count, height, width, _ = framed.shape
    rows = math.ceil(count / columns)
    grid = np.full((rows * columns, height, width, 3), 255, np.uint8)
    grid[:count] = framed
    grid = grid.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    image = grid.reshape(rows * height, columns * width, 3)
    return image.repeat(zoom, axis=0).repeat(zoom, axis=1)


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    top: float = 0.0,
    width: int = 460,
    height: int = 260,
    margin: int = 50,
    x_title: str = "step",
    x_ticks: Sequence[str] = (),
) -> np.ndarray:
    """Draws curves of a metric over training steps, at most two.

    Args:
      curves: by name, points (step, value) in the order of the steps.
      title: the name of the metric.
      top: upper end of the vertical axis; 0: the largest value.
      width, height: lengths of the axes in pixels.
      margin: width of the margin in pixels.
      x_title: the name of the horizontal axis.
      x_ticks: names of the places 0, 1, 2 ... on the horizontal axis; if empty, it is numbered.

    Returns:
      uint8 [height + 2 * margin, width + 2 * margin, 3], RGB.
    """
    canvas = np.full((height + 2 * margin, width + 2 * margin, 3), 255, np.uint8)
    points = [point for curve in curves.values() for point in curve]
    last = max(1.0, len(x_ticks) - 1.0, *(x for x, _ in points))
    top = top or max((value for _, value in points), default=1.0) or 1.0

    def to_pixel(x: float, y: float) -> tuple[int, int]:
        return margin + round(x / last * width), margin + height - round(y / top * height)

    if x_ticks:
        places = dict(enumerate(x_ticks))
    else:
        places = {x: f"{x:.0f}" for x in np.linspace(0, last, 6)}
    for place, name in places.items():
        cv2.line(canvas, to_pixel(place, 0), to_pixel(place, top), _LIGHT, 1)
        x, y = to_pixel(place, 0)
        _draw_text(canvas, name, (x - 10, y + 16))
    for value in np.linspace(0, top, 6):
        cv2.line(canvas, to_pixel(0, value), to_pixel(last, value), _LIGHT, 1)
        x, y = to_pixel(0, value)
        _draw_text(canvas, f"{value:.{2 if top < 100 else 0}f}", (x - 36, y + 4))
    _draw_text(canvas, title, (6, margin - 16))
    middle = margin + width // 2 - 4 * len(x_title)
    _draw_text(canvas, x_title, (middle, height + 2 * margin - 14))
    for number, ((name, curve), color) in enumerate(
        zip(curves.items(), (_BLUE, _RED), strict=False)
    ):
        pixels = np.array([to_pixel(*point) for point in curve], np.int32).reshape(-1, 1, 2)
        cv2.polylines(canvas, [pixels], False, color, 2, cv2.LINE_AA)
        for step, value in curve:
            cv2.circle(canvas, to_pixel(step, value), 3, color, -1, cv2.LINE_AA)
        _draw_text(canvas, name, (margin + 140 + 110 * number, margin - 16), color)
    cv2.rectangle(canvas, to_pixel(0, top), to_pixel(last, 0), _BLACK, 1)
    return canvas


def draw_reliability_diagram(
    points: Mapping[str, Sequence[float]], side: int = 360, margin: int = 46
) -> np.ndarray:
    """Draws accuracy over confidence; a calibrated model lies on the diagonal.

    Args:
      points: confidence, accuracy and num_examples of each bin, see `calibration.reliability`.
      side: length of the axes in pixels.
      margin: width of the margin in pixels.

    Returns:
      uint8 [H, W, 3], RGB.
    """
    canvas = np.full((side + 2 * margin, side + 2 * margin, 3), 255, np.uint8)

    def to_pixel(x: float, y: float) -> tuple[int, int]:
        return margin + round(x * side), margin + side - round(y * side)

    for tick in np.linspace(0, 1, 6):
        cv2.line(canvas, to_pixel(tick, 0), to_pixel(tick, 1), _LIGHT, 1)
        cv2.line(canvas, to_pixel(0, tick), to_pixel(1, tick), _LIGHT, 1)
        x, y = to_pixel(tick, 0)
        _draw_text(canvas, f"{tick:.1f}", (x - 10, y + 16))
        x, y = to_pixel(0, tick)
        _draw_text(canvas, f"{tick:.1f}", (x - 28, y + 4))
    cv2.line(canvas, to_pixel(0, 0), to_pixel(1, 1), _GRAY, 1, cv2.LINE_AA)
    bins = list(zip(points["confidence"], points["accuracy"], strict=True))
    for confidence, accuracy in bins:  # the gaps whose mean is the expected calibration error
        cv2.line(canvas, to_pixel(confidence, confidence), to_pixel(confidence, accuracy), _RED, 2)
    for (x0, y0), (x1, y1) in itertools.pairwise(bins):
        cv2.line(canvas, to_pixel(x0, y0), to_pixel(x1, y1), _BLUE, 1, cv2.LINE_AA)
    for confidence, accuracy in bins:
        cv2.circle(canvas, to_pixel(confidence, accuracy), 4, _BLUE, -1, cv2.LINE_AA)
    cv2.rectangle(canvas, to_pixel(0, 1), to_pixel(1, 0), _BLACK, 1)
    below = (margin + side // 2 - 100, 2 * margin + side - 8)
    _draw_text(canvas, "confidence, bins of equal mass", below)
    _draw_text(canvas, "accuracy", (6, margin - 12))
    return canvas


def draw_confusion_matrix(
    matrix: np.ndarray, names: Sequence[str], longest: int = 1000
) -> np.ndarray:
    """Draws a confusion matrix with true classes as rows and predicted classes as columns.

    A cell is darker the larger its share of the row. The diagonal is blue and mistakes are red.
    With up to 20 classes, names and counts are shown.

    Args:
      matrix: int [C, C].
      names: C strings.
      longest: approximate side of all cells together in pixels.

    Returns:
      uint8 [H, W, 3], RGB.
    """
    count = len(matrix)
    named = count <= 20
    cell = max(1, min(48, longest // count))
    margin = 130 if named else 24
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # The square root makes a confusion of a few percent visible next to a diagonal of 90 %.
    weight = np.sqrt(share)[..., None]
    colors = np.where(np.eye(count, dtype=bool)[..., None], _BLUE, _RED)
    cells = (255 - weight * (255 - colors)).astype(np.uint8)
    cells = cells.repeat(cell, 0).repeat(cell, 1)
    canvas = np.full((margin + len(cells) + 4, margin + len(cells) + 4, 3), 255, np.uint8)
    canvas[margin : margin + len(cells), margin : margin + len(cells)] = cells
    corner = (margin + len(cells), margin + len(cells))
    cv2.rectangle(canvas, (margin - 1, margin - 1), corner, _GRAY, 1)
    _draw_text(canvas, "true, down; predicted, right", (4, 14))
    if not named:
        return canvas
    columns = np.full((len(cells), margin - 4, 3), 255, np.uint8)  # rotated below
    for number, name in enumerate(names):
        middle = number * cell + cell // 2 + 4
        _draw_text(canvas, name[:17], (4, margin + middle))
        _draw_text(columns, name[:14], (2, middle))
        for other in range(count):
            if matrix[number, other]:
                color = _WHITE if weight[number, other, 0] > 0.7 else _BLACK
                position = (margin + other * cell + 4, margin + middle)
                _draw_text(canvas, str(matrix[number, other]), position, color)
    upright = cv2.rotate(columns, cv2.ROTATE_90_COUNTERCLOCKWISE)
    canvas[20 : margin - 4, margin : margin + len(cells)] = upright[-(margin - 24) :]
    return canvas


def _draw_text(
    canvas: np.ndarray, text: str, position: tuple[int, int], color: _Color = _BLACK
) -> None:
    """Draws small text with its lower left corner at (x, y)."""
    cv2.putText(canvas, escape_unprintable(text), position, _FONT, 0.38, color, 1, cv2.LINE_AA)
