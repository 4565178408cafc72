"""Generates encoded image files for tests: valid ones of every format, and corrupt ones."""

import functools
import io
import struct
import zlib
from collections.abc import Callable, Mapping

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image

from input_pipeline import threads

HEIGHT, WIDTH = 61, 93  # odd, and not multiples of JPEG's 8 and 16 pixel blocks
SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    """Encodes an image with PIL."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@functools.cache
def picture() -> Image.Image:
    """Makes soft colors with noise, which reveal wrong chroma, rounding and shifts."""
    rng = np.random.default_rng(0)
    soft = cv2.resize(rng.integers(0, 256, (9, 13, 3)).astype(np.uint8), (WIDTH, HEIGHT))
    noisy = soft + rng.integers(-20, 21, soft.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


@functools.cache
def good_files() -> dict[str, bytes]:
    """Makes files, by name, that we decode to the same pixels as PIL."""
    image = picture()
    red, green, blue = image.split()
    black = blue.point(lambda value: value // 3)
    turned = Image.Exif()
    turned[0x112] = 6
    files = {
        f"jpeg {name}": encoded(image, "JPEG", quality=90, subsampling=number)
        for name, number in SUBSAMPLINGS.items()
    }
    return files | {
        "jpeg coarse": encoded(image, "JPEG", quality=20),
        "jpeg progressive": encoded(image, "JPEG", quality=90, progressive=True),
        "jpeg gray": encoded(image.convert("L"), "JPEG", quality=90),
        "jpeg cmyk": encoded(Image.merge("CMYK", (red, green, blue, black)), "JPEG", quality=90),
        "jpeg rgb": encoded(image, "JPEG", quality=90, keep_rgb=True),
        "jpeg exif": encoded(image, "JPEG", quality=90, exif=turned),
        "jpeg with trailing bytes": encoded(image, "JPEG", quality=90) + b"tail" * 100,
        "jpeg 1x1": encoded(image.crop((5, 5, 6, 6)), "JPEG", quality=90),
        "png": encoded(image, "PNG"),
        "png gray": encoded(image.convert("L"), "PNG"),
        "png palette": encoded(image.quantize(32), "PNG"),
        "png two colors": encoded(image.convert("1"), "PNG"),
        "png alpha": encoded(Image.merge("RGBA", (red, green, blue, blue)), "PNG"),
        "png gray alpha": encoded(Image.merge("LA", (red, blue)), "PNG"),
        "bmp": encoded(image, "BMP"),
        "gif": encoded(image.quantize(64), "GIF"),
        "gif of two": encoded(
            image.quantize(64),
            "GIF",
            save_all=True,
            append_images=[image.rotate(180).quantize(64)],
        ),
        "webp": encoded(image, "WEBP"),
        "webp lossless": encoded(image, "WEBP", lossless=True),
    }


def with_jpeg_size(data: bytes, height: int, width: int) -> bytes:
    """Changes the size in the header of a JPEG."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def png(height: int, width: int, bits: int, color_type: int, rows: bytes) -> bytes:
    """Makes a PNG with any header; `rows` are the uncompressed bytes."""

    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def with_webp_size(data: bytes, height: int, width: int) -> bytes:
    """Changes the size in the header of a lossless WebP: 14 bits each, minus one."""
    at = data.index(b"VP8L") + 9
    bits = struct.unpack("<I", data[at : at + 4])[0] >> 28 << 28
    bits |= (height - 1) << 14 | (width - 1)
    return data[:at] + struct.pack("<I", bits) + data[at + 4 :]


def gif_header(height: int, width: int) -> bytes:
    """Makes a GIF of two colors that ends after the first two bytes of codes."""
    size = struct.pack("<HH", width, height)
    screen, frame = size + b"\x80\0\0" + bytes(6), b"," + bytes(4) + size + b"\0"
    return b"GIF89a" + screen + frame + b"\x02\x02\x4c\x01\0;"


def bmp_header(height: int, width: int) -> bytes:
    """Makes a BMP without pixels."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


@functools.cache
def bad_files() -> dict[str, bytes]:
    """Makes files, by name, that must be rejected."""
    good = good_files()
    jpeg = good["jpeg 4:2:0"]
    files = {
        "empty": b"",
        "one letter": b"a",
        "page": b"<html>404 not found</html>",
        "noise": np.random.default_rng(1).bytes(5000),
        "zeros": bytes(5000),
        "jpeg in 14000 x 14000": with_jpeg_size(jpeg, 14000, 14000),
        "jpeg in 65500 x 65500": with_jpeg_size(jpeg, 65500, 65500),
        "jpeg of no height": with_jpeg_size(jpeg, 0, WIDTH),
        "png in 100000 x 100000": png(100_000, 100_000, 8, 2, bytes(1000)),
        "png in 30000 x 30000": png(30_000, 30_000, 8, 2, bytes(1000)),
        "gif in 65535 x 65535": gif_header(65535, 65535),
        "bmp in 30000 x 30000": bmp_header(30_000, 30_000),
        "jpeg without its last byte": jpeg[:-1],
        "jpeg progressive, half": good["jpeg progressive"][:2000],
    }
    for kind in ("jpeg 4:2:0", "png", "gif", "bmp", "webp lossless"):
        files[f"{kind}, half"] = good[kind][: len(good[kind]) // 2]
        files[f"{kind}, 30 bytes"] = good[kind][:30]
    return files


def each_in_tf_data(
    files: Mapping[str, bytes], function: Callable[[tf.Tensor], tf.Tensor]
) -> dict[str, np.ndarray | tf.errors.OpError]:
    """Maps a function over one dataset of all files; returns the result or error by name."""
    dataset = tf.data.Dataset.from_tensor_slices(list(files.values())).map(function)
    iterator, results = iter(dataset.with_options(threads.make_dataset_options())), {}
    for name in files:
        try:
            results[name] = next(iterator).numpy()
        except tf.errors.OpError as error:
            results[name] = error
    assert next(iterator, None) is None
    return results
