"""Crops and resizing, compared with boxes computed by hand, with PIL and with a simulation."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline import threads
from input_pipeline.augmentation import crops

# Height, width and crop size. The short side is 8/7 of the crop size, so nothing is resized. Then
# (top, left) of the upper left, upper right, lower left, lower right and center crop.
BOXES = [
    (64, 64, 56, [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]),
    (64, 97, 56, [(0, 0), (0, 41), (8, 0), (8, 41), (4, 20)]),
    (97, 64, 56, [(0, 0), (0, 8), (41, 0), (41, 8), (20, 4)]),
    (70, 70, 61, [(0, 0), (0, 9), (9, 0), (9, 9), (4, 4)]),
    (70, 101, 61, [(0, 0), (0, 40), (9, 0), (9, 40), (4, 20)]),
    (101, 70, 61, [(0, 0), (0, 9), (40, 0), (40, 9), (20, 4)]),
    (8, 11, 7, [(0, 0), (0, 4), (1, 0), (1, 4), (0, 2)]),
    (256, 341, 224, [(0, 0), (0, 117), (32, 0), (32, 117), (16, 58)]),
]


def _coordinates(height, width):
    """An image whose pixels encode their coordinates."""
    y, x = np.indices((height, width))
    return np.stack([y % 256, x % 256, y // 256 * 16 + x // 256], -1).astype(np.uint8)


def _in_tf_data(function, *arguments):
    """Calls a function inside tf.data with arguments of unknown shape."""
    signature = tuple(
        tf.TensorSpec([None] * np.ndim(argument), np.asarray(argument).dtype)
        for argument in arguments
    )
    dataset = tf.data.Dataset.from_generator(lambda: [arguments], output_signature=signature)
    return next(dataset.map(function).as_numpy_iterator())


def _soft(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3))
    return Image.fromarray(noise.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("height", "width", "size", "corners"), BOXES)
def test_ten_crops_equal_boxes_computed_by_hand(height, width, size, corners):
    image = _coordinates(height, width)
    five = [image[top : top + size, left : left + size] for top, left in corners]
    expected = np.stack(five + [crop[:, ::-1] for crop in five])
    for views in (
        crops.extract_views(tf.constant(image), size, 10).numpy(),
        _in_tf_data(lambda pixels: crops.extract_views(pixels, size, 10), image),
    ):
        assert views.dtype == np.uint8
        np.testing.assert_array_equal(views, expected)


@pytest.mark.parametrize(("height", "width", "size", "corners"), BOXES)
def test_one_view_is_the_center_crop(height, width, size, corners):
    image = _coordinates(height, width)
    top, left = corners[4]
    expected = image[np.newaxis, top : top + size, left : left + size]
    for views in (
        crops.extract_views(tf.constant(image), size, 1).numpy(),
        _in_tf_data(lambda pixels: crops.extract_views(pixels, size, 1), image),
    ):
        assert views.dtype == np.uint8
        np.testing.assert_array_equal(views, expected)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (60, 41), (37, 90)])
def test_views_are_boxes_of_the_resized_image(height, width):
    image = _soft(height, width)
    scale = 64 / min(height, width)
    resized = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized).astype(int)
    views = crops.extract_views(tf.constant(np.asarray(image)), 56, 10).numpy()
    for view, expected in (
        (views[0], pixels[:56, :56]),
        (views[3], pixels[-56:, -56:]),
        (views[8], pixels[-56:, -56:, :][:, ::-1]),
    ):
        assert np.abs(view - expected).max() <= 1


@pytest.mark.parametrize(
    ("size", "side"), [(224, 256), (56, 64), (64, 73), (61, 70), (7, 8), (299, 342), (1, 1)]
)
def test_eval_short_side(size, side):
    assert crops.eval_short_side(size) == side


@pytest.mark.parametrize(
    ("height", "width", "length", "expected"),
    [
        (375, 500, 256, (256, 341)),  # 341.33
        (500, 375, 256, (341, 256)),
        (500, 333, 256, (384, 256)),  # 384.38
        (375, 500, 64, (64, 85)),  # 85.33
        (150, 200, 73, (73, 97)),  # 97.33
        (100, 100, 73, (73, 73)),
        (10, 12, 73, (73, 88)),  # 87.6
        (64, 97, 64, (64, 97)),
        (1, 1, 8, (8, 8)),
        (1, 200, 8, (8, 1600)),
        (200, 3, 8, (533, 8)),  # 533.33
        (1, 9_000_000, 256, (256, 2**30 - 1)),  # the exact width exceeds int32
    ],
)
def test_resized_shape(height, width, length, expected):
    assert tuple(crops.resized_shape(tf.constant([height, width]), length).numpy()) == expected
    in_tf_data = _in_tf_data(lambda shape: crops.resized_shape(shape, length), [height, width])
    assert tuple(in_tf_data) == expected


@pytest.mark.parametrize(
    ("height", "width", "size", "crop_fraction", "resized", "corner"),
    [
        # 224 / 0.95 is 235.79, and 235 * 500 / 332 is 353.92. The offsets 5.5 and 64.5 become even.
        (332, 500, 224, 0.95, (235, 353), (6, 64)),
        (332, 500, 224, 0.875, (256, 385), (16, 80)),  # 385.54; 80.5
        (500, 332, 224, 0.875, (385, 256), (80, 16)),
        (100, 103, 61, 0.7, (87, 89), (13, 14)),  # 87.14, 89.61
        (61, 64, 60, 1.0, (60, 62), (0, 1)),  # 62.95
        (37, 41, 30, 0.9, (33, 36), (2, 3)),  # 33.33, 36.57; 1.5
        (235, 235, 224, 0.95, (235, 235), (6, 6)),
    ],
)
def test_torchvision_rounding(height, width, size, crop_fraction, resized, corner):
    """Pixels are those of Pillow on shapes and offsets that were worked out by hand."""
    # Bicubic interpolation overshoots at these edges. Pillow clips after each of the two axes.
    image = _soft(height, width).point(lambda value: 255 * (value > 127))
    top, left = corner
    expected = image.resize(resized[::-1], Image.Resampling.BICUBIC)
    expected = np.asarray(expected.crop((left, top, left + size, top + size))).astype(int)
    how = (size, 1, crop_fraction, "bicubic", True)
    views = crops.extract_views(tf.constant(np.asarray(image)), *how).numpy()
    assert np.abs(views[0] - expected).max() <= 2
    in_tf_data = _in_tf_data(lambda pixels: crops.extract_views(pixels, *how), np.asarray(image))
    np.testing.assert_array_equal(in_tf_data, views)
    shape = crops.resized_shape(tf.constant([height, width]), min(resized), True)
    assert tuple(shape.numpy()) == resized


@pytest.mark.parametrize("rounding", [False, True])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(16, 300), (300, 16), (3, 100), (2, 34)])
def test_views_of_a_strip_equal_crops_of_the_resized_strip(height, width, interpolation, rounding):
    """Above an aspect ratio of 16, only the crops are computed; these strips fit into memory."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    how = (14, 10, 0.875, interpolation, rounding)
    views = crops.extract_views(tf.constant(image), *how).numpy()
    tall, wide = crops.resized_shape(tf.constant([height, width]), 16, rounding).numpy()
    resized = crops.resize(tf.constant(image), tall, wide, interpolation, rounding).numpy()
    bottom, right = tall - 14, wide - 14
    center = tuple(round(n / 2) if rounding else n // 2 for n in (bottom, right))
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), center]
    five = [resized[top : top + 14, left : left + 14] for top, left in corners]
    expected = np.stack(five + [crop[:, ::-1] for crop in five])
    assert np.abs(views.astype(int) - expected).max() <= 1
    assert np.mean(views != expected) < 0.002


@pytest.mark.parametrize(
    ("height", "width"), [(75, 100), (32, 43), (20, 57), (149, 200), (1, 1), (300, 400), (160, 210)]
)
def test_resize_equals_pil_bilinear(height, width):
    image = _soft(152, 204)
    expected = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    for resized in (
        crops.resize(tf.constant(np.asarray(image)), height, width).numpy(),
        _in_tf_data(lambda pixels: crops.resize(pixels, height, width), np.asarray(image)),
    ):
        # PIL rounds after each of the two axes.
        assert np.abs(resized - expected).max() <= 1


def test_resize_antialiases_when_shrinking():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    resized = crops.resize(tf.constant(stripes), 8, 8).numpy()
    # Without antialiasing, the result would be all black or all white.
    assert resized.min() >= 110 and resized.max() <= 145


def test_resize_to_the_same_size_is_the_identity():
    image = np.random.default_rng(1).integers(0, 256, (31, 46, 3)).astype(np.uint8)
    np.testing.assert_array_equal(crops.resize(tf.constant(image), 31, 46), image)


# Largest area, and bounds of the aspect ratio (Szegedy et al. 2015).
STANDARD = (1.0, 3 / 4, 4 / 3)


@functools.cache
def _windows(height, width, min_area, number):
    """Random windows of `number` seeds: int32 [number, 4]."""
    shape = tf.constant([height, width])
    dataset = tf.data.Dataset.range(number).map(
        lambda k: crops.random_window(
            shape, tf.stack([tf.constant(3, tf.int64), k]), min_area, *STANDARD
        )
    )
    batches = dataset.batch(number).with_options(threads.make_dataset_options())
    return next(batches.as_numpy_iterator())


@pytest.mark.parametrize("min_area", [0.08, 0.5, 1.0])
def test_random_window_is_inside_the_image(min_area):
    shapes = [(1, 1), (1, 5000), (5000, 1), (3, 200), (2, 2), (64, 97), (5, 4), (500, 375)]
    shapes = np.repeat(np.array(shapes, np.int32), 200, axis=0)  # [1600, 2]
    dataset = tf.data.Dataset.from_tensor_slices(shapes).enumerate()
    windows = dataset.map(
        lambda k, shape: crops.random_window(
            shape, tf.stack([tf.constant(3, tf.int64), k]), min_area, *STANDARD
        )
    )
    batches = windows.batch(len(shapes)).with_options(threads.make_dataset_options())
    windows = next(batches.as_numpy_iterator())
    assert windows.shape == (len(shapes), 4) and windows.dtype == np.int32
    start, size = windows[:, :2], windows[:, 2:]
    assert np.all(start >= 0) and np.all(size >= 1) and np.all(start + size <= shapes)
    # If no window with a valid aspect ratio fits, the window is the whole image.
    strips = shapes.max(1) > 50 * shapes.min(1)
    np.testing.assert_array_equal(size[strips], shapes[strips])
    if min_area < 1.0:
        whole = np.all(size == shapes, axis=1)
        assert whole[shapes.min(1) > 50].mean() < 0.05


@pytest.mark.parametrize(("height", "width"), [(300, 400), (400, 300), (333, 333)])
@pytest.mark.parametrize("min_area", [0.08, 0.5])
def test_random_window_area_and_aspect_are_within_bounds(height, width, min_area):
    windows = _windows(height, width, min_area, 2000)
    whole = np.all(windows == [0, 0, height, width], axis=1)
    assert whole.mean() < 0.05
    _, _, window_height, window_width = windows[~whole].T
    # Rounding changes a side by at most half a pixel.
    assert np.all((window_height + 0.5) * (window_width + 0.5) >= min_area * height * width)
    assert np.all((window_height - 0.5) * (window_width - 0.5) <= height * width)
    assert np.all((window_width - 0.5) / (window_height + 0.5) <= 4 / 3)
    assert np.all((window_height - 0.5) / (window_width + 0.5) <= 4 / 3)
    # Windows also reach the bounds.
    share = window_height * window_width / (height * width)
    assert share.min() < min_area + 0.02 and share.max() > 0.9
    aspect = window_width / window_height
    assert aspect.min() < 0.78 and aspect.max() > 1.28


def _simulated_shares(height, width, min_area, rng, number=20_000):
    """Draws windows with NumPy as in the paper; returns their fractions of the image's area."""
    area = height * width * rng.uniform(min_area, 1, (number, 10))
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), (number, 10)))
    heights, widths = np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))
    fits = (heights <= height) & (widths <= width)
    first = fits.argmax(1)[:, np.newaxis]
    drawn = np.take_along_axis(heights * widths, first, 1)[:, 0]
    return np.where(fits.any(1), drawn, height * width) / (height * width)


@pytest.mark.parametrize(
    ("height", "width", "min_area"), [(300, 400, 0.08), (333, 333, 0.08), (300, 400, 0.5)]
)
def test_random_window_area_distribution_equals_simulation(height, width, min_area):
    windows = _windows(height, width, min_area, 2000).astype(float)
    share = windows[:, 2] * windows[:, 3] / (height * width)
    simulated = _simulated_shares(height, width, min_area, np.random.default_rng(0))
    # Four standard errors of the mean of 2000, plus those of the simulation, a third as large.
    assert abs(share.mean() - simulated.mean()) < 4.3 * simulated.std() / 2000**0.5
    assert abs(share.std() - simulated.std()) < 0.1 * simulated.std()
    if height == width:
        aspect = np.log(windows[:, 3] / windows[:, 2])
        assert abs(aspect.mean()) < 4 * np.log(4 / 3) / 3**0.5 / 2000**0.5


def test_random_window_positions_are_uniform():
    windows = _windows(60, 60, 0.08, 2500)
    starts, room = windows[:, :2], 60 - windows[:, 2:]
    places = ((starts + 0.5) / (room + 1))[room.min(1) >= 9]
    assert len(places) > 1300
    for axis in (0, 1):
        # 0.289 is the standard deviation of a uniform draw.
        assert abs(places[:, axis].mean() - 0.5) < 4 * 0.289 / len(places) ** 0.5
        assert np.histogram(places[:, axis], 5, (0, 1))[0].min() > 0.17 * len(places)
        little = starts[:, axis][room[:, axis] == 1]  # both positions, about equally often
        assert abs(little.mean() - 0.5) < 4 * 0.5 / len(little) ** 0.5
    assert abs(np.corrcoef(places.T)[0, 1]) < 4 / len(places) ** 0.5


def test_random_window_is_the_same_eagerly_and_in_tf_data():
    in_tf_data = _windows(48, 61, 0.2, 30)
    assert len(np.unique(in_tf_data, axis=0)) > 25
    for k, expected in enumerate(in_tf_data):
        seed = tf.constant([3, k], tf.int64)
        window = crops.random_window(tf.constant([48, 61]), seed, 0.2, *STANDARD)
        np.testing.assert_array_equal(window, expected)
