"""Decoding: pixels equal to PIL, and windows equal to the same window of the whole image."""

import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline import threads
from input_pipeline.decoding import decode
from tests.input_pipeline import encoded_images as images
from tests.input_pipeline.encoded_images import HEIGHT, WIDTH


def _decode_with_pil(data):
    """Reference: int [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def _whole_image(shape):
    return tf.concat([[0, 0], shape], 0)


@pytest.fixture(scope="module")
def good_in_tf_data():
    return images.each_in_tf_data(images.good_files(), decode.decode_image)


@pytest.mark.parametrize("name", images.good_files())
def test_pixels_equal_pil(name, good_in_tf_data):
    data = images.good_files()[name]
    expected = _decode_with_pil(data)
    # Our decoder and PIL round differently when they convert CMYK to RGB.
    bound = 1 if name == "jpeg cmyk" else 0
    for pixels in (decode.decode_image(tf.constant(data)).numpy(), good_in_tf_data[name]):
        assert pixels.dtype == np.uint8 and pixels.shape == expected.shape
        assert np.abs(pixels - expected).max() <= bound


def test_animated_gif_gives_the_first_frame(good_in_tf_data):
    expected = np.asarray(images.picture().quantize(64).convert("RGB"))
    np.testing.assert_array_equal(good_in_tf_data["gif of two"], expected)
    assert np.any(expected != expected[::-1, ::-1])  # the second frame


@pytest.mark.parametrize("lossless", [False, True])
def test_animated_webp_without_alpha(lossless):
    """TensorFlow's decoder may crash the process without our workaround, so use a new process."""
    frames = [images.picture().rotate(angle) for angle in (90, 180)]
    more = {"save_all": True, "append_images": frames, "lossless": lossless}
    data = images.encoded(images.picture(), "WEBP", **more)
    code = (
        "import sys, numpy, tensorflow as tf; from input_pipeline.decoding import decode\n"
        "image = decode.decode_image(tf.constant(sys.stdin.buffer.read()))\n"
        "sys.stdout.buffer.write(image.numpy().tobytes())"
    )
    child = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
    assert child.returncode == 0, child.stderr.decode()[-300:]
    expected = _decode_with_pil(data)
    pixels = np.frombuffer(child.stdout, np.uint8).reshape(expected.shape)
    np.testing.assert_array_equal(pixels, expected)


def test_pixel_limit_counts_all_frames_of_an_animation():
    frames = [Image.new("RGB", (2400, 2400), (7 * n, 0, 0)) for n in range(32)]
    more = {"save_all": True, "append_images": frames[1:]}
    data = images.encoded(frames[0], "WEBP", **more)
    assert len(data) < 1_000_000
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
        decode.decode_image(tf.constant(data))


@pytest.mark.parametrize("frames", [1, 2])
def test_webp_with_alpha_or_frames(frames):
    red, green, blue = images.picture().split()
    image = Image.merge("RGBA", (red, green, blue, blue))
    more = {"save_all": True, "append_images": [image.rotate(180)]} if frames == 2 else {}
    data = images.encoded(image, "WEBP", lossless=True, exact=True, **more)
    np.testing.assert_array_equal(decode.decode_image(tf.constant(data)), _decode_with_pil(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    plain = images.encoded(images.picture(), "JPEG", quality=90)
    data = images.encoded(images.picture(), "JPEG", quality=90, exif=exif)
    assert data != plain
    np.testing.assert_array_equal(decode.decode_image(tf.constant(data)), _decode_with_pil(plain))


def test_format_does_not_depend_on_the_file_name(tmp_path):
    path = tmp_path / "n02105855_2933.JPEG"
    path.write_bytes(images.good_files()["png"])
    data = tf.io.read_file(str(path))
    np.testing.assert_array_equal(decode.decode_image(data), np.asarray(images.picture()))
    window = decode.decode_cropped(data, lambda shape: tf.constant([3, 5, 20, 30]))
    np.testing.assert_array_equal(window, np.asarray(images.picture())[3:23, 5:35])


@pytest.mark.parametrize("decoder", ["decode", "decode_cropped"])
def test_static_shape_in_a_graph(decoder):
    decoders = {"decode": decode.decode_image}
    decoders["decode_cropped"] = lambda data: decode.decode_cropped(data, _whole_image)
    dataset = tf.data.Dataset.from_tensors(b"").map(decoders[decoder])
    assert dataset.element_spec == tf.TensorSpec([None, None, 3], tf.uint8)


def test_choose_window_gets_height_and_width():
    files = {n: d for n, d in images.good_files().items() if n != "jpeg 1x1"}
    seen = []

    def choose(shape):
        seen.append(shape.numpy().tolist())
        return _whole_image(shape)

    for name, data in files.items():
        whole = decode.decode_cropped(tf.constant(data), choose)
        np.testing.assert_array_equal(whole, decode.decode_image(tf.constant(data)), err_msg=name)
    assert seen == [[HEIGHT, WIDTH]] * len(files)


def _windows(rng, number):
    """Random windows, half of them on a 16-pixel grid, and some that touch the border."""
    yield from ([0, 0, 20, 30], [16, 16, 16, 32], [33, 0, 5, WIDTH], [0, 47, HEIGHT, 2])
    yield from ([HEIGHT - 1, WIDTH - 1, 1, 1], [7, 9, 1, 1], [HEIGHT - 9, WIDTH - 31, 9, 31])
    for k in range(number):
        grid = 16 if k % 2 else 1
        top = rng.integers(0, HEIGHT) // grid * grid
        left = rng.integers(0, WIDTH) // grid * grid
        yield [top, left, rng.integers(1, HEIGHT - top + 1), rng.integers(1, WIDTH - left + 1)]


@pytest.mark.parametrize("name", ["4:4:4", "4:2:2", "4:2:0", "progressive", "gray", "cmyk", "png"])
def test_window_equals_the_same_window_of_the_whole_image(name):
    data = images.good_files()["png" if name == "png" else f"jpeg {name}"]
    whole = decode.decode_image(tf.constant(data)).numpy()
    windows = np.array(list(_windows(np.random.default_rng(2), 40)), np.int32)
    cuts = tf.data.Dataset.from_tensor_slices(windows).map(
        lambda window: decode.decode_cropped(tf.constant(data), lambda shape: window)
    )
    cuts = cuts.with_options(threads.make_dataset_options())
    for (top, left, height, width), pixels in zip(windows, cuts.as_numpy_iterator(), strict=True):
        assert pixels.dtype == np.uint8
        expected = whole[top : top + height, left : left + width]
        np.testing.assert_array_equal(pixels, expected, err_msg=str((top, left, height, width)))
