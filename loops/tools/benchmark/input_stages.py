"""Where the time of the input pipeline goes: its stages as nested prefixes, each one timed.

A prefix does all that training does up to a stage and nothing after it, on the same threads, so
the difference of two neighbours is what a stage adds.
"""

import time

import tensorflow as tf

from input_pipeline import pipeline, sample_order, threads
from input_pipeline.augmentation import batch_augment, image_augment
from input_pipeline.errors import DataError

# What to change when a stage is the slowest.
ADVICE = {
    "read": "put the images on a faster disk, prepare them as TFRecords, or use --cache=ram",
    "decode": "prepare the set with --short_side=288: smaller images decode faster",
    "augment": "use a cheaper --augment, a smaller --image_size, or more --reader_threads",
    "batch": "use a larger --batch_size, or --data_service where the cores are all busy",
    "copy": "the way to the device is the limit: a smaller --image_size ships fewer bytes",
    "normalise": "what runs on the device is the limit: on a GPU it costs next to nothing",
}


def make_stages(source, config, seed):
    """Functions that run each prefix.

    Args:
      source: Source of the train split.
      config: DataConfig with its sizes and statistics resolved.
      seed: of order and augmentation.

    Returns:
      dict from a stage to a function that returns an iterator of batches, endless.
    """
    batch = config.batch_size
    prepare = tf.function(batch_augment.make_preprocess_fn(config, seed))

    def sample(number):
        epoch, position = number // source.num_examples, number % source.num_examples
        index = sample_order.image_index(seed, epoch, position, source.num_examples)
        return source.read(index)[0], sample_order.sample_seed(seed, number)

    def prefix(of_sample):
        numbers = tf.data.Dataset.range(2**62)
        loaded = numbers.map(
            lambda number: of_sample(*sample(number)),
            num_parallel_calls=threads.num_parallel_calls(config.reader_threads),
            deterministic=True,
        )
        ahead = loaded.batch(batch).prefetch(threads.PREFETCH_BATCHES)
        return iter(ahead.with_options(threads.make_dataset_options(config.reader_threads)))

    def decoded(data, of_seed):
        return tf.shape(image_augment.decode_window(data, of_seed, config))

    def augmented(data, of_seed):
        return image_augment.augment(data, of_seed, config)[0, 0]

    def batches():
        return iter(pipeline.train_dataset(source, config, seed, 0, batch))

    def copied():
        return (tf.nest.map_structure(tf.identity, one) for one in batches())

    return {
        "read": lambda: prefix(lambda data, _: tf.strings.length(data)),
        "decode": lambda: prefix(decoded),
        "augment": lambda: prefix(augmented),
        "batch": batches,
        "copy": copied,
        "normalise": lambda: (prepare(one) for one in batches()),
    }


def measure(source, config, seed, seconds):
    """Times all prefixes.

    Args:
      source, config, seed: see `make_stages`.
      seconds: for each of three runs of each prefix, at least a batch.

    Returns:
      dict: `stages`, a list of dicts with images_per_second of the prefix (median of three) and
      added_ms_per_image, what the stage costs; images_per_second of the whole; slowest; advice;
      cores.

    Raises:
      DataError: an image does not decode.
    """
    rows, before = [], 0.0
    for name, start in make_stages(source, config, seed).items():
        try:
            iterator = start()
            _wait_until_ready(next(iterator))  # traces, fills the buffers
            rate = sorted(_measure_rate(iterator, config.batch_size, seconds) for _ in range(3))[1]
        except tf.errors.OpError as error:
            raise _locate_decode_error(error, source, seed) from error
        added = max(0.0, 1000 / rate - before)
        rows.append({"stage": name, "images_per_second": rate, "added_ms_per_image": added})
        before = max(before, 1000 / rate)
    slowest = max(rows, key=lambda row: row["added_ms_per_image"])["stage"]
    return {
        "images_per_second": rows[-1]["images_per_second"],
        "stages": rows,
        "slowest": slowest,
        "advice": ADVICE[slowest],
        "cores": threads.available_cores(),
    }


def _locate_decode_error(error, source, seed):
    """The DataError that names the first image in the order of training that does not decode, or
    the error itself."""
    order_of_training = (
        int(sample_order.image_index(seed, 0, position, source.num_examples))
        for position in range(source.num_examples)
    )
    found = pipeline.find_first_unreadable(source, order_of_training)
    if found is None:
        return error
    return DataError(
        f"{source.describe(found[0])} does not decode: {found[1]}; training takes the next one, but"
        " the stages cannot be told apart then: mend or remove it"
    )


def _measure_rate(iterator, batch_size, seconds):
    """Images per second over about so many seconds."""
    started, images = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or not images:
        _wait_until_ready(next(iterator))
        images += batch_size
    return images / (time.perf_counter() - started)


def _wait_until_ready(batch):
    """Waits until a batch is computed."""
    for value in tf.nest.flatten(batch):
        value.numpy()
