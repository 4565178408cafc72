"""Thread counts and dataset options; the autotuner is disabled everywhere."""

import os
import threading

import pytest
import tensorflow as tf

import flags
from input_pipeline import pipeline, threads
from input_pipeline.sources import source
from loops.config import resolve
from loops.tools.predict import views


@pytest.fixture(scope="module")
def config(tiny_folder):
    words = ["train", "--dataset=folder", f"--data_dir={tiny_folder}", "--image_size=32"]
    return resolve.resolve(flags.parse(words)).data


def test_no_dataset_is_autotuned(config, tiny_folder):
    split = source.open_split(config, "train")
    paths = sorted(str(path) for path in tiny_folder.rglob("*.jpg"))
    preprocessing = views.Preprocessing(32, 0.875, "bilinear", 1, False)
    datasets = [
        views.make_dataset(paths, [preprocessing], 4),
        pipeline.train_dataset(split, config, 0, 0, 4),
        pipeline.eval_dataset(split, config, 10, 4, 1),
    ]
    for dataset in datasets:
        assert dataset.options().autotune.enabled is False


def test_one_thread_per_core_by_default():
    assert threads.num_parallel_calls(3) == 3
    assert threads.num_parallel_calls(0) == len(os.sched_getaffinity(0))
    assert threads.make_dataset_options(3).threading.private_threadpool_size == 3
    policy = tf.data.experimental.AutoShardPolicy.OFF
    assert threads.make_dataset_options().experimental_distribute.auto_shard_policy == policy


def test_iterator_loads_before_the_first_batch_is_asked_for():
    loaded = threading.Event()

    def load(number):
        loaded.set()
        return number

    numbers = (
        tf.data.Dataset.range(4).map(lambda n: tf.py_function(load, [n], tf.int64)).prefetch(1)
    )
    iterator = iter(numbers.with_options(threads.make_dataset_options()))
    assert loaded.wait(timeout=20)
    assert next(iterator) == 0
