"""Op determinism neither slows down nor blocks image loading."""

import threading
import time

import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework_config

from input_pipeline import threads
from input_pipeline.config import DataConfig
from input_pipeline.sources import source
from loops.distribution import iterator_workarounds, strategies
from loops.train_input import TrainInput


@pytest.fixture(autouse=True)
def deterministic():
    tf.config.experimental.enable_op_determinism()
    yield
    framework_config.disable_op_determinism()


def max_concurrent_loads(make_iterator):
    """Returns how many images a dataset with a stateful function loads at the same time."""
    lock, running, most = threading.Lock(), [0], [0]

    def load(number):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return number

    numbers = tf.data.Dataset.range(12)
    loaded = numbers.map(
        lambda n: tf.numpy_function(load, [n], tf.int64), num_parallel_calls=4, deterministic=True
    )
    loaded = loaded.with_options(threads.make_dataset_options())
    assert [int(n) for n in make_iterator(loaded)] == list(range(12))
    return most[0]


def test_images_are_loaded_in_parallel():
    """With op determinism TensorFlow loads one image at a time.

    `loops/distribution/iterator_workarounds.py` works around this.
    """
    assert max_concurrent_loads(iter) == 1

    def make_iterator(dataset):
        with iterator_workarounds.suspend_op_determinism():
            return iter(dataset)

    assert max_concurrent_loads(make_iterator) > 1
    assert framework_config.is_op_determinism_enabled()


def test_disabled_op_determinism_stays_disabled():
    framework_config.disable_op_determinism()
    with iterator_workarounds.suspend_op_determinism():
        pass
    assert not framework_config.is_op_determinism_enabled()


class Images:
    """A dataset whose iterator yields whether op determinism was on when it was created."""

    def __iter__(self):
        return iter([framework_config.is_op_determinism_enabled()])


def test_train_input_suspends_op_determinism(one_device, tiny_folder, monkeypatch):
    """Otherwise training would wait forever for the dataset that watches the data service."""
    config = DataConfig(dataset="folder", data_dir=str(tiny_folder), image_size=16, batch_size=4)
    train_input = TrainInput(one_device, source.open_split(config, "train"), config, seed=1)
    monkeypatch.setattr(strategies, "distribute", lambda *_: Images())
    assert next(train_input.make_iterator(0)) is False
    assert framework_config.is_op_determinism_enabled()
