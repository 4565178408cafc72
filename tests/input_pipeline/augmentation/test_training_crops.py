"""Crops of training: `resize_area`, and the window of `classic`.

References: OpenCV's INTER_AREA, PIL's bilinear filter, and the three separate steps of the
project's predecessor.
"""

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import stats

from input_pipeline import threads
from input_pipeline.augmentation import crops
from tests.input_pipeline import encoded_images


def _photograph(height, width):
    """Soft colors and noise, uint8 [height, width, 3]."""
    return np.asarray(encoded_images.picture().resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("height", "width"), [(64, 85), (57, 56), (56, 200), (170, 130), (56, 56)])
def test_resize_area_shrinks_as_opencv_inter_area(height, width):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    for image in (noise, _photograph(height, width)):
        expected = cv2.resize(image, (56, 56), interpolation=cv2.INTER_AREA).astype(int)
        resized = crops.resize_area(tf.constant(image), 56).numpy()
        assert resized.shape == (56, 56, 3) and resized.dtype == np.uint8
        assert np.abs(resized - expected).max() <= 1
        # All source pixels have the same weight.
        np.testing.assert_allclose(resized.mean((0, 1)), image.mean((0, 1)), atol=0.2)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (20, 33), (55, 8), (56, 30)])
def test_resize_area_enlarges_as_pil_bilinear(height, width):
    image = Image.fromarray(_photograph(height, width))
    expected = np.asarray(image.resize((56, 56), Image.Resampling.BILINEAR)).astype(int)
    resized = crops.resize_area(tf.constant(np.asarray(image)), 56).numpy()
    assert np.abs(resized - expected).max() <= 1


def test_resize_area_shrinks_one_axis_and_enlarges_the_other():
    image = _photograph(152, 30)
    shrunk = cv2.resize(image, (30, 56), interpolation=cv2.INTER_AREA)
    expected = np.asarray(Image.fromarray(shrunk).resize((56, 56), Image.Resampling.BILINEAR))
    resized = crops.resize_area(tf.constant(image), 56).numpy()
    assert np.abs(resized - expected.astype(int)).max() <= 2  # the reference rounds twice


def test_resize_area_is_equal_inside_tf_data_with_unknown_shapes():
    image = _photograph(70, 50)
    signature = tf.TensorSpec([None, None, 3], tf.uint8)
    dataset = tf.data.Dataset.from_generator(lambda: [image], output_signature=signature)
    resized = next(dataset.map(lambda pixels: crops.resize_area(pixels, 56)).as_numpy_iterator())
    np.testing.assert_array_equal(resized, crops.resize_area(tf.constant(image), 56))


# Stretch of the long side, and short side in pixels for crops of 224, of the predecessor.
CLASSIC = (0.8, 1.25, 256, 384)


def _our_windows(height, width, number):
    """Windows of `classic_window`, int32 [number, 4]."""
    draws = np.random.default_rng(11).uniform(size=(number, 4)).astype(np.float32)
    dataset = tf.data.Dataset.from_tensor_slices(draws).map(
        lambda draw: crops.classic_window(tf.constant([height, width]), draw, *CLASSIC)
    )
    batches = dataset.batch(number).with_options(threads.make_dataset_options())
    return next(batches.as_numpy_iterator())


def _three_steps(height, width, rng):
    """Stretches, resizes and crops in three steps, each rounded to whole pixels.

    Returns:
      [top, left, height, width] of the final 224 x 224 pixels, in the source image.
    """
    stretched = np.array([height, width])
    long = 1 if height < width else 0
    stretched[long] = int(stretched[long] * rng.uniform(0.8, 1.25))
    short = rng.integers(256, 385)
    resized = (stretched * (short / stretched.min())).astype(int)
    start = [rng.integers(0, side - 224 + 1) for side in resized]
    scale = np.array([height, width]) / resized
    return [*(start * scale), *(224 * scale)]


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (400, 400), (2000, 2300)])
def test_classic_window_has_the_distribution_of_the_three_steps(height, width):
    number = 3000
    windows = _our_windows(height, width, number).astype(float)
    rng = np.random.default_rng(12)
    steps = np.array([_three_steps(height, width, rng) for _ in range(number)])
    # Whole pixels of the source are not whole pixels of the result, so dither both.
    windows += rng.uniform(-0.5, 0.5, windows.shape)
    steps += rng.uniform(-0.5, 0.5, steps.shape)

    def quantities(boxes):
        top, left, tall, wide = boxes.T
        return {
            **{"top": top, "left": left, "height": tall, "width": wide, "aspect": wide / tall},
            **{"area": tall * wide, "bottom": top + tall, "right": left + wide},
        }

    theirs = quantities(steps)
    for name, ours in quantities(windows).items():
        assert stats.ks_2samp(ours, theirs[name]).pvalue > 1e-3, name
    difference = np.corrcoef(windows.T) - np.corrcoef(steps.T)
    assert np.abs(difference).max() < 5 * 2**0.5 / number**0.5


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 5000), (5000, 1), (2, 3), (64, 64), (500, 375)]
)
def test_classic_window_is_inside_the_image(height, width):
    below_1 = np.float32(1 - 2**-24)
    for corner in np.ndindex(2, 2, 2, 2):
        draw = np.minimum(np.float32(corner), below_1)
        window = crops.classic_window(tf.constant([height, width]), draw, *CLASSIC)
        top, left, tall, wide = window.numpy()
        assert top >= 0 and tall >= 1 and top + tall <= height
        assert left >= 0 and wide >= 1 and left + wide <= width
        # Draws just below 1 give the last position.
        assert corner[2] == 0 or top + tall == height
        assert corner[3] == 0 or left + wide == width
