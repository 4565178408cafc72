"""Scanning of GIF frames, on files made block by block."""

import struct

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.decoding import decode, gif_frames
from tests.input_pipeline import encoded_images as images

# Contains the bytes that start a frame or end the file.
COMMENT = b"\x21\xfe\x04,,,,\x02\x2c;\0"
COLORS = b"\0\0\0\xff\xff\xff"


def gif(canvas, *frames, table=True, before=b""):
    """Makes a file of frames (left, top, width, height), each with the codes of a short frame."""
    data = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80 if table else 0, 0, 0)
    data += COLORS if table else b""
    for number, frame in enumerate(frames):
        own = b"" if table and number % 2 == 0 else COLORS
        data += before + b"," + struct.pack("<HHHHB", *frame, 0x80 if own else 0) + own
        data += b"\x02\x02\x4c\x01\0"
    return data + b";"


@pytest.mark.parametrize(
    ("data", "pixels", "whole"),
    [
        (gif((7, 5), (0, 0, 7, 5)), 35, True),
        (gif((7, 5), (0, 0, 7, 5), table=False), 35, True),
        (gif((7, 5), (0, 0, 7, 5), (1, 1, 2, 3), (0, 0, 7, 5), before=COMMENT), 76, True),
        (gif((7, 5), (0, 0, 7, 4), (0, 0, 7, 5)), 63, False),
        (gif((7, 5), (1, 0, 7, 5)), 35, False),
        (gif((7, 5), (0, 2, 7, 5)), 35, False),
        (gif((16, 16), (0, 0, 65535, 65535)), 65535**2, False),
        (gif((16, 16), *[(0, 0, 65535, 65535)] * 3), 3 * 65535**2, False),
        (gif((7, 5)), 0, True),
        (gif((7, 5), (0, 0, 7, 5), (0, 0, 7, 5))[:-8], 70, True),
        (b"GIF89a", 0, True),
        (b"GIF89a" + b"\xff" * 50, 0, True),
    ],
)
def test_scan_frames(data, pixels, whole):
    frames = gif_frames.scan_frames(tf.constant(data))
    assert [int(frames.num_pixels), bool(frames.first_fills_canvas)] == [pixels, whole]


def test_scan_frames_of_a_file_truncated_at_any_byte():
    data = gif((7, 5), (0, 0, 7, 5), (0, 0, 7, 5), before=COMMENT)
    counts = [
        int(gif_frames.scan_frames(tf.constant(data[:end])).num_pixels)
        for end in range(len(data) + 1)
    ]
    assert counts[0] == 0 and counts[-1] == 70 and counts == sorted(counts)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gif((16, 16), (0, 0, 16, 16), (0, 0, 65535, 32767)), "too many pixels"),
        (gif((9500, 9500), *[(0, 0, 9500, 9500)] * 2), "too many pixels"),
        (gif((7, 5), (0, 0, 2, 2), (0, 0, 7, 5)), "first frame does not match"),
    ],
)
def test_rejected_files(data, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode.decode_image(tf.constant(data))


def test_transparent_pixels_are_black():
    """PIL returns the color that the palette has at their index."""
    picture = images.picture().quantize(4)
    data = images.encoded(picture, "GIF", transparency=0)
    pixels = decode.decode_image(tf.constant(data)).numpy()
    clear = np.array(picture) == 0
    np.testing.assert_array_equal(pixels[~clear], np.array(picture.convert("RGB"))[~clear])
    assert clear.any() and not pixels[clear].any()
