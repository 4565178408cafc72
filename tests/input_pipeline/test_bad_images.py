"""Corrupt image files are rejected, before they use memory, and are never padded with gray."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline.decoding import decode
from tests.input_pipeline import encoded_images as images


def _whole_image(shape):
    return tf.concat([[0, 0], shape], 0)


@pytest.fixture(scope="module")
def bad_in_tf_data():
    return images.each_in_tf_data(images.bad_files(), decode.decode_image)


@pytest.mark.parametrize("name", images.bad_files())
def test_corrupt_file_is_rejected(name, bad_in_tf_data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode.decode_image(tf.constant(images.bad_files()[name]))
    assert isinstance(bad_in_tf_data[name], tf.errors.InvalidArgumentError)


def test_window_of_a_corrupt_file_is_rejected():
    results = images.each_in_tf_data(
        images.bad_files(), lambda data: decode.decode_cropped(data, _whole_image)
    )
    accepted = [n for n, r in results.items() if not isinstance(r, tf.errors.OpError)]
    assert accepted == []


@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_is_never_padded(progressive):
    data = images.encoded(images.picture(), "JPEG", quality=90, progressive=progressive)
    whole = decode.decode_image(tf.constant(data)).numpy()
    cuts = {missing: data[:-missing] for missing in (1, 2, 3, 20, *range(100, len(data), 150))}
    results = images.each_in_tf_data(cuts, decode.decode_image)
    assert all(isinstance(result, tf.errors.OpError) for result in results.values())
    # A truncated file may still contain all bytes of a window.
    top = images.each_in_tf_data(
        cuts, lambda data: decode.decode_cropped(data, lambda shape: tf.constant([0, 0, 16, 93]))
    )
    for pixels in top.values():
        assert isinstance(pixels, tf.errors.OpError) or np.array_equal(pixels, whole[:16])


@pytest.mark.parametrize("name", ["jpeg in 14000 x 14000", "jpeg in 65500 x 65500"])
def test_jpeg_with_too_many_pixels_is_rejected(name):
    data = tf.constant(images.bad_files()[name])
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
        decode.decode_image(data)
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
        decode.decode_cropped(data, lambda shape: tf.constant([0, 0, 8, 8]))


@pytest.mark.parametrize("decoder", ["decode", "decode_cropped"])
def test_header_is_checked_before_decoding_in_tf_data(decoder, capfd):
    decoders = {"decode": decode.decode_image}
    decoders["decode_cropped"] = lambda data: decode.decode_cropped(
        data, lambda shape: tf.stack([0, 0, 8, tf.minimum(8, shape[1])])
    )
    # At this size, TensorFlow's decoder would log an error.
    files = dict.fromkeys(range(20), images.bad_files()["jpeg in 65500 x 65500"])
    results = images.each_in_tf_data(files, decoders[decoder])
    assert all(isinstance(result, tf.errors.InvalidArgumentError) for result in results.values())
    assert "Image too large" not in capfd.readouterr().err


@pytest.mark.parametrize(("height", "refused"), [(14998, False), (14999, True)])
def test_pixel_limit(height, refused):
    # 178,956,136 pixels, or one row more. The window is outside, so nothing is decoded.
    data = tf.constant(images.with_jpeg_size(images.good_files()["jpeg 4:2:0"], height, 11932))
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        decode.decode_cropped(data, lambda shape: tf.constant([-1, -1, 8, 8]))
    assert ("too many pixels" in caught.value.message) == refused


REASONS = {
    "empty": "Input is empty.",
    "page": "not a JPEG, PNG, BMP, GIF or WebP file",
    "jpeg in 14000 x 14000": "the image claims too many pixels",
    "png in 30000 x 30000": "the image claims too many pixels",
    "jpeg 4:2:0, 30 bytes": "Invalid JPEG data, size 30",
    "png, 30 bytes": "Invalid PNG. Failed to initialize decoder.",
    "webp lossless, half": "Failed to decode WebP image.",
}


@pytest.mark.parametrize("name", REASONS)
def test_describe_error_returns_the_reason(name):
    """Also for an error in a tf.function, where many lines precede the reason."""
    file = tf.constant(images.bad_files()[name])
    for decoder in (decode.decode_image, tf.function(decode.decode_image, autograph=False)):
        with pytest.raises(tf.errors.OpError) as raised:
            decoder(file)
        assert decode.describe_error(raised.value) == REASONS[name]


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_pixel_limit_of_other_formats(kind):
    # Just above the limit: 22 kB and 34 bytes become 537 MB.
    if kind == "png":
        data = images.png(13378, 13378, 1, 0, bytes((1 + 1673) * 13378))
    else:
        small = images.encoded(Image.new("RGB", (8, 8)), "WEBP", lossless=True)
        data = images.with_webp_size(small, 10924, 16383)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode.decode_image(tf.constant(data))


@pytest.mark.parametrize("data", [b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG"])
def test_a_few_bytes_are_rejected(data):
    with pytest.raises(tf.errors.OpError):
        decode.decode_image(tf.constant(data))
