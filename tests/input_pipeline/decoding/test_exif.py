"""EXIF orientation: pixels equal to those of PIL's `exif_transpose`."""

import dataclasses
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from input_pipeline import pipeline
from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.decoding import decode
from input_pipeline.preparation import prepare, verify
from input_pipeline.sources import source
from loops.config import dataset_flags
from loops.tools.predict import views
from tests.command_line import parse, refusal
from tests.input_pipeline import encoded_images as images
from tests.input_pipeline.files import put


def _tiff(orientation, order, kind=3):
    """Returns EXIF data of two tags; `kind` 3 is a short integer, 4 a long one."""
    number = struct.pack(f"{order}{'H2x' if kind == 3 else 'I'}", orientation)
    maker = struct.pack(f"{order}HHI", 0x010F, 2, 2) + b"x\0\0\0"
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + number
    mark = b"II" if order == "<" else b"MM"
    header = mark + struct.pack(f"{order}HIH", 42, 8, 2)
    return b"Exif\0\0" + header + maker + entry + bytes(4)


def _photo(*arguments):
    return images.encoded(images.picture(), "JPEG", quality=90, exif=_tiff(*arguments))


PHOTOS = {
    **{f"{order}{k}": _photo(k, order) for order in "<>" for k in range(1, 9)},
    "long": _photo(6, ">", 4),
    "little long": _photo(6, "<", 4),
    "invalid": _photo(9, "<"),
    "none": images.good_files()["jpeg 4:2:0"],
    "png": images.good_files()["png"],
}


def _upright(data):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def decoded():
    return images.each_in_tf_data(PHOTOS, lambda data: decode.decode_image(data, "apply"))


@pytest.fixture(scope="module")
def windows():
    """The same window of every upright photograph: rows 5 to 25, columns 7 to 42."""
    return images.each_in_tf_data(
        PHOTOS,
        lambda data: decode.decode_cropped(data, lambda _: tf.constant([5, 7, 20, 35]), "apply"),
    )


@pytest.mark.parametrize("name", PHOTOS)
def test_pixels_equal_pil(name, decoded, windows):
    expected = _upright(PHOTOS[name])
    np.testing.assert_array_equal(decoded[name], expected)
    np.testing.assert_array_equal(windows[name], expected[5:25, 7:42])


def test_damaged_exif_data_is_ignored():
    """No position outside of the file is read, whatever the bytes are."""
    data = PHOTOS[">6"]
    start = data.index(b"Exif")
    rng = np.random.default_rng(0)
    files = {n: data for n in range(60)}
    for number in files:
        damaged = bytearray(data)
        for _ in range(3):
            damaged[start - 4 + int(rng.integers(40))] = int(rng.integers(256))
        files[number] = bytes(damaged)
    files |= {n: data[: start + n] for n in range(0, 40, 3)}
    expected = images.each_in_tf_data(files, decode.decode_image)
    results = images.each_in_tf_data(files, lambda data: decode.decode_image(data, "apply"))
    for name, result in results.items():
        if not isinstance(expected[name], np.ndarray):
            assert "Invalid JPEG" in expected[name].message and "Invalid JPEG" in result.message
            continue
        turned = [np.rot90(expected[name], quarters) for quarters in range(4)]
        orientations = turned + [image[:, ::-1] for image in turned]
        assert sum(np.array_equal(result, image) for image in orientations) == 1


def test_evaluation_prediction_and_preparing_turn_photographs(tmp_path):
    for split in ("train", "val"):
        for name in ("<1", "<6"):
            put(tmp_path / "raw" / split / name[1] / "1.jpg", PHOTOS[name])
    config = DataConfig(dataset="folder", data_dir=str(tmp_path / "raw"), exif="apply")
    assert verify.verify(config, PrepareConfig())[0]["turned_by_exif"] == 2
    settings = {"image_size": 32, "crop_fraction": 1.0}
    raw = dataclasses.replace(config, **settings)

    def views_of(config):
        split = source.open_split(config, "val")
        (batch,) = pipeline.eval_dataset(split, config, 1, 2, 1).as_numpy_iterator()
        return batch["views"][:, 0].astype(int)

    upright = views_of(raw)
    as_stored = views_of(dataclasses.replace(raw, exif="ignore"))
    np.testing.assert_array_equal(upright[0], as_stored[0])
    # 6: the viewer turns the image to the right.
    assert np.abs(upright[1] - np.rot90(as_stored[1], -1)).max() <= 1  # rounding of the resize

    path = str(tmp_path / "raw/val/6/1.jpg")
    np.testing.assert_array_equal(views.decode_file(path, "apply"), _upright(PHOTOS["<6"]))
    preprocessing = views.Preprocessing(32, 1.0, "bilinear", 1, False, exif="apply")
    ((batch,), _) = next(iter(views.make_dataset([path], [preprocessing], 1)))
    np.testing.assert_array_equal(batch[0, 0], upright[1])

    for storage in ("tfrecord", "lists"):
        out = tmp_path / storage
        facts = prepare.prepare(config, PrepareConfig(quality=100), out, storage)
        reasons = [conversion["was"] for conversion in facts["conversions"]]
        assert reasons == ["EXIF orientation 6"] * 2
        prepared = dataclasses.replace(raw, data_dir=str(out))
        stored = views_of(prepared)  # encoded again
        assert np.abs(stored - upright).mean() <= 5 < 15 < np.abs(stored[1] - as_stored[1]).mean()


def test_known_data_sets_are_not_turned():
    words = ("--mode=train", "--dataset=ilsvrc2012", "--data_dir=d", "--exif=apply")
    message = refusal(dataset_flags.require_named_dataset, parse(*words))
    assert message.startswith("--exif=apply: --dataset=ilsvrc2012 is published")
    dataset_flags.require_named_dataset(parse("--mode=predict", *words[1:]))
