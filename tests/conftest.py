"""Shared fixtures: two CPU devices, the strategies over them, and a tiny data set."""

import gc
import os
import pathlib

# Set before TensorFlow is imported. Processes that tests start inherit these.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As `loops.runtime.tensorflow_startup.set_environment` does.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # the tests have a process per core
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["KERAS_HOME"] = os.path.join(os.devnull, "keras")
os.environ["XDG_CONFIG_HOME"] = os.path.join(os.devnull, "config")  # see `user_code`

import cv2
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

# Files that take minutes start first. Otherwise one process would run them alone at the end.
_SLOWEST_FIRST = (
    "fuzz/test_campaigns",
    *("loops/test_train", "nets/test_all_nets", "test_main", "loops/test_evaluate_modes"),
    *("loops/distribution/test_workers", "loops/test_faults", "loops/tools/weights/test_export"),
    *("input_pipeline/test_resume", "input_pipeline/test_pipeline"),
    *("loops/checkpointing/test_fine_tuning", "input_pipeline/decoding/test_odd_files"),
    *("loops/tools/weights/test_average", "input_pipeline/augmentation/test_image_augment"),
    *("loops/tools/predict/test_predict",),
)
_TESTS = pathlib.Path(__file__).parent

_TINY_IMAGES = {"train": (8, 8, 7), "val": (4, 4, 3), "test": (2, 2, 1)}
_TINY_CLASSES = ("disc", "grid", "stripes")


def pytest_configure():
    """Splits the CPU into two devices and sets the log level of main.py.

    TensorFlow allows the split only before the first operation of the process. It does not optimize
    the graphs, which would take a third of the time of a tiny training. Tests that start main.py
    have them optimized, as users do.
    """
    logging.set_verbosity(logging.INFO)
    gc.freeze()  # imported objects are never garbage
    assert [n for n in _SLOWEST_FIRST if not (_TESTS / f"{n}.py").is_file()] == []
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def pytest_collection_modifyitems(items):
    """Sorts tests by file, slowest files first. `--no-loadscope-reorder` keeps this order."""
    ranks = {_TESTS / f"{name}.py": rank for rank, name in enumerate(_SLOWEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session")
def mirrored():
    """The only MirroredStrategy of the process, on two CPU devices. Two of them could deadlock."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def one_device():
    """A strategy on the first CPU device."""
    return tf.distribute.OneDeviceStrategy("CPU:0")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A class-folder data set of 23 train, 11 val and 5 test JPEG files in three classes.

    The counts are primes, so no batch size divides them. Images are about 48 x 40 px. Classes
    differ in shape and color. The folder is read-only: a test that damages files uses a copy.
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
    """Draws a noisy red disc, green grid or blue stripes: BGR uint8 [40 +- 6, 48 +- 8, 3]."""
    height, width = int(rng.integers(34, 47)), int(rng.integers(40, 57))
    image = np.full((height, width, 3), 40.0)
    color = np.eye(3)[2 - label] * rng.uniform(150, 200)
    rows, columns = np.indices((height, width))
    if label == 0:
        center = rng.uniform(0.4, 0.6, 2) * (height, width)
        inside = np.hypot(rows - center[0], columns - center[1]) < rng.uniform(9, 14)
    elif label == 1:
        inside = (rows // 6 + columns // 6 + rng.integers(2)) % 2 == 0
    else:
        inside = (columns + rng.integers(8)) % 8 < 4
    image[inside] += color
    return np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def read_events():
    """Returns a function that reads the event files of a folder as TensorBoard does.

    It returns {tag: {step: value}}. A scalar is a float and an image is a list of PNG files. Texts
    and hyperparameters are omitted.
    """

    def read(folder):
        from tensorboard.backend.event_processing import event_accumulator

        reader = event_accumulator.EventAccumulator(str(folder), {"tensors": 0})
        reader.Reload()
        values = {}
        for tag in reader.Tags()["tensors"]:
            plugin = reader.SummaryMetadata(tag).plugin_data.plugin_name
            arrays = {e.step: tf.make_ndarray(e.tensor_proto) for e in reader.Tensors(tag)}
            if plugin == "images":  # width, height, then one PNG file per image
                values[tag] = {step: list(array[2:]) for step, array in arrays.items()}
            elif plugin == "scalars":
                values[tag] = {step: float(array) for step, array in arrays.items()}
        return values

    return read
