"""Deterministic operations do not slow the loading of images down, nor stop it."""

import itertools
import threading
import time

import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework_config

from input_pipeline import pipeline, service_watch, source
from input_pipeline.config import DataConfig
from loops.step import determinism
from loops.step.feed import TrainFeed


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
    assert [int(n) for n in make_iterator(loaded)] == list(range(12))
    return most[0]


def test_images_are_loaded_beside_one_another():
    """TensorFlow would load one at a time. Hence `loops/step/determinism.py`."""
    assert most_at_once(iter) == 1

    def made_within(dataset):
        with determinism.left_to_us():
            return iter(dataset)

    assert most_at_once(made_within) > 1
    assert framework_config.is_op_determinism_enabled()


def test_operations_that_need_not_be_stay_so():
    framework_config.disable_op_determinism()
    with determinism.left_to_us():
        pass
    assert not framework_config.is_op_determinism_enabled()


def test_the_feed_of_a_watched_service_does_not_stand_still(one_device, tiny_folder, monkeypatch):
    """What watches a data service yields nothing: TensorFlow would wait for it after one batch."""
    config = DataConfig(
        dataset="folder", data_dir=str(tiny_folder), image_size=16, batch_size=4, min_crop_area=0.3
    )
    monkeypatch.setattr(service_watch, "addresses", lambda _: [])
    monkeypatch.setattr(service_watch, "_SECONDS_BETWEEN", 0.1)
    load = pipeline.train_dataset
    monkeypatch.setattr(
        pipeline,
        "train_dataset",
        lambda *arguments: service_watch.watched(load(*arguments), "nobody:1"),
    )
    feed = TrainFeed(one_device, source.open_split(config, "train"), config, seed=1)
    found = []

    def read():
        for batch in itertools.islice(feed.iterator(0), 5):
            found.append(len(batch["image"]))

    # Where it stands still this thread does, and not the test.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(30)
    assert found == [4] * 5
