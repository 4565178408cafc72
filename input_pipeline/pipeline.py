"""The input pipeline: from sample numbers to batches of uint8 images.

The stream starts as sample numbers, which determine everything else (see `sample_order.py`). One
function reads, decodes and augments a sample. It runs in parallel and keeps the order. Images are
normalized on the accelerator, by `batch_augment`, so the host transfers bytes and not floats.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from input_pipeline import augment_spec, sample_order, threads
from input_pipeline.arithmetic import ceil_div
from input_pipeline.augmentation import crops, image_augment
from input_pipeline.config import DataConfig
from input_pipeline.decoding import decode
from input_pipeline.sample_order import ReplicaSlice
from input_pipeline.sources.source import Source

# An unreadable image is replaced by the image at the next position of the permutation. If this
# many images in a row are unreadable, the whole data set is broken, not just one image.
MAX_DECODE_ATTEMPTS = 8
# At least two batches are loaded at the same time: the second keeps the threads busy while the last
# images of the first are decoded.
_MIN_PARALLEL_BATCHES = 2
# AutoGraph would spend seconds converting every function that a stage calls. No function needs it,
# because none has a Python `if` or a loop over tensors.
_do_not_convert = tf.autograph.experimental.do_not_convert


def train_dataset(
    source: Source,
    config: DataConfig,
    seed: int,
    first_sample: int | tf.Tensor,
    batch_size: int,
    replica_slice: ReplicaSlice | None = None,
    batches: int | None = None,
) -> tf.data.Dataset:
    """Returns batches of augmented images, in the order that (seed, first_sample) determines.

    Args:
      source: the train split.
      config: DataConfig with its sizes resolved.
      seed: the run's seed.
      first_sample: global number of the first sample.
      batch_size: images per batch of one replica.
      replica_slice: the replicas whose batches are loaded; None for all replicas.
      batches: number of batches; None for an infinite dataset.

    Returns:
      Dataset of dicts:
        image: uint8 [B, S, S, 3].
        label: int32 [B].
        sample: int64 [B], global sample numbers.
        replaced: int64 [B], number of unreadable images that this image replaces; 0 if none.
    """
    # Traced once, for both uses below.
    signature = [tf.TensorSpec([], tf.int64)] * 2
    attempt = tf.function(_make_sample_loader(source, config, seed), signature, autograph=False)
    parallel_samples = _count_parallel_samples(config)
    parallel_batches = max(_MIN_PARALLEL_BATCHES, ceil_div(parallel_samples, batch_size))
    in_batch = _parallel(ceil_div(parallel_samples, parallel_batches))

    # Errors are ignored only within the attempts at one sample. If a bad image were dropped from
    # the whole stream, all later batches would shift.
    def load_or_substitute(sample: tf.Tensor) -> dict[str, tf.Tensor]:
        attempts = tf.data.Dataset.range(MAX_DECODE_ATTEMPTS).map(lambda k: attempt(sample, k))
        return attempts.ignore_errors().take(1).get_single_element()

    # Catching an error has a fixed cost of milliseconds, so it is done once per batch.
    @_do_not_convert
    def load_batch(numbers: tf.Tensor) -> dict[str, tf.Tensor]:
        samples = tf.data.Dataset.from_tensor_slices(numbers)
        first_choice = samples.map(
            lambda sample: attempt(sample, tf.constant(0, tf.int64)), **in_batch
        )
        whole = first_choice.ignore_errors().batch(batch_size, drop_remainder=True)
        # Runs only if an image of the batch is unreadable.
        one_by_one = samples.map(load_or_substitute, **in_batch)
        one_by_one = one_by_one.batch(batch_size, drop_remainder=True)
        return whole.concatenate(one_by_one).take(1).get_single_element()

    samples = sample_order.sample_numbers(first_sample, batch_size, replica_slice)
    numbers = samples.batch(batch_size, drop_remainder=True)
    if batches is not None:
        numbers = numbers.take(batches)
    return _prefetch(numbers.map(load_batch, **_parallel(parallel_batches)), config)


def load_first_samples(
    source: Source, config: DataConfig, seed: int, count: int
) -> dict[str, tf.Tensor]:
    """Loads the first `count` samples of training eagerly, in one process.

    Building a tf.data pipeline takes seconds. This takes a tenth of a second.

    Args:
      source, config, seed: see `train_dataset`.
      count: number of samples.

    Returns:
      One batch of `train_dataset`.

    Raises:
      tf.errors.OpError: MAX_DECODE_ATTEMPTS images in a row do not decode.
    """
    attempt = _make_sample_loader(source, config, seed)

    def load(sample: int) -> dict[str, tf.Tensor]:
        for offset in range(MAX_DECODE_ATTEMPTS):
            try:
                return attempt(tf.constant(sample, tf.int64), tf.constant(offset, tf.int64))
            except tf.errors.OpError as error:
                last_error = error
        raise last_error

    with tf.device("CPU"):
        return tf.nest.map_structure(lambda *one: tf.stack(one), *map(load, range(count)))


def _make_sample_loader(
    source: Source, config: DataConfig, seed: int
) -> Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """Makes the function that loads one sample, or another image in its place.

    Returns:
      Function from two int64 scalars to the dict of one sample: the global sample number, and the
      offset of the image from the sample's position in the permutation.
    """
    num_examples = source.num_examples

    def attempt(sample: tf.Tensor, offset: tf.Tensor) -> dict[str, tf.Tensor]:
        epoch, position = sample // num_examples, sample % num_examples
        position = sample_order.repeat_positions(position, config.repeated_augmentation)
        position = (position + offset) % num_examples
        data, label = source.read(sample_order.image_index(seed, epoch, position, num_examples))
        image = image_augment.augment(data, sample_order.sample_seed(seed, sample), config)
        return {"image": image, "label": label, "sample": sample, "replaced": offset}

    return attempt


def eval_dataset(
    source: Source,
    config: DataConfig,
    crops_per_image: int,
    batch_size: int,
    multiple: int,
    replica_slice: ReplicaSlice | None = None,
) -> tf.data.Dataset:
    """Returns a dataset of each image once, in order. The last batches are padded with zeros.

    Args:
      source: the split.
      config: DataConfig with its sizes resolved.
      crops_per_image: V, 1 or 10.
      batch_size: images per batch of one replica.
      multiple: the number of replicas on all workers; the number of batches is a multiple of it.
      replica_slice: the replicas whose batches are loaded; None for all replicas.

    Returns:
      Dataset of dicts:
        views: uint8 [B, V, S, S, 3].
        label: int32 [B].
        mask: bool [B], false for padding.
    """
    size = config.image_size

    def load_image(sample: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        data, label = source.read(sample)
        views = crops.extract_views(
            decode.decode_image(data, config.exif),
            size,
            crops_per_image,
            config.crop_fraction,
            config.interpolation,
            config.torchvision_rounding,
        )
        return views, label

    def make_padding() -> tuple[tf.Tensor, tf.Tensor]:
        return tf.zeros([crops_per_image, size, size, 3], tf.uint8), tf.constant(0, tf.int32)

    @_do_not_convert
    def load(sample: tf.Tensor) -> dict[str, tf.Tensor]:
        is_image = sample < source.num_examples
        views, label = tf.cond(is_image, lambda: load_image(sample), make_padding)
        views = tf.ensure_shape(views, [crops_per_image, size, size, 3])
        return {"views": views, "label": label, "mask": is_image}

    images_per_step = batch_size * multiple
    num_samples = ceil_div(source.num_examples, images_per_step) * images_per_step
    if replica_slice is not None:
        num_samples = num_samples // replica_slice.total_replicas * replica_slice.local_replicas
    samples = (
        sample_order.sample_numbers(0, batch_size, replica_slice)
        .take(num_samples)
        .map(load, **_parallel(_count_parallel_samples(config)))
    )
    return _prefetch(samples.batch(batch_size, drop_remainder=True), config)


def find_first_unreadable(source: Source, indices: Iterable[int]) -> tuple[int, str] | None:
    """Decodes images one by one until one fails.

    Returns:
      (index, reason) of the first image that does not decode, or None.
    """
    for index in indices:
        try:
            decode.decode_image(source.read_file(tf.constant(index, tf.int64))[0])
        except tf.errors.OpError as error:
            return int(index), decode.describe_error(error)
    return None


def require_working_functions(
    source: Source, config: DataConfig, seed: int, samples: Iterable[int]
) -> None:
    """Loads samples one by one, to find the one on which a function in a user's file fails.

    tf.data cannot tell such an error from that of an unreadable image.

    Args:
      source, config, seed: see `train_dataset`.
      samples: global sample numbers.

    Raises:
      UsageError: the error, with the line of the file.
    """
    if not augment_spec.read(config).load_functions("image"):
        return
    attempt = _make_sample_loader(source, config, seed)
    for sample in samples:
        with contextlib.suppress(tf.errors.OpError):  # an unreadable image
            attempt(tf.constant(sample, tf.int64), tf.constant(0, tf.int64))


def _count_parallel_samples(config: DataConfig) -> int:
    """Returns how many samples are loaded at the same time."""
    # Results wait for those before them, and count as calls meanwhile. With one call per thread,
    # a slow image would leave threads idle.
    return 2 * threads.num_parallel_calls(config.reader_threads)


def _parallel(calls: int) -> dict[str, Any]:
    """Returns the options of a map that keeps the order."""
    return {"num_parallel_calls": calls, "deterministic": True}


def _prefetch(batches: tf.data.Dataset, config: DataConfig) -> tf.data.Dataset:
    options = threads.make_dataset_options(config.reader_threads)
    return batches.prefetch(threads.PREFETCH_BATCHES).with_options(options)
