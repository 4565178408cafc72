"""What training does in one step: the window of `classic`, and the resizing that follows.

The oracles: the predecessor's three steps one after the other, OpenCV's INTER_AREA, PIL's bilinear.
"""

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import stats

from input_pipeline.augmentation import crops
from tests.input_pipeline import encoded_images


def _photograph(height, width):
    """Soft shapes and noise, uint8 [height, width, 3]."""
    return np.asarray(encoded_images.picture().resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("height", "width"), [(64, 85), (57, 56), (56, 200), (170, 130), (56, 56)])
def test_shrinking_is_opencv_inter_area(height, width):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    for image in (noise, _photograph(height, width)):
        expected = cv2.resize(image, (56, 56), interpolation=cv2.INTER_AREA).astype(int)
        resized = crops.resize_area(tf.constant(image), 56).numpy()
        assert resized.shape == (56, 56, 3) and resized.dtype == np.uint8
        assert np.abs(resized - expected).max() <= 1
        # Every pixel of the source counts alike.
        np.testing.assert_allclose(resized.mean((0, 1)), image.mean((0, 1)), atol=0.2)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (20, 33), (55, 8), (56, 30)])
def test_enlarging_is_pil_bilinear(height, width):
    image = Image.fromarray(_photograph(height, width))
    expected = np.asarray(image.resize((56, 56), Image.Resampling.BILINEAR)).astype(int)
    resized = crops.resize_area(tf.constant(np.asarray(image)), 56).numpy()
    assert np.abs(resized - expected).max() <= 1


def test_shrinking_one_axis_and_enlarging_the_other():
    image = _photograph(152, 30)
    shrunk = cv2.resize(image, (30, 56), interpolation=cv2.INTER_AREA)
    expected = np.asarray(Image.fromarray(shrunk).resize((56, 56), Image.Resampling.BILINEAR))
    resized = crops.resize_area(tf.constant(image), 56).numpy()
    assert np.abs(resized - expected.astype(int)).max() <= 2  # the oracle rounds twice


def test_the_same_inside_tf_data_where_shapes_are_unknown():
    image = _photograph(70, 50)
    signature = tf.TensorSpec([None, None, 3], tf.uint8)
    dataset = tf.data.Dataset.from_generator(lambda: [image], output_signature=signature)
    resized = next(dataset.map(lambda pixels: crops.resize_area(pixels, 56)).as_numpy_iterator())
    np.testing.assert_array_equal(resized, crops.resize_area(tf.constant(image), 56))


def _our_windows(height, width, number):
    """Windows int32 [number, 4] of our one step."""
    draws = np.random.default_rng(11).uniform(size=(number, 4)).astype(np.float32)
    dataset = tf.data.Dataset.from_tensor_slices(draws).map(
        lambda draw: crops.classic_window(tf.constant([height, width]), draw)
    )
    return next(dataset.batch(number).as_numpy_iterator())


def _three_steps(height, width, rng):
    """Stretch, resizing and crop, one after the other, whole pixels throughout.

    Returns:
      top, left, height and width, in the source, of the 224 x 224 pixels at the end.
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
def test_windows_are_distributed_as_those_of_the_three_steps(height, width):
    number = 3000
    windows = _our_windows(height, width, number).astype(float)
    rng = np.random.default_rng(12)
    steps = np.array([_three_steps(height, width, rng) for _ in range(number)])
    # Whole pixels of the source are not whole pixels of the result: both are spread evenly.
    windows += rng.uniform(-0.5, 0.5, windows.shape)
    steps += rng.uniform(-0.5, 0.5, steps.shape)

    def quantities(found):
        top, left, tall, wide = found.T
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
def test_windows_lie_inside(height, width):
    below_1 = np.float32(1 - 2**-24)
    for corner in np.ndindex(2, 2, 2, 2):
        draw = np.minimum(np.float32(corner), below_1)
        top, left, tall, wide = crops.classic_window(tf.constant([height, width]), draw).numpy()
        assert top >= 0 and tall >= 1 and top + tall <= height
        assert left >= 0 and wide >= 1 and left + wide <= width
        # Where the last position is asked for, it is taken.
        assert corner[2] == 0 or top + tall == height
        assert corner[3] == 0 or left + wide == width
