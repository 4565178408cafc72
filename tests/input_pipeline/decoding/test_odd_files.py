"""Unusual image files: pixels equal to PIL or a reason, bounded memory, no other image moves."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import pipeline, sample_order
from input_pipeline.config import DataConfig
from input_pipeline.decoding import decode
from input_pipeline.sources import source
from tests.input_pipeline import encoded_images
from tests.input_pipeline.decoding import odd_files

ROOT = pathlib.Path(__file__).resolve().parents[3]
TABLE = odd_files.odd_files()
MEGABYTE = 1e6


def _whole_image(shape):
    return tf.concat([[0, 0], shape], 0)


@pytest.fixture(scope="module")
def results():
    """Pixels or error inside tf.data, by decoder and file name."""
    files = {name: odd.data for name, odd in TABLE.items()}
    decoders = {
        "decode": decode.decode_image,
        "decode_cropped": lambda data: decode.decode_cropped(data, _whole_image),
    }
    return {name: encoded_images.each_in_tf_data(files, d) for name, d in decoders.items()}


@pytest.mark.parametrize("decoder", ["decode", "decode_cropped"])
@pytest.mark.parametrize("name", TABLE)
def test_pixels_equal_pil_or_rejected(name, decoder, results):
    odd, result = TABLE[name], results[decoder][name]
    if odd.refused:
        assert isinstance(result, tf.errors.InvalidArgumentError)
        reason = decode.describe_error(result)
        # If the bytes are not an image, the messages of the two decoders differ.
        assert odd.refused in reason or decoder == "decode_cropped"
        assert reason and "\n" not in reason
    else:
        expected = odd_files.decode_with_pil(odd.data)
        assert result.shape == expected.shape
        if odd.tolerance:
            assert np.abs(result.astype(np.int16) - expected).max() <= odd.tolerance
        else:
            assert np.array_equal(result, expected)


def test_odd_files_move_no_other_image(tmp_path):
    """Each rejected file is replaced by the next readable one, and nothing else changes."""
    names = list(TABLE)
    lines = []
    for number, name in enumerate(names):
        (tmp_path / f"{number}.JPEG").write_bytes(TABLE[name].data)
        lines.append(f"{number}.JPEG {number}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    config = DataConfig(
        dataset="lists",
        data_dir=str(tmp_path),
        train_list=str(tmp_path / "list.txt"),
        image_size=8,
        min_crop_area=1.0,  # a smaller window may end before a file is truncated
        reader_threads=2,
    )
    split = source.open_split(config, "train")
    batches = pipeline.train_dataset(split, config, 0, 0, 12).take(6).as_numpy_iterator()
    samples = {key: np.concatenate(value) for key, value in _columns(batches).items()}
    total = len(names)
    for sample in range(72):
        epoch, position = divmod(sample, total)
        for offset in range(pipeline.MAX_DECODE_ATTEMPTS):
            at = (position + offset) % total
            label = int(sample_order.image_index(0, epoch, at, total))
            if not TABLE[names[label]].refused:
                break
        assert (samples["label"][sample], samples["replaced"][sample]) == (label, offset)
    assert samples["sample"].tolist() == list(range(72))


def _columns(batches):
    columns = {}
    for batch in batches:
        for key, value in batch.items():
            columns.setdefault(key, []).append(value)
    return columns


_PEAK = """
import json, resource, sys
import tensorflow as tf
from input_pipeline.decoding import decode
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def run(function, paths):
    for path in paths:
        try:
            function(tf.io.read_file(path))
        except tf.errors.OpError:
            pass
window = lambda shape: tf.stack([0, 0, tf.minimum(8, shape[0]), tf.minimum(8, shape[1])])
decoders = [decode.decode_image, lambda data: decode.decode_cropped(data, window)]
refused, good, large = json.loads(sys.argv[1])
for decoder in decoders:
    run(decoder, good)
peaks = [peak()]
for paths in (refused, large):
    for decoder in decoders:
        run(decoder, paths)
    peaks.append(peak())
print(json.dumps(peaks))
"""


def test_peak_memory(tmp_path):
    """In a new process: rejected files use almost no memory, 64 million pixels at most 600 MB."""
    refused, good, large = [], [], []
    for number, (name, odd) in enumerate(TABLE.items()):
        path = tmp_path / str(number)
        path.write_bytes(odd.data)
        kind = refused if odd.refused else large if name == "8000 x 8000" else good
        kind.append(str(path))
    command = [sys.executable, "-c", _PEAK, json.dumps([refused, good, large])]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr[-2000:]
    before, after_refused, after_large = json.loads(child.stdout.splitlines()[-1])
    assert after_refused - before <= 50 * MEGABYTE
    assert after_large - before <= 600 * MEGABYTE


# Reasons to reject files that PIL reads.
_KNOWN_REFUSALS = {
    "a BMP file of OS/2, compressed, or with": "BMP of 1 or 4 bits, or compressed",
    "not a JPEG, PNG, BMP, GIF or WebP file": "TIFF",
    "Number of channels inherent in the image": "BMP of 16 bits",
    "missing color map": "GIF without colors",
    "first frame does not match": "GIF with a canvas around the frame",
    "Invalid JPEG data": "truncated, or with an unknown color space",
    "Invalid PNG data": "more data than rows",
}


@pytest.mark.faults
@pytest.mark.skipif("REAL_IMAGES_DIR" not in os.environ, reason="REAL_IMAGES_DIR is not set")
def test_images_of_other_test_suites():
    """The test images of other decoders: pixels equal to PIL, or a known reason."""
    root = pathlib.Path(os.environ["REAL_IMAGES_DIR"])
    with open(root / "lists" / "odd_manifest.tsv", newline="") as manifest:
        names = sorted({row["path"] for row in csv.DictReader(manifest, delimiter="\t")})
    files = {name: (root / name).read_bytes() for name in names}
    assert len(files) == 270
    counts = {"equal": 0, "refused": 0, "refused by PIL too": 0}
    for name, result in encoded_images.each_in_tf_data(files, decode.decode_image).items():
        try:
            expected = odd_files.decode_with_pil(files[name])
        except Exception:  # PIL raises many types, including SyntaxError
            expected = None
        if isinstance(result, tf.errors.OpError):
            reason = decode.describe_error(result)
            assert reason and "\n" not in reason, name
            known = any(text in reason for text in _KNOWN_REFUSALS)
            assert expected is None or known, (name, reason)
            counts["refused" if expected is not None else "refused by PIL too"] += 1
            continue
        assert expected is not None and result.shape == expected.shape, name
        # Rounding differs when CMYK becomes RGB.
        assert np.abs(result.astype(np.int16) - expected).max() <= 1, name
        counts["equal"] += 1
    assert sum(counts.values()) == 270
    assert counts["refused"] <= 21 and counts["equal"] >= 196, counts
