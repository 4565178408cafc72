"""An exhibit as one image: for the notebook, and for `--explain` without a page."""

import cv2
import numpy as np

from input_pipeline.text import escape_non_utf8
from loops.tools.predict import image_paths, overlays

_WIDTH, _MARGIN, _GAP = 1120, 24, 16
_PICTURE_BOX = (420, 320)  # width and height that the picture is fitted into
_VIEW_HEIGHT, _HEAT_MAP_HEIGHT = 200, 256  # height of a view and of a heat map
_BACKGROUND_COLOR, _TEXT_COLOR, _MUTED_COLOR = 255, (24, 27, 31), (98, 105, 115)
_BAR_COLOR, _BAR_BACKGROUND_COLOR = (37, 99, 190), (233, 236, 240)
_FONT = cv2.FontFace("sans")


class Figure:
    """uint8 RGB [H, W, 3] that Jupyter shows as it is."""

    def __init__(self, pixels):
        self.pixels = pixels

    def png(self):
        """The PNG file, bytes."""
        return overlays.encode_png(self.pixels)

    def _repr_png_(self):
        return self.png()


def draw(exhibit):
    """Draws an exhibit, strip under strip.

    Args:
      exhibit: `explained_prediction.ExplainedPrediction`.

    Returns:
      Figure.
    """
    height, width = exhibit.size
    strips = [
        _draw_heading(image_paths.replace_non_utf8(exhibit.path), f"{width} × {height} px", 22),
        _draw_summary(exhibit),
    ]
    for look in exhibit.model_explanations:
        title = "What the net saw" if len(exhibit.model_explanations) == 1 else "What one net saw"
        strips += [_draw_heading(title, look.name), *_draw_rows(look.views, _VIEW_HEIGHT)]
        strips += [
            _draw_heading("What the answer rests on"),
            *_draw_rows(look.heat_maps, _HEAT_MAP_HEIGHT),
        ]
    strips += [_draw_heading("Seam carving"), *_draw_rows(exhibit.carving, _HEAT_MAP_HEIGHT)]
    return Figure(np.concatenate([*strips, _make_blank_strip(_MARGIN)]))


def _make_blank_strip(height):
    return np.full((height, _WIDTH, 3), _BACKGROUND_COLOR, np.uint8)


def _draw_heading(text, note="", size=17):
    strip = _make_blank_strip(size + 36)
    end = _put_text(strip, text, (_MARGIN, size + 18), size, weight=700, room=_WIDTH - 2 * _MARGIN)
    room = _WIDTH - _MARGIN - end - 14
    if note and room > 80:
        _put_text(strip, note, (end + 14, size + 18), 13, _MUTED_COLOR, room=room)
    return strip


def _draw_summary(exhibit):
    """The picture at the left, the bars of the best classes at the right."""
    picture = _resize_to_fit(exhibit.picture, *_PICTURE_BOX)
    step = 46
    strip = _make_blank_strip(max(picture.shape[0], step * len(exhibit.top)) + _GAP)
    strip[: picture.shape[0], _MARGIN : _MARGIN + picture.shape[1]] = picture
    left, right = _MARGIN + _PICTURE_BOX[0] + 2 * _GAP, _WIDTH - _MARGIN
    for number, found in enumerate(exhibit.top):
        y = number * step
        label = overlays.format_percent(found["probability"])
        end = _put_text(strip, found["name"], (left, y + 18), 16, room=right - left - 90)
        if found["name"] != found["class"]:
            room = right - 90 - end - 10
            _put_text(strip, found["class"], (end + 10, y + 18), 12, _MUTED_COLOR, room=room)
        _put_text(strip, label, (right - _text_width(label, 16), y + 18), 16, weight=600)
        cv2.rectangle(strip, (left, y + 25), (right, y + 32), _BAR_BACKGROUND_COLOR, cv2.FILLED)
        filled = left + round((right - left) * found["probability"])
        cv2.rectangle(strip, (left, y + 25), (filled, y + 32), _BAR_COLOR, cv2.FILLED)
    return strip


def _draw_rows(panels, height):
    """Strips of panels beside each other, as many in a row as there is room for."""
    images = [_resize_to_fit(panel.pixels, 3 * height, height) for panel in panels]
    rows, x = [[]], _MARGIN
    for panel, image in zip(panels, images, strict=True):
        if rows[-1] and x + image.shape[1] > _WIDTH - _MARGIN:
            rows.append([])
            x = _MARGIN
        rows[-1].append((x, panel, image))
        x += max(image.shape[1], height) + _GAP
    return [_draw_row(row, height) for row in rows]


def _draw_row(placed, height):
    strip = _make_blank_strip(height + 52)
    for x, panel, image in placed:
        strip[: image.shape[0], x : x + image.shape[1]] = image
        room = max(image.shape[1], height)
        _put_text(strip, panel.title, (x, image.shape[0] + 18), 13, weight=600, room=room)
        _put_text(strip, panel.note, (x, image.shape[0] + 36), 12, _MUTED_COLOR, room=room)
    return strip


def _resize_to_fit(image, width, height):
    """Scales an image into a box; small ones grow without smoothing, to show their pixels."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST if scale > 2 else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=kind)


def _put_text(strip, text, at, size, colour=_TEXT_COLOR, weight=400, room=0):
    """Writes one line of text, cut to `room` pixels; returns where it ends."""
    text = " ".join(escape_non_utf8(text).split())
    if room:
        whole = len(text)
        while text and _text_width(text if len(text) == whole else f"{text}…", size, weight) > room:
            text = text[:-1]
        text = text if len(text) == whole else f"{text}…"
    if text:
        cv2.putText(strip, text, at, colour, _FONT, size, weight)
    return at[0] + _text_width(text, size, weight)


def _text_width(text, size, weight=400):
    """Width of a line of text in pixels."""
    if not text:
        return 0
    left, _, width, _ = cv2.getTextSize((_WIDTH, 100), text, (0, 0), _FONT, size, weight)
    return left + width
