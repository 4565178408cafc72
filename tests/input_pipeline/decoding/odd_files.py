"""Generates unusual image files, as found in real data sets, with their expected results."""

import dataclasses
import functools
import io
import struct

import cv2
import numpy as np
from PIL import Image

from tests.input_pipeline import encoded_images as images

HEIGHT, WIDTH = 375, 500


@dataclasses.dataclass(frozen=True)
class OddFile:
    """A file and its expected result.

    Attributes:
      data: content of the file.
      refused: part of the error message, or "" if the file must be decoded.
      tolerance: largest difference from PIL's pixels.
    """

    data: bytes
    refused: str = ""
    tolerance: int = 0


def decode_with_pil(data: bytes) -> np.ndarray:
    """Decodes with PIL: uint8 [H, W, 3].

    Takes the upper 8 bits of 16-bit images, which PIL would clip at 255.
    """
    Image.MAX_IMAGE_PIXELS = None
    image = Image.open(io.BytesIO(data))
    if image.mode.startswith("I"):
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=-1)
    return np.asarray(image.convert("RGB"))


def _damaged(data):
    """Changes 40 bytes of the pixels but does not create or touch the 0xFF of a marker."""
    damaged, at = bytearray(data), len(data) // 2
    for _ in range(40):
        at += 7
        while 0xFF in data[at - 1 : at + 2] or damaged[at] ^ 0x5A == 0xFF:
            at += 1
        damaged[at] ^= 0x5A
    return bytes(damaged)


def _encode_with_opencv(pixels):
    ok, data = cv2.imencode(".png", pixels)
    assert ok
    return data.tobytes()


def _top_down_bmp():
    """A BMP of 8 bits whose first row is stored first, with three colors (BITMAPINFOHEADER)."""
    rows, colors = b"\0\1\2\0\2\2\2\0", b"\1\2\3\0\4\5\6\0\7\x08\x09\0"
    header = struct.pack("<IiiHHIIiiII", 40, 3, -2, 1, 8, 0, len(rows), 0, 0, 3, 0)
    start = 14 + len(header) + len(colors)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + colors + rows


@functools.cache
def odd_files() -> dict[str, OddFile]:
    """Makes the files, by name."""
    rng = np.random.default_rng(0)
    soft = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    base = cv2.resize(soft, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    image = Image.fromarray(base)
    few = image.quantize(64)
    jpeg = functools.partial(images.encoded, kind="JPEG", quality=90)
    good, exif = jpeg(image), Image.Exif()
    exif[0x112] = 6
    frames = [image.rotate(angle).quantize(64) for angle in (90, 180)]
    pngs = {
        f"png of mode {mode}, named .JPEG": OddFile(images.encoded(image.convert(mode), "PNG"))
        for mode in ("RGB", "RGBA", "P", "1", "LA")
    }
    black = Image.fromarray(np.zeros((8000, 8000, 3), np.uint8))
    decodable = {
        "good": OddFile(good),
        "gray": OddFile(jpeg(image.convert("L"))),
        "cmyk": OddFile(jpeg(image.convert("CMYK")), tolerance=1),
        "progressive": OddFile(jpeg(image, progressive=True)),
        **pngs,
        "png of 16 bits, gray": OddFile(_encode_with_opencv(base[..., 0].astype(np.uint16) * 257)),
        "png of 16 bits": OddFile(_encode_with_opencv(base.astype(np.uint16) * 257)),
        # Only a checksum could detect that these pixels changed.
        "damaged in the middle": OddFile(_damaged(good)),
        "trailing garbage": OddFile(good + rng.bytes(3000)),
        "gif": OddFile(images.encoded(few, "GIF")),
        "gif of three frames": OddFile(
            images.encoded(few, "GIF", save_all=True, append_images=frames)
        ),
        "bmp": OddFile(images.encoded(image, "BMP")),
        "bmp of 8 bits, gray": OddFile(images.encoded(image.convert("L"), "BMP")),
        "bmp of 8 bits, colors": OddFile(images.encoded(few, "BMP")),
        "bmp of 8 bits, width 7": OddFile(images.encoded(few.crop((0, 0, 7, 5)), "BMP")),
        "bmp of 8 bits, top-down": OddFile(_top_down_bmp()),
        "webp": OddFile(images.encoded(image, "WEBP")),
        "exif orientation": OddFile(jpeg(image, exif=exif)),
        "1 x 1": OddFile(jpeg(Image.new("RGB", (1, 1), (9, 90, 200)))),
        "1 x 5000": OddFile(jpeg(Image.new("RGB", (5000, 1), (9, 90, 200)))),
        "8000 x 8000": OddFile(images.encoded(black, "JPEG", quality=1, progressive=True)),
    }
    broken, unknown = "Invalid JPEG data", "not a JPEG, PNG, BMP, GIF or WebP file"
    pixels = "claims too many pixels"
    zeros = bytes((14_000 // 8 + 1) * 14_000)
    return decodable | {
        "bmp of 1 bit": OddFile(images.encoded(image.convert("1"), "BMP"), "a BMP file of OS/2"),
        "bmp of 8 bits, cut": OddFile(images.encoded(few, "BMP")[:-1], "a truncated BMP"),
        "bmp of 8 bits, only a header": OddFile(images.encoded(few, "BMP")[:40], "a truncated BMP"),
        "half": OddFile(good[: len(good) // 2], broken),
        "without its last two bytes": OddFile(good[:-2], broken),
        "200 bytes": OddFile(good[:200], broken),
        "empty": OddFile(b"", "empty"),
        "noise": OddFile(rng.bytes(5000), unknown),
        "page": OddFile(b"<html>404 not found</html>", unknown),
        "avif": OddFile(images.encoded(image, "AVIF"), unknown),
        "tiff": OddFile(images.encoded(image, "TIFF"), unknown),
        "no height": OddFile(images.with_jpeg_size(good, 0, WIDTH), "Invalid JPEG data"),
        "claims 65500 x 65500": OddFile(images.with_jpeg_size(good, 65500, 65500), pixels),
        "claims 14000 x 14000": OddFile(images.with_jpeg_size(good, 14000, 14000), pixels),
        "png claims 100000 x 100000": OddFile(
            images.png(100_000, 100_000, 8, 2, bytes(1000)), pixels
        ),
        "png of 14000 x 14000": OddFile(images.png(14_000, 14_000, 1, 0, zeros), pixels),
        "gif claims 65535 x 65535": OddFile(images.gif_header(65535, 65535), pixels),
        "bmp claims 30000 x 30000": OddFile(images.bmp_header(30_000, 30_000), pixels),
    }
