"""Times the stages of the input pipeline and names the slowest one.

The stages are timed as nested prefixes. A prefix does everything that training does up to a stage,
on the same threads. The difference between two adjacent prefixes is the cost of a stage.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from input_pipeline import pipeline, sample_order, threads
from input_pipeline.augmentation import batch_augment, image_augment
from input_pipeline.config import DataConfig
from input_pipeline.errors import DataError
from input_pipeline.sources.source import Source

# What to change when a stage is the slowest.
ADVICE = {
    "read": "put the images on a faster disk, prepare them as TFRecords, or use --cache=ram",
    "decode": "prepare the data set with --short_side=288: smaller images decode faster",
    "augment": "use a cheaper --augment, a smaller --image_size, or more --reader_threads",
    "batch": "use a larger --batch_size, or --data_service if all cores are busy",
    "copy": "the transfer to the device is the bottleneck: use a smaller --image_size to copy less",
    "normalize": "the device is the bottleneck; on a GPU this stage costs almost nothing",
}
_RUNS_PER_STAGE = 3


def make_stages(source: Source, config: DataConfig, seed: int) -> dict[str, Callable[[], Iterator]]:
    """Makes the functions that start each prefix of the pipeline.

    Args:
      source: the train split.
      config: DataConfig with its sizes and statistics resolved.
      seed: of the sample order and the augmentation.

    Returns:
      dict from the name of a stage to a function that returns an infinite iterator of batches.
    """
    batch_size = config.batch_size
    preprocess = tf.function(batch_augment.make_preprocess_fn(config, seed))

    def load(sample):
        epoch, position = sample // source.num_examples, sample % source.num_examples
        index = sample_order.image_index(seed, epoch, position, source.num_examples)
        return source.read(index)[0], sample_order.sample_seed(seed, sample)

    def iterate_batches(process):
        samples = tf.data.Dataset.range(2**62)
        processed = samples.map(
            lambda sample: process(*load(sample)),
            num_parallel_calls=threads.num_parallel_calls(config.reader_threads),
            deterministic=True,
        )
        batches = processed.batch(batch_size).prefetch(threads.PREFETCH_BATCHES)
        return iter(batches.with_options(threads.make_dataset_options(config.reader_threads)))

    def read(data, _):
        return tf.strings.length(data)

    def decode(data, image_seed):
        return tf.shape(image_augment.decode_window(data, image_seed, config))

    def augment(data, image_seed):
        return image_augment.augment(data, image_seed, config)[0, 0]

    def iterate_train_batches():
        return iter(pipeline.train_dataset(source, config, seed, 0, batch_size))

    def iterate_copied_batches():
        return (tf.nest.map_structure(tf.identity, batch) for batch in iterate_train_batches())

    return {
        "read": lambda: iterate_batches(read),
        "decode": lambda: iterate_batches(decode),
        "augment": lambda: iterate_batches(augment),
        "batch": iterate_train_batches,
        "copy": iterate_copied_batches,
        "normalize": lambda: (preprocess(batch) for batch in iterate_train_batches()),
    }


def measure(source: Source, config: DataConfig, seed: int, seconds: float) -> dict:
    """Times all prefixes of the pipeline.

    Args:
      source, config, seed: see `make_stages`.
      seconds: for each of three runs per prefix. Each run loads at least one batch.

    Returns:
      dict: `stages`, a list of dicts with images_per_second of the prefix (median of three) and
      added_ms_per_image, the cost of the stage; images_per_second of the whole pipeline; slowest;
      advice; cores.

    Raises:
      DataError: an image does not decode.
    """
    stages: list[dict[str, Any]] = []
    previous_ms = 0.0
    for name, start in make_stages(source, config, seed).items():
        try:
            iterator = start()
            _wait_until_ready(next(iterator))  # traces and fills the buffers
            rates = [
                _measure_rate(iterator, config.batch_size, seconds) for _ in range(_RUNS_PER_STAGE)
            ]
        except tf.errors.OpError as error:
            raise _locate_decode_error(error, source, seed) from error
        rate = sorted(rates)[_RUNS_PER_STAGE // 2]
        added_ms = max(0.0, 1000 / rate - previous_ms)
        stages.append({"stage": name, "images_per_second": rate, "added_ms_per_image": added_ms})
        previous_ms = max(previous_ms, 1000 / rate)
    slowest = max(stages, key=lambda stage: stage["added_ms_per_image"])["stage"]
    return {
        "images_per_second": stages[-1]["images_per_second"],
        "stages": stages,
        "slowest": slowest,
        "advice": ADVICE[slowest],
        "cores": threads.available_cores(),
    }


def _locate_decode_error(error: tf.errors.OpError, source: Source, seed: int) -> Exception:
    """Returns a DataError for the first unreadable image of training, or the error itself."""
    indices = (
        int(sample_order.image_index(seed, 0, position, source.num_examples))
        for position in range(source.num_examples)
    )
    unreadable = pipeline.find_first_unreadable(source, indices)
    if unreadable is None:
        return error
    index, reason = unreadable
    return DataError(
        f"{source.describe(index)} does not decode: {reason}; training would replace it, but the"
        " stages cannot be timed: fix or remove it"
    )


def _measure_rate(iterator: Iterator, batch_size: int, seconds: float) -> float:
    """Returns images per second, measured for about `seconds`."""
    started, images = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or not images:
        _wait_until_ready(next(iterator))
        images += batch_size
    return images / (time.perf_counter() - started)


def _wait_until_ready(batch: dict[str, tf.Tensor] | tuple | tf.Tensor) -> None:
    """Waits until a batch is computed."""
    for value in tf.nest.flatten(batch):
        value.numpy()
