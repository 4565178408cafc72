"""Tests of errors during an evaluation: unreadable images, memory, a lost worker."""

import dataclasses

import pytest
import tensorflow as tf

from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import source
from loops.checkpointing import restore
from loops.evaluator import Evaluator, choose_views_per_batch
from tests.command_line import resolve
from tests.loops.tiny_nets import two_convolutions

UNREADABLE = 10


@pytest.fixture(scope="module")
def reread():
    """Positions of images that were read again, outside the input pipeline's graph."""
    return []


@pytest.fixture(scope="module")
def evaluator(one_device, tiny_folder, reread):
    """An Evaluator of 11 images in batches of four. If read again, the last one is unreadable."""
    config = resolve("--dataset=folder", f"--data_dir={tiny_folder}", "--image_size=32")
    split = source.open_split(config.data, "val")

    def read_file(index):
        encoded, label = split.read_file(index)
        reread.append(int(index))
        return (tf.constant(b"no image"), label) if index == UNREADABLE else (encoded, label)

    with two_convolutions():
        model = restore.build_model(one_device, config.net, 3, "float32")
    spied = dataclasses.replace(split, read_file=read_file)
    return Evaluator(one_device, model, spied, config.data, crops=1, batch_size=4)


def raise_after(num_batches, error):
    """Returns a `keep` callback that raises an error after some batches."""
    batches = []

    def keep(logits):
        batches.append(logits)
        if len(batches) > num_batches:
            raise error

    return keep


def test_out_of_memory_names_the_flag(evaluator):
    error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmuch more")
    with pytest.raises(UsageError, match=r"--eval_batch_size=4: out of memory.*OOM when alloc"):
        evaluator(keep=raise_after(0, error))


def test_lost_worker_is_reported_without_reading_images(evaluator, reread):
    """The other workers must end within a minute, no matter how large val is."""
    reread.clear()
    error = tf.errors.UnavailableError(None, None, "peer")
    with pytest.raises(tf.errors.UnavailableError):
        evaluator(keep=raise_after(1, error))
    assert reread == []


def test_unreadable_image_is_searched_only_in_current_batches(evaluator, reread):
    reread.clear()
    error = tf.errors.InvalidArgumentError(None, None, "?")
    with pytest.raises(DataError, match=r"\.jpg does not decode: "):
        evaluator(keep=raise_after(1, error))
    assert reread == [4, 5, 6, 7, 8, 9, 10]


def test_views_per_batch_grow_with_gpus_but_not_with_cpu_replicas(monkeypatch):
    assert [choose_views_per_batch(replicas) for replicas in (1, 2)] == [50, 50]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert [choose_views_per_batch(replicas) for replicas in (1, 8)] == [250, 2000]
