"""Caches the images in memory: `--cache=ram` the encoded files, `--cache=pixels` their pixels."""

from collections.abc import Callable

import tensorflow as tf
from absl import logging

from input_pipeline import threads
from input_pipeline.config import DataConfig
from input_pipeline.decoding import decode
from input_pipeline.errors import UsageError
from input_pipeline.system import available_memory

# Fraction of the free memory that the cache may use. The model, the batches and other processes
# need the rest.
_MAX_MEMORY_FRACTION = 0.7
_NUM_SAMPLED = 200

_Reader = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def cache_in_memory(
    read: _Reader, num_examples: int, split_name: str, config: DataConfig
) -> _Reader:
    """Reads every image once and returns a function that reads from memory.

    The pixels are the same as without a cache. An unreadable file is stored as empty bytes, which
    fail to decode like the file itself.

    Args:
      read: function from an int64 scalar tensor to (encoded image, int32 label).
      num_examples: N.
      split_name: name of the split, for messages.
      config: `cache` is "ram" or "pixels".

    Returns:
      A function like `read`. With "pixels" it returns (uint8 [H, W, 3], int32 label).

    Raises:
      UsageError: the images do not fit into the free memory.
    """
    is_decoded = config.cache == "pixels"
    if is_decoded:
        read = _make_pixel_reader(read, config.exif)
    _require_free_memory(read, num_examples, split_name, config.cache)

    def read_or_empty(index):
        image = tf.data.Dataset.from_tensors(index).map(read).ignore_errors()
        empty = tf.data.Dataset.from_tensors((b"", 0)).map(lambda d, n: (d, tf.cast(n, tf.int32)))
        return image.concatenate(empty).take(1).get_single_element()

    images = tf.data.Dataset.range(num_examples).map(
        read_or_empty,
        num_parallel_calls=threads.num_parallel_calls(config.reader_threads),
        deterministic=True,
    )
    options = threads.make_dataset_options(config.reader_threads)
    data, labels = images.batch(num_examples).with_options(options).get_single_element()
    num_bytes = int(tf.reduce_sum(tf.cast(tf.strings.length(data), tf.int64)))
    logging.info(
        "%s: cached %d images (%.1f MB) in memory", split_name, num_examples, num_bytes / 1e6
    )

    def read_from_memory(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = data[index]
        if is_decoded:
            image = tf.ensure_shape(tf.io.parse_tensor(image, tf.uint8), [None, None, 3])
        return image, labels[index]

    return read_from_memory


def _make_pixel_reader(read: _Reader, exif: str) -> _Reader:
    """Returns a function like `read` whose images are serialized tensors of pixels."""

    def read_pixels(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = read(index)
        return tf.io.serialize_tensor(decode.decode_image(image, exif)), label

    return read_pixels


def _require_free_memory(read: _Reader, num_examples: int, split_name: str, cache: str) -> None:
    """Raises UsageError if the estimated size of all images is too large for the free memory."""
    free = available_memory.available_bytes()
    if free is None:
        return
    stride = max(1, num_examples // _NUM_SAMPLED)
    sample = tf.data.Dataset.range(0, num_examples, stride).map(read).ignore_errors()
    sample = sample.with_options(threads.make_dataset_options(0))
    sizes = [len(data) for data, _ in sample.as_numpy_iterator()]
    needed = sum(sizes) / max(1, len(sizes)) * num_examples
    if needed > _MAX_MEMORY_FRACTION * free:
        other = "give --cache=ram" if cache == "pixels" else "omit the flag"
        raise UsageError(
            f"--cache={cache}: {split_name} needs about {needed / 1e9:.1f} GB, but only"
            f" {_MAX_MEMORY_FRACTION:.0%} of the {free / 1e9:.1f} GB of free memory may be used;"
            f" {other}, or prepare the data set with --short_side=288"
        )
