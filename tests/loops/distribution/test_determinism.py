"""Deterministic operations do not slow the loading of images down, nor stop it."""

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


def most_at_once(make_iterator):
    """How many images of a data set with a function that has state are loaded at the same time."""
    lock, now, most = threading.Lock(), [0], [0]

    def load(number):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return number

    numbers = tf.data.Dataset.range(12)
    loaded = numbers.map(
        lambda n: tf.numpy_function(load, [n], tf.int64), num_parallel_calls=4, deterministic=True
    )
    loaded = loaded.with_options(threads.make_dataset_options())
    assert [int(n) for n in make_iterator(loaded)] == list(range(12))
    return most[0]


def test_images_are_loaded_beside_one_another():
    """TensorFlow would load one at a time. Hence `loops/distribution/determinism.py`."""
    assert most_at_once(iter) == 1

    def made_within(dataset):
        with iterator_workarounds.suspend_op_determinism():
            return iter(dataset)

    assert most_at_once(made_within) > 1
    assert framework_config.is_op_determinism_enabled()


def test_operations_that_need_not_be_stay_so():
    framework_config.disable_op_determinism()
    with iterator_workarounds.suspend_op_determinism():
        pass
    assert not framework_config.is_op_determinism_enabled()


class Images:
    """A data set whose iterator says under which regime it was made."""

    def __iter__(self):
        return iter([framework_config.is_op_determinism_enabled()])


def test_the_feed_makes_its_iterators_so(one_device, tiny_folder, monkeypatch):
    """Else what watches a data service, which yields nothing, would be waited for for ever."""
    config = DataConfig(dataset="folder", data_dir=str(tiny_folder), image_size=16, batch_size=4)
    feed = TrainInput(one_device, source.open_split(config, "train"), config, seed=1)
    monkeypatch.setattr(strategies, "distribute", lambda *_: Images())
    assert next(feed.make_iterator(0)) is False
    assert framework_config.is_op_determinism_enabled()
