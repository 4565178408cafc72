"""Decides which bytes `prepare` stores for an image: the original, a smaller JPEG, or an RGB JPEG.

Pixels come from the decoder that training uses. They therefore equal PIL's, and truncated files
are refused.
"""

import functools
import os

import cv2
import numpy as np
import tensorflow as tf

from input_pipeline.config import Exif
from input_pipeline.decoding import decode
from input_pipeline.decoding.exif import read_orientation
from input_pipeline.errors import DataError

_MAX_JPEG_SIDE = 65_500  # of libjpeg
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP"}
_EXTENSIONS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **{".png": "PNG", ".gif": "GIF", ".bmp": "BMP"},
}
_FRAME_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def detect_format(data: bytes) -> str:
    """Returns the format by the first bytes: JPEG, PNG, GIF, BMP, WEBP, or "" if unknown."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for magic, name in _MAGIC.items() if data.startswith(magic)), "")


def format_from_name(name: str) -> str:
    """Returns the format by the extension of a file name, or "" if unknown."""
    return {**_EXTENSIONS, ".webp": "WEBP"}.get(os.path.splitext(name)[1].lower(), "")


def count_jpeg_components(data: bytes) -> int:
    """Returns the number of color components in a JPEG's frame header, or 0 without a header.

    CMYK has 4.
    """
    position = 2
    while position + 9 < len(data):
        if data[position] != 0xFF:
            return 0
        marker = data[position + 1]
        if marker in _FRAME_MARKERS:
            return data[position + 9]
        if marker == 0xFF:  # padding
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # a marker without a length
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 0


def find_format_mismatch(name: str, data: bytes, exif: Exif = "ignore") -> str:
    """Returns why some readers misread a file, or "". Such files are converted to RGB JPEG.

    A file is affected if its extension names another format, or if it is a CMYK JPEG. With
    `exif` "apply", a JPEG is affected that its EXIF data turns.
    """
    actual, named = detect_format(data), format_from_name(name)
    if actual and named and actual != named:
        return f"{actual} named {os.path.splitext(name)[1]}"
    if actual == "JPEG" and count_jpeg_components(data) == 4:
        return "CMYK JPEG"
    if actual == "JPEG" and exif == "apply":
        orientation = int(_orientation_fn()(tf.constant(data)))
        return f"EXIF orientation {orientation}" if orientation != 1 else ""
    return ""


def prepare_image(
    name: str, data: bytes, short_side: int, quality: int, exif: Exif = "ignore"
) -> tuple[bytes, str]:
    """Returns the bytes to store for an image.

    Args:
      name: name of the file.
      data: its bytes.
      short_side: in pixels. Larger images are shrunk to it, smaller ones are not enlarged. 0 keeps
        the size.
      quality: JPEG quality, 1 to 100.
      exif: see `decode.decode_image`.

    Returns:
      (bytes, reason). The reason is that of `find_format_mismatch`.

    Raises:
      DataError: the image has to be decoded and does not decode, or no JPEG file can hold it.
    """
    reason = find_format_mismatch(name, data, exif)
    if not reason and not short_side:
        return data, ""
    try:
        pixels = _decode_fn(exif)(tf.constant(data)).numpy()
    except tf.errors.OpError as error:
        raise DataError(f"{name} does not decode: {decode.describe_error(error)}") from None
    if not reason and min(pixels.shape[:2]) <= short_side:
        return data, ""
    return _encode_jpeg(name, shrink(pixels, short_side), quality), reason


def shrink(pixels: np.ndarray, short_side: int) -> np.ndarray:
    """Shrinks uint8 [H, W, 3] to a short side with area interpolation. It never enlarges."""
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    if not short_side or scale >= 1:
        return pixels
    size = tuple(max(short_side, round(side * scale)) for side in (width, height))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _encode_jpeg(name: str, pixels: np.ndarray, quality: int) -> bytes:
    """Encodes uint8 [H, W, 3], RGB, as a JPEG file.

    Raises:
      DataError: a side is longer than JPEG allows.
    """
    height, width, _ = pixels.shape
    if max(height, width) > _MAX_JPEG_SIDE:
        raise DataError(
            f"{name}: {width} x {height} px is too large for a JPEG file, whose sides have at most"
            f" {_MAX_JPEG_SIDE} px; shrink or remove it"
        )
    _, jpeg = cv2.imencode(
        ".jpg", np.ascontiguousarray(pixels[..., ::-1]), (cv2.IMWRITE_JPEG_QUALITY, quality)
    )
    return jpeg.tobytes()


@functools.cache
def _decode_fn(exif: Exif) -> tf.types.experimental.PolymorphicFunction:
    """Returns `decode.decode_image` as one graph function. Eagerly it runs some twenty ops."""
    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(lambda data: decode.decode_image(data, exif), input_signature=signature)


@functools.cache
def _orientation_fn() -> tf.types.experimental.PolymorphicFunction:
    return tf.function(read_orientation, input_signature=[tf.TensorSpec([], tf.string)])
