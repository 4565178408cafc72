"""Image augmentations: result type, determinism, and effect on pixels."""

import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline import augment_spec, threads
from input_pipeline.augmentation import crops, image_augment, rand_augment
from input_pipeline.config import DataConfig
from input_pipeline.decoding import decode

SIZE, MIN_AREA = 24, 0.3
# Numbers that are folded into the seed. Others would change the images of every run.
POLICY_PURPOSE, CLASSIC_PURPOSE = 2, 3
EVERY = pytest.mark.parametrize("name", augment_spec.names("window", "image"))


def _image(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height // 5, width // 5, 3))
    return Image.fromarray(pixels.astype(np.uint8)).resize((width, height))


def _encoded(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


FILES = {
    "jpeg": _encoded(_image(50, 65), "JPEG"),
    "gray": _encoded(_image(50, 65).convert("L"), "JPEG"),
    "png": _encoded(_image(65, 50), "PNG"),
    "small": _encoded(_image(10, 15), "PNG"),
    "1x1": _encoded(_image(10, 10).crop((0, 0, 1, 1)), "PNG"),
    "strip": _encoded(_image(10, 600).crop((0, 0, 600, 3)), "JPEG"),
}


def _augment(name, data, number, size=SIZE, min_area=MIN_AREA):
    seed = tf.constant([7, number], tf.int64)
    return image_augment.augment(tf.constant(data), seed, _config(name, size, min_area))


def _config(name, size, min_area):
    return DataConfig(augment=name, image_size=size, min_crop_area=min_area)


@functools.cache
def _trace(name, size, min_area):
    """Returns `augment` as a function of (data, number) that is traced once."""
    config = _config(name, size, min_area)
    return tf.function(
        lambda data, number: image_augment.augment(
            data, tf.stack([tf.constant(7, tf.int64), number]), config
        ),
        [tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)],
        autograph=False,
    )


def _augment_in_tf_data(name, data, numbers, size=SIZE, min_area=MIN_AREA):
    """Augments inside tf.data with seeds (7, number): [len(numbers), size, size, 3]."""
    augment = _trace(name, size, min_area)
    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(numbers, np.int64)).map(
        lambda number: augment(tf.constant(data), number)
    )
    assert dataset.element_spec == tf.TensorSpec([size, size, 3], tf.uint8)
    dataset = dataset.with_options(threads.make_dataset_options())
    return np.stack(list(dataset.as_numpy_iterator()))


@pytest.mark.parametrize("name", ["standard", "classic", "none"])
def test_decode_window_equals_the_window_of_augment(name):
    config = _config(name, SIZE, MIN_AREA)
    for number in range(6):
        seed = tf.constant([7, number], tf.int64)
        window = image_augment.decode_window(tf.constant(FILES["jpeg"]), seed, config)
        image = image_augment.augment(tf.constant(FILES["jpeg"]), seed, config)
        if name == "none":
            assert window.shape == (50, 65, 3)
        else:
            plain = crops.resize_area(window, SIZE)
            assert any(np.array_equal(image, p) for p in (plain, plain[:, ::-1]))


def test_every_window_has_a_crop_function():
    assert tuple(image_augment.CROP_FUNCTIONS) == augment_spec.WINDOWS


@pytest.mark.parametrize(
    ("name", "file"),
    [(name, file) for name in augment_spec.WINDOWS for file in FILES]
    + [(name, "jpeg") for name in augment_spec.names("image")],
)
def test_result_is_uint8_and_equal_inside_tf_data(name, file):
    for number, expected in enumerate(_augment_in_tf_data(name, FILES[file], range(2))):
        image = _augment(name, FILES[file], number)
        assert image.dtype == tf.uint8 and image.shape == (SIZE, SIZE, 3)
        np.testing.assert_array_equal(image, expected)


@EVERY
def test_same_seed_gives_the_same_bytes(name):
    first = _augment_in_tf_data(name, FILES["jpeg"], range(10))
    again = _augment_in_tf_data(name, FILES["jpeg"], range(9, -1, -1))[::-1]
    np.testing.assert_array_equal(first, again)


def test_standard_differs_between_samples_and_between_runs():
    images = _augment_in_tf_data("standard", FILES["jpeg"], range(40))
    assert len({image.tobytes() for image in images}) == 40
    other_run = image_augment.augment(
        tf.constant(FILES["jpeg"]),
        tf.constant([8, 0], tf.int64),
        _config("standard", SIZE, MIN_AREA),
    )
    assert np.any(other_run != images[0])


def test_standard_flips_half_of_the_images():
    # With a minimum area of 1 and the image's own size, only the flip remains.
    image = np.random.default_rng(2).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    data = _encoded(Image.fromarray(image), "PNG")
    results = _augment_in_tf_data("standard", data, range(1000), size=4, min_area=1.0)
    straight = np.all(results == image, axis=(1, 2, 3))
    mirrored = np.all(results == image[:, ::-1], axis=(1, 2, 3))
    assert np.all(straight ^ mirrored)
    assert 437 < mirrored.sum() < 563  # four standard deviations


def test_standard_crops_parts_of_the_image():
    # Red increases downwards and green to the right, so the extremes of a result give its window.
    y, x = np.indices((128, 128))
    data = _encoded(Image.fromarray(np.stack([y * 2, x * 2, 0 * x], -1).astype(np.uint8)), "PNG")
    results = _augment_in_tf_data("standard", data, range(300), min_area=0.25).astype(float)
    heights = np.ptp(results[..., 0], axis=(1, 2)) / 2
    widths = np.ptp(results[..., 1], axis=(1, 2)) / 2
    share = heights * widths / 128**2
    assert 0.15 < share.min() < 0.3 and share.max() > 0.8
    mirrored = results[:, 0, 0, 1] > results[:, 0, -1, 1]
    # The window and the flip are independent.
    for position in (share, results[..., 0].mean((1, 2)), results[..., 1].mean((1, 2))):
        assert abs(np.corrcoef(mirrored, position)[0, 1]) < 4 / len(results) ** 0.5
    assert np.all(results[:, 0, 0, 0] < results[:, -1, 0, 0])  # never upside down


def test_none_is_the_center_crop_for_any_seed():
    image = np.random.default_rng(1).integers(0, 256, (32, 43, 3)).astype(np.uint8)
    data = _encoded(Image.fromarray(image), "PNG")
    results = _augment_in_tf_data("none", data, range(5), size=28)
    np.testing.assert_array_equal(results, [image[2:30, 7:35]] * 5)


def test_none_uses_crop_fraction_and_interpolation_of_evaluation():
    config = DataConfig(augment="none", image_size=SIZE, crop_fraction=1.0, interpolation="bicubic")
    crop = image_augment.augment(tf.constant(FILES["jpeg"]), tf.constant([7, 0], tf.int64), config)
    image = decode.decode_image(tf.constant(FILES["jpeg"]))
    np.testing.assert_array_equal(crop, crops.extract_views(image, SIZE, 1, 1.0, "bicubic")[0])
    assert np.any(crop != crops.extract_views(image, SIZE, 1)[0])


def _derive_seed(number, purpose):
    seed = tf.constant([7, number], tf.int64)
    return tf.random.experimental.stateless_fold_in(seed, purpose)


@pytest.mark.parametrize("name", augment_spec.POLICIES)
def test_policies_apply_after_standard(name):
    """With the values of --randaugment, and with a separate seed."""
    for number in range(6):
        config = DataConfig(
            augment=name, image_size=SIZE, min_crop_area=MIN_AREA, randaugment="3,7"
        )
        data, seed = tf.constant(FILES["jpeg"]), tf.constant([7, number], tf.int64)
        image = image_augment.crop_and_flip_standard(data, seed, config)
        policy_seed = _derive_seed(number, POLICY_PURPOSE)
        arguments = augment_spec.defaults(name)
        if name == "randaugment":
            arguments |= {"operations": 3, "magnitude": 7}
            expected = rand_augment.rand_augment(image, policy_seed, **arguments)
        else:
            expected = rand_augment.trivial_augment(image, policy_seed, **arguments)
        np.testing.assert_array_equal(image_augment.augment(data, seed, config), expected)


def test_classic_resizes_its_window_and_flips_half_of_the_images():
    mirrored = 0
    whole = decode.decode_image(tf.constant(FILES["jpeg"])).numpy()
    for number, image in enumerate(_augment_in_tf_data("classic", FILES["jpeg"], range(60))):
        draws = tf.random.stateless_uniform([5], _derive_seed(number, CLASSIC_PURPOSE))
        window = crops.classic_window(whole.shape[:2], draws[:4], 0.8, 1.25, 256, 384)
        top, left, height, width = window.numpy()
        plain = crops.resize_area(whole[top : top + height, left : left + width], SIZE).numpy()
        flipped = draws[4] < 0.5
        np.testing.assert_array_equal(image, plain[:, ::-1] if flipped else plain)
        mirrored += bool(flipped)
    assert 15 < mirrored < 45


@pytest.mark.parametrize("name", ["flip", "vflip", "classic,flip"])
def test_flips_take_their_probability(name):
    image = np.random.default_rng(2).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    data = _encoded(Image.fromarray(image), "PNG")
    others = "flip(0)," if name == "vflip" else ""
    results = {
        p: _augment_in_tf_data(f"{others}{name}({p})", data, range(200), size=4, min_area=1.0)
        for p in (0, 0.2, 1)
    }
    axis = 1 if name == "vflip" else 2
    np.testing.assert_array_equal(results[1], np.flip(results[0], axis))
    is_flipped = np.any(results[0.2] != results[0], axis=(1, 2, 3))
    assert 20 < is_flipped.sum() < 60
    np.testing.assert_array_equal(results[0.2][is_flipped], results[1][is_flipped])


def test_crop_takes_its_bounds():
    y, x = np.indices((128, 128))
    data = _encoded(Image.fromarray(np.stack([y * 2, x * 2, 0 * x], -1).astype(np.uint8)), "PNG")
    name = "crop(0.2,0.3,1.9,2.1),flip(0)"
    results = _augment_in_tf_data(name, data, range(100)).astype(float)
    heights = np.ptp(results[..., 0], axis=(1, 2)) / 2
    widths = np.ptp(results[..., 1], axis=(1, 2)) / 2
    # Resizing by area takes half a pixel of the result off each end.
    share = heights * widths / (128 * (1 - 1 / SIZE)) ** 2
    assert 0.19 < share.min() < 0.22 and 0.28 < share.max() < 0.31
    assert (widths / heights).min() > 1.8 and (widths / heights).max() < 2.25


def test_image_stages_do_not_depend_on_each_other():
    """Flipping comes first, so RandAugment of the flipped image has the same draws."""
    image = np.random.default_rng(2).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    data = _encoded(Image.fromarray(image), "PNG")
    upside_down = _encoded(Image.fromarray(image[::-1]), "PNG")
    both = _augment_in_tf_data("vflip(1),randaugment", data, range(20), size=4, min_area=1.0)
    alone = _augment_in_tf_data("randaugment", upside_down, range(20), size=4, min_area=1.0)
    np.testing.assert_array_equal(both, alone)
