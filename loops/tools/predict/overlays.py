"""Pixels made from numbers: heat over a picture, seams, and the files that hold them."""

import cv2
import numpy as np

_SEAM_COLOR = (255, 60, 90)


def draw_heat_map(picture, values):
    """Lays a map of what matters over a picture, which turns grey and dark where nothing does.

    Args:
      picture: uint8 array [S, S, 3], RGB.
      values: array [h, w] of numbers from 0 on; scaled so that the largest is brightest.

    Returns:
      uint8 array [S, S, 3].
    """
    height, width = picture.shape[:2]
    values = np.asarray(values, np.float32)
    share = cv2.resize(values / max(float(values.max()), 1e-12), (width, height))
    share = np.clip(share, 0, 1)[..., None]  # [S, S, 1]
    colours = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None] * np.ones(3)
    strength = 0.25 + 0.45 * share
    return np.round((1 - strength) * grey + strength * colours).astype(np.uint8)


def highlight_pixels(picture, mask):
    """A copy of uint8 [H, W, 3] with the pixels of a bool mask [H, W] in a loud colour."""
    copy = picture.copy()
    copy[mask] = _SEAM_COLOR
    return copy


def encode_png(pixels):
    """The PNG file, bytes, of uint8 RGB [H, W, 3]."""
    return _encode(".png", pixels, [])


def encode_jpeg(pixels):
    """The JPEG file, bytes, of uint8 RGB [H, W, 3]; good enough to look at closely."""
    # Without it, a thin red seam would be smeared over its neighbours.
    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90, *full_colour])


def format_percent(probability):
    """A probability as people read it: `83.2 %`; never a rounded 100 or 0 that is not one."""
    if 0 < probability < 0.0005:
        return "<0.1 %"
    if 0.9995 <= probability < 1:
        return ">99.9 %"
    return f"{100 * probability:.1f} %"


def _encode(kind, pixels, options):
    ok, data = cv2.imencode(kind, np.ascontiguousarray(pixels[..., ::-1]), options)
    if not ok:
        raise RuntimeError(f"OpenCV cannot write {pixels.shape} as {kind}")
    return data.tobytes()
