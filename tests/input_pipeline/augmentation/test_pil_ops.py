"""RandAugment operations compared with PIL, and the policies that choose among them."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from input_pipeline import threads
from input_pipeline.augmentation import pil_ops as operations
from input_pipeline.augmentation import rand_augment

SIDE = 33
# The ranges of the papers.
RANDAUGMENT_RANGES = rand_augment.Ranges(
    shear=0.3, translation=0.45, rotation=30.0, enhancement=0.9, lost_bits=4, fill=128
)
TRIVIALAUGMENT_RANGES = rand_augment.Ranges(
    shear=0.99, translation=1 / 7, rotation=135.0, enhancement=0.99, lost_bits=6, fill=128
)


@functools.cache
def _pictures():
    """Noise over soft colors, a dark image, a constant gray, and an image of few levels."""
    rng = np.random.default_rng(0)
    soft = Image.fromarray(rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)).resize((SIDE, SIDE))
    noisy = np.clip(np.asarray(soft) + rng.integers(-20, 21, (SIDE, SIDE, 3)), 0, 255)
    levels = rng.choice([3, 70, 71, 250], (SIDE, SIDE, 3))
    flat = np.full((SIDE, SIDE, 3), 90)
    return [p.astype(np.uint8) for p in (noisy, noisy // 4 + 10, flat, levels)]


def _without_strength(function):
    return lambda image, _: function(image)


FACTORS = (0.01, 0.1, 0.55, 1.0, 1.45, 1.9, 1.99)
# Our function and PIL's function, by name.
OPERATIONS = {
    "brightness": (operations.brightness, lambda i, f: ImageEnhance.Brightness(i).enhance(f)),
    "contrast": (operations.contrast, lambda i, f: ImageEnhance.Contrast(i).enhance(f)),
    "color": (operations.color, lambda i, f: ImageEnhance.Color(i).enhance(f)),
    "sharpness": (operations.sharpness, lambda i, f: ImageEnhance.Sharpness(i).enhance(f)),
    "posterize": (operations.posterize, ImageOps.posterize),
    "solarize": (operations.solarize, ImageOps.solarize),
    "autocontrast": (
        _without_strength(operations.autocontrast),
        _without_strength(ImageOps.autocontrast),
    ),
    "equalize": (_without_strength(operations.equalize), _without_strength(ImageOps.equalize)),
}
# Strengths to test; FACTORS otherwise.
VALUES = {
    "posterize": range(1, 9),
    "solarize": (0.0, 1.0, 127.5, 254.0, 255.0, 256.0),
    "autocontrast": (0,),
    "equalize": (0,),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_color_operations_equal_pil(name):
    ours, pils = OPERATIONS[name]
    for picture in _pictures():
        for value in VALUES.get(name, FACTORS):
            result = ours(tf.constant(picture), value)
            assert result.dtype == tf.uint8
            expected = pils(Image.fromarray(picture), value)
            np.testing.assert_array_equal(result, np.asarray(expected), err_msg=f"{name} {value}")


def _affine(matrix):
    return lambda image: image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=(128,) * 3
    )


@pytest.mark.parametrize(
    ("ours", "pils"),
    [
        (lambda i: operations.shear_x(i, 0.3, 128), _affine((1, 0.3, 0, 0, 1, 0))),
        (lambda i: operations.shear_x(i, -0.99, 128), _affine((1, -0.99, 0, 0, 1, 0))),
        (lambda i: operations.shear_y(i, -0.2, 128), _affine((1, 0, 0, -0.2, 1, 0))),
        (lambda i: operations.translate_x(i, 5.5, 128), _affine((1, 0, 5.5, 0, 1, 0))),
        (lambda i: operations.translate_y(i, -7.0, 128), _affine((1, 0, 0, 0, 1, -7))),
        *(
            (
                lambda i, a=angle: operations.rotate(i, a, 128),
                lambda i, a=angle: i.rotate(
                    a, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128)
                ),
            )
            for angle in (30.0, -135.0, 90.0, 0.0)
        ),
    ],
)
def test_geometric_operations_equal_pil(ours, pils):
    picture = _pictures()[0]
    result = ours(tf.constant(picture)).numpy().astype(int)
    expected = np.asarray(pils(Image.fromarray(picture))).astype(int)
    # At the border, PIL repeats the outermost pixel for half a pixel; TensorFlow blends into the
    # fill value.
    marked = np.asarray(pils(Image.fromarray(np.full_like(picture, 255))))[..., 0]
    padded = np.pad(marked != 255, 1, mode="edge")
    near = np.zeros_like(marked, bool)
    for dy in range(3):
        for dx in range(3):
            near |= padded[dy : dy + SIDE, dx : dx + SIDE]
    # The first and last rows and columns may also come from the image's border.
    inner = ~near
    inner[[0, -1]] = inner[:, [0, -1]] = False
    assert inner.mean() > 0.2
    assert np.abs(result - expected)[inner].max() <= 1


def test_translate_by_whole_pixels():
    picture = _pictures()[0]
    shifted = operations.translate_x(tf.constant(picture), 4.0, 77).numpy()
    np.testing.assert_array_equal(shifted[:, :-4], picture[:, 4:])
    assert np.all(shifted[:, -4:] == 77)


def test_trivial_augment_applies_one_operation_of_the_wide_space():
    picture = tf.constant(_pictures()[0])
    dataset = tf.data.Dataset.range(150).map(
        lambda k: rand_augment.trivial_augment(
            picture, tf.stack([tf.constant(1, tf.int64), k]), 31, **TRIVIALAUGMENT_RANGES._asdict()
        )
    )
    dataset = dataset.with_options(threads.make_dataset_options())
    results = list(dataset.as_numpy_iterator())
    draws = [
        tf.random.stateless_uniform([3], tf.constant([1, k], tf.int64)).numpy() for k in range(150)
    ]
    counts = dict.fromkeys(rand_augment.OPERATIONS, 0)
    for result, (choice, sign, strength) in zip(results, draws, strict=True):
        name = list(counts)[int(choice * 14)]
        counts[name] += 1
        signed = np.floor(strength * 31) / 30 * (-1 if sign < 0.5 else 1)
        signed = tf.constant(signed, tf.float32)
        expected = rand_augment.OPERATIONS[name](picture, signed, TRIVIALAUGMENT_RANGES)
        np.testing.assert_allclose(result.astype(int), expected.numpy().astype(int), atol=1)
    assert min(counts.values()) >= 2  # every branch ran inside tf.data


def test_rand_augment_applies_its_layers_in_sequence():
    picture = tf.constant(_pictures()[0])
    seed = tf.constant([5, 6], tf.int64)
    ranges = RANDAUGMENT_RANGES._asdict()
    result = rand_augment.rand_augment(picture, seed, 3, 9.0, 0.0, 1.0, **ranges)
    image = picture
    for choice, sign in tf.random.stateless_uniform([3, 2], seed).numpy():
        function = list(rand_augment.OPERATIONS.values())[int(choice * 14)]
        strength = tf.constant(-0.9 if sign < 0.5 else 0.9)
        image = function(image, strength, RANDAUGMENT_RANGES)
    np.testing.assert_array_equal(result, image)
    assert np.any(result != picture)


def test_rand_augment_applies_each_operation_with_a_probability():
    """With probability 1/4 and two operations, 9 of 16 images stay as they are."""
    picture, ranges = tf.constant(_pictures()[0]), RANDAUGMENT_RANGES._asdict()

    @tf.function(autograph=False)
    def count_changed(probability):
        def is_changed(k):
            seed = tf.stack([tf.constant(1, tf.int64), k])
            result = rand_augment.rand_augment(picture, seed, 2, 9.0, 0.0, probability, **ranges)
            return tf.reduce_any(result != picture)

        return tf.map_fn(is_changed, tf.range(400, dtype=tf.int64), tf.bool)

    # An operation in fourteen is the identity, and autocontrast changes little.
    expected = 1 - (1 - 0.25 * 13 / 14) ** 2
    assert count_changed(0.25).numpy().mean() == pytest.approx(expected, abs=0.1)
    assert not count_changed(0.0).numpy().any()


def test_rand_augment_varies_the_magnitude():
    seeds = [tf.constant([2, k], tf.int64) for k in range(600)]
    sign = tf.constant(0.7)  # positive
    drawn = np.array([rand_augment.draw_strength(s, 1, sign, 6.0, 0.5) for s in seeds])
    assert drawn.mean() == pytest.approx(0.6, abs=0.01)
    assert drawn.std() == pytest.approx(0.05, abs=0.006)
    clipped = np.array([rand_augment.draw_strength(s, 1, sign, 9.5, 5.0) for s in seeds[:50]])
    assert clipped.max() == 1 and clipped.min() >= 0


def test_strength_0_is_the_identity():
    picture = tf.constant(_pictures()[0])
    for name, function in rand_augment.OPERATIONS.items():
        if name not in ("autocontrast", "equalize"):
            result = function(picture, tf.constant(0.0), RANDAUGMENT_RANGES)
            np.testing.assert_array_equal(result, picture, err_msg=name)
