"""What an evaluation makes of errors: an image, the memory, another worker."""

import pytest
import tensorflow as tf

from input_pipeline import pipeline
from input_pipeline.errors import DataError, UsageError
from loops import evaluator as evaluators
from loops.checkpointing import restore
from tests.loops.tiny_nets import two_convolutions


@pytest.fixture(scope="module")
def evaluator(one_device, tiny_folder):
    """Of 11 images in batches of four."""
    from input_pipeline.sources import source
    from tests.command_line import resolve

    config = resolve("--dataset=folder", f"--data_dir={tiny_folder}", "--image_size=32")
    split = source.open_split(config.data, "val")
    with two_convolutions():
        net = restore.build_model(one_device, config.net, 3, "float32")
    return evaluator.Evaluator(one_device, net, split, config.data, crops=1, batch_size=4)


def failing(evaluator, monkeypatch, error, batches):
    """Lets the evaluator fail after so many batches."""
    step, calls = evaluator._step, []

    def fails(batch):
        calls.append(batch)
        if len(calls) > batches:
            raise error
        return step(batch)

    monkeypatch.setattr(evaluator, "_step", fails)


def test_memory_names_the_flag(evaluator, monkeypatch):
    error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmuch more")
    failing(evaluator, monkeypatch, error, 0)
    with pytest.raises(UsageError, match=r"--eval_batch_size=4: out of memory.*OOM when alloc"):
        evaluator()


def test_another_workers_end_is_told_at_once(evaluator, monkeypatch):
    """No image is looked at: the others must end within a minute, whatever the size of val."""
    failing(evaluator, monkeypatch, tf.errors.UnavailableError(None, None, "peer"), 1)
    monkeypatch.setattr(pipeline, "find_first_unreadable", lambda *args: pytest.fail("looked"))
    with pytest.raises(tf.errors.UnavailableError):
        evaluator()


def test_only_images_of_the_batches_at_hand_are_looked_at(evaluator, monkeypatch):
    asked = []

    def first_unreadable(split, indices):
        asked.extend(indices)
        return 5, "cut short"

    monkeypatch.setattr(pipeline, "find_first_unreadable", first_unreadable)
    failing(evaluator, monkeypatch, tf.errors.InvalidArgumentError(None, None, "?"), 1)
    with pytest.raises(DataError, match=r"\.jpg does not decode: cut short"):
        evaluator()
    assert asked == [4, 5, 6, 7, 8, 9, 10]


def test_each_gpu_has_its_views_and_halves_of_a_cpu_share_theirs(monkeypatch):
    assert [evaluators.choose_views_per_batch(replicas) for replicas in (1, 2)] == [50, 50]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert [evaluators.choose_views_per_batch(replicas) for replicas in (1, 8)] == [250, 2000]
