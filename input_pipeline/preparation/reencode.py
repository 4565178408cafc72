"""What `prepare` makes of one image: its own bytes, or a smaller JPEG, or an ordinary one.

Pixels come from the decoder that training uses, so that they are PIL's and a cut file is refused.
"""

import functools
import os

import cv2
import numpy as np
import tensorflow as tf

from input_pipeline.decoding import decode
from input_pipeline.errors import DataError

_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP"}
_EXTENSIONS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".gif": "GIF", ".bmp": "BMP"}
_FRAME_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def detect_format(data):
    """The format of a file by its first bytes: JPEG, PNG, GIF, BMP, WEBP, or "" of none of them."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for magic, name in _MAGIC.items() if data.startswith(magic)), "")


def format_from_name(name):
    """The format that a file's extension promises, or ""."""
    return {**_EXTENSIONS, ".webp": "WEBP"}.get(os.path.splitext(name)[1].lower(), "")


def count_jpeg_components(data):
    """Number of colour components in a JPEG's frame header, 0 where there is none: CMYK has 4."""
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF:
            return 0
        marker = data[at + 1]
        if marker in _FRAME_MARKERS:
            return data[at + 9]
        if marker == 0xFF:  # padding
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def find_format_mismatch(name, data):
    """Why a file is not what its name says to every reader, or "": such files are converted."""
    kind, promised = detect_format(data), format_from_name(name)
    if kind and promised and kind != promised:
        return f"{kind} named {os.path.splitext(name)[1]}"
    if kind == "JPEG" and count_jpeg_components(data) == 4:
        return "CMYK JPEG"
    return ""


def prepare_image(name, data, short_side, quality):
    """The bytes to store of an image.

    Args:
      name: of the file.
      data: its bytes.
      short_side: in pixels; longer ones are shrunk to it, never enlarged. 0 keeps all.
      quality: of JPEG, 1 to 100.

    Returns:
      (bytes, reason): reason says why a file was converted that is not what its name says, else
      it is "". Such a file becomes an RGB JPEG whatever its size.

    Raises:
      DataError: the image does not decode, where decoding it was called for.
    """
    reason = find_format_mismatch(name, data)
    if not reason and not short_side:
        return data, ""
    try:
        pixels = _decode_fn()(tf.constant(data)).numpy()
    except tf.errors.OpError as error:
        raise DataError(f"{name} does not decode: {decode.describe_error(error)}") from None
    if not reason and min(pixels.shape[:2]) <= short_side:
        return data, ""
    return encode_jpeg(shrink(pixels, short_side), quality), reason


def shrink(pixels, short_side):
    """Shrinks uint8 [H, W, 3] to a short side, by areas; never enlarges."""
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    if not short_side or scale >= 1:
        return pixels
    size = tuple(max(short_side, round(side * scale)) for side in (width, height))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def encode_jpeg(pixels, quality):
    """JPEG bytes of uint8 [H, W, 3], RGB."""
    _, jpeg = cv2.imencode(
        ".jpg", np.ascontiguousarray(pixels[..., ::-1]), (cv2.IMWRITE_JPEG_QUALITY, quality)
    )
    return jpeg.tobytes()


@functools.cache
def _decode_fn():
    """`decode.decode_image` as one function: eagerly it is some twenty operations."""
    return tf.function(decode.decode_image, input_signature=[tf.TensorSpec([], tf.string)])
