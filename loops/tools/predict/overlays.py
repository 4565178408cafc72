"""Heat maps and seams drawn over images, and their encoding as files."""

from collections.abc import Sequence

import cv2
import numpy as np

_SEAM_COLOR = (255, 60, 90)


def draw_heat_map(picture: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Overlays a heat map on a picture, which is gray and dark where the values are low.

    Args:
      picture: uint8 [S, S, 3], RGB.
      values: non-negative numbers [h, w], scaled so that the largest is brightest.

    Returns:
      uint8 [S, S, 3].
    """
    height, width = picture.shape[:2]
    values = np.asarray(values, np.float32)
    heat = cv2.resize(values / max(float(values.max()), 1e-12), (width, height))
    heat = np.clip(heat, 0, 1)[..., None]  # [S, S, 1]
    colors = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None] * np.ones(3)
    opacity = 0.25 + 0.45 * heat
    return np.round((1 - opacity) * gray + opacity * colors).astype(np.uint8)


def highlight_pixels(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns a copy of uint8 [H, W, 3] with the pixels of a bool mask [H, W] in bright red."""
    copy = picture.copy()
    copy[mask] = _SEAM_COLOR
    return copy


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes uint8 RGB [H, W, 3] as PNG."""
    return _encode(".png", pixels, [])


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """Encodes uint8 RGB [H, W, 3] as JPEG of high quality."""
    # Chroma subsampling would smear a thin red seam over the pixels next to it.
    no_subsampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90, *no_subsampling])


def format_percent(probability: float) -> str:
    """Formats a probability as in `83.2 %`. Only exact values become 0.0 % and 100.0 %."""
    if 0 < probability < 0.0005:
        return "<0.1 %"
    if 0.9995 <= probability < 1:
        return ">99.9 %"
    return f"{100 * probability:.1f} %"


def _encode(extension: str, pixels: np.ndarray, options: Sequence[int]) -> bytes:
    ok, data = cv2.imencode(extension, np.ascontiguousarray(pixels[..., ::-1]), options)
    if not ok:
        raise RuntimeError(f"OpenCV cannot write {pixels.shape} as {extension}")
    return data.tobytes()
