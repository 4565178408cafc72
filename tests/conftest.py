"""What several test files need: two CPU devices, the strategies over them, a tiny data set."""

import gc
import os
import pathlib

# Before TensorFlow loads, here and in the processes that tests start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as loops/runtime/tensorflow_startup.py does

import cv2
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

# Files that take minutes are begun first, or one process would be left alone with them at the end.
_LONGEST = (
    *("loops/test_train", "nets/test_all_nets", "test_main", "loops/test_evaluate_modes"),
    *("loops/distribution/test_workers", "loops/test_faults", "loops/tools/weights/test_export"),
    *("input_pipeline/test_resume", "input_pipeline/test_pipeline"),
    *("loops/checkpointing/test_fine_tuning", "input_pipeline/decoding/test_odd_files"),
    *("loops/tools/weights/test_average", "input_pipeline/augmentation/test_image_augment"),
    *("loops/tools/predict/test_predict",),
)
_HERE = pathlib.Path(__file__).parent

_TINY_IMAGES = {"train": (8, 8, 7), "val": (4, 4, 3), "test": (2, 2, 1)}
_TINY_CLASSES = ("disc", "grid", "stripes")


def pytest_configure():
    """Splits the CPU in two, possible only until the first operation of the process; logs what
    loops/runtime/log_format.py does."""
    logging.set_verbosity(logging.INFO)
    gc.freeze()  # what is imported is never garbage
    assert [n for n in _LONGEST if not (_HERE / f"{n}.py").is_file()] == []
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def pytest_collection_modifyitems(items):
    """Sorts by file, the longest first; `--no-loadscope-reorder` keeps it so."""
    places = {_HERE / f"{name}.py": place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def mirrored():
    """The one MirroredStrategy of the process, over two CPU devices: two of them may collide."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def one_device():
    """A strategy over the first CPU device."""
    return tf.distribute.OneDeviceStrategy("CPU:0")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A class-folder data set: 23 train, 11 val and 5 test JPEG files of three classes.

    The counts are primes, so no batch size divides them; sides vary about 48 x 40 px. Classes
    differ in form and in colour. Read only: tests that break files do so in a copy.
    """
    root = tmp_path_factory.mktemp("tiny_folder")
    rng = np.random.default_rng(7)
    for split, counts in _TINY_IMAGES.items():
        for label, count in enumerate(counts):
            folder = root / split / _TINY_CLASSES[label]
            folder.mkdir(parents=True)
            for number in range(count):
                ok, jpeg = cv2.imencode(".jpg", _tiny_image(label, rng))
                assert ok
                (folder / f"{number:02d}.jpg").write_bytes(jpeg.tobytes())
    return root


def _tiny_image(label, rng):
    """BGR uint8 [40 +- 6, 48 +- 8, 3]: a red disc, a green grid or blue stripes, with noise."""
    height, width = int(rng.integers(34, 47)), int(rng.integers(40, 57))
    image = np.full((height, width, 3), 40.0)
    colour = np.eye(3)[2 - label] * rng.uniform(150, 200)
    rows, columns = np.indices((height, width))
    if label == 0:
        middle = rng.uniform(0.4, 0.6, 2) * (height, width)
        inside = np.hypot(rows - middle[0], columns - middle[1]) < rng.uniform(9, 14)
    elif label == 1:
        inside = (rows // 6 + columns // 6 + rng.integers(2)) % 2 == 0
    else:
        inside = (columns + rng.integers(8)) % 8 < 4
    image[inside] += colour
    return np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def read_events():
    """Returns the function that reads a folder's event files as TensorBoard does.

    It maps each tag to {step: value}: a float of a scalar, a list of PNG files of an image. Texts
    and hyperparameters are left out.
    """

    def read(folder):
        from tensorboard.backend.event_processing import event_accumulator

        reader = event_accumulator.EventAccumulator(str(folder), {"tensors": 0})
        reader.Reload()
        found = {}
        for tag in reader.Tags()["tensors"]:
            plugin = reader.SummaryMetadata(tag).plugin_data.plugin_name
            arrays = {e.step: tf.make_ndarray(e.tensor_proto) for e in reader.Tensors(tag)}
            if plugin == "images":  # width, height, then one PNG file for each image
                found[tag] = {step: list(array[2:]) for step, array in arrays.items()}
            elif plugin == "scalars":
                found[tag] = {step: float(array) for step, array in arrays.items()}
        return found

    return read
