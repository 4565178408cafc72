"""The order of the stages, once: from sample numbers to batches of uint8 images.

Sample numbers come first and decide everything (see `order.py`); reading, decoding and
augmenting one sample is one function that runs in parallel and keeps the order; normalising
waits for the accelerator, so that the host ships bytes and not floats.
"""

import math

import tensorflow as tf

from input_pipeline import sample_order, threads
from input_pipeline.augmentation import crops, image_augment
from input_pipeline.decoding import decode

# An image that does not decode gives its place to the next position of the permutation. This
# many in a row mean that the data, not an image, is broken.
MAX_DECODE_ATTEMPTS = 8
# So many samples are loaded at a time, where the batch is a multiple of it: catching the error of
# a bad image costs as much as a fifth of an augmentation, so it is done for several at once.
CHUNK_SIZE = 8
# AutoGraph would convert every function that a stage calls, for seconds; none has a Python `if` or
# loop over tensors.
_do_not_convert = tf.autograph.experimental.do_not_convert


def train_dataset(source, config, seed, first_sample, batch_size, deal=None, batches=None):
    """Batches of augmented images, in the order that (seed, first_sample) decides.

    Args:
      source: Source of the train split.
      config: DataConfig with its sizes resolved.
      seed: the run's seed.
      first_sample: global number of the first sample.
      batch_size: images per batch (of one replica: batches are dealt to replicas in turn).
      deal: see `sample_order.sample_numbers`; None for the batches of all replicas.
      batches: how many there are; None for no end of them.

    Returns:
      tf.data.Dataset of dicts: image uint8 [B, S, S, 3], label int32 [B], sample int64 [B], and
      replaced int64 [B], the number of unreadable images that this one stands in for.
    """
    chunk = math.gcd(batch_size, CHUNK_SIZE)
    # One function for both ways to it below, traced once.
    signature = [tf.TensorSpec([], tf.int64)] * 2
    attempt = tf.function(_make_sample_loader(source, config, seed), signature, autograph=False)

    # Errors are ignored only in here, inside the attempts at given samples: dropped from the
    # stream itself, a bad image would shift every batch after it.
    def mended(sample):
        attempts = tf.data.Dataset.range(MAX_DECODE_ATTEMPTS).map(lambda k: attempt(sample, k))
        return attempts.ignore_errors().take(1).get_single_element()

    @_do_not_convert
    def load(numbers):
        samples = tf.data.Dataset.from_tensor_slices(numbers)
        first_choice = samples.map(lambda sample: attempt(sample, tf.constant(0, tf.int64)))
        whole = first_choice.ignore_errors().batch(chunk, drop_remainder=True)
        # Only when an image is missing from the chunk, each sample is attempted on its own.
        one_by_one = samples.map(mended).batch(chunk, drop_remainder=True)
        return whole.concatenate(one_by_one).take(1).get_single_element()

    samples = sample_order.sample_numbers(first_sample, batch_size, deal)
    if batches is not None:
        samples = samples.take(batches * batch_size)
    chunks = samples.batch(chunk, drop_remainder=True).map(load, **_parallel_map_options(config))
    return _prefetch(
        chunks.batch(batch_size // chunk, drop_remainder=True).map(_join_chunks), config
    )


def load_first_samples(source, config, seed, count):
    """The first samples of training, of one process and at once.

    Without a pipeline, which takes seconds to be built: these are loaded in a tenth of one.

    Args:
      source, config, seed: see `train_dataset`.
      count: how many.

    Returns:
      dict as of `train_dataset`.

    Raises:
      tf.errors.OpError: too many images in a row do not decode.
    """
    attempt = _make_sample_loader(source, config, seed)

    def load(sample):
        for offset in range(MAX_DECODE_ATTEMPTS):
            try:
                return attempt(tf.constant(sample, tf.int64), tf.constant(offset, tf.int64))
            except tf.errors.OpError as error:
                last = error
        raise last

    with tf.device("CPU"):
        return tf.nest.map_structure(lambda *one: tf.stack(one), *map(load, range(count)))


def _make_sample_loader(source, config, seed):
    """Returns the function that loads a sample, or an image after it in its place.

    Of the global sample number and of how far behind the image is, int64 scalars; it gives the dict
    of one sample.
    """
    num_examples = source.num_examples

    def attempt(sample, offset):
        epoch, position = sample // num_examples, sample % num_examples
        at = (position + offset) % num_examples
        data, label = source.read(sample_order.image_index(seed, epoch, at, num_examples))
        image = image_augment.augment(data, sample_order.sample_seed(seed, sample), config)
        return {"image": image, "label": label, "sample": sample, "replaced": offset}

    return attempt


def eval_dataset(source, config, crops_per_image, batch_size, multiple, deal=None):
    """Every image once, in order, padded with zeros to whole batches.

    Args:
      source: Source of a split.
      config: DataConfig with its sizes resolved.
      crops_per_image: V, 1 or 10.
      batch_size: images per batch.
      multiple: the number of batches is a multiple of this: the replicas that share them.
      deal: see `sample_order.sample_numbers`; None for the batches of all replicas.

    Returns:
      tf.data.Dataset of dicts: views uint8 [B, V, S, S, 3], label int32 [B], and mask bool [B],
      false where an image is padding.
    """
    size = config.image_size

    def image(sample):
        data, label = source.read(sample)
        views = crops.extract_views(
            decode.decode_image(data),
            size,
            crops_per_image,
            config.crop_fraction,
            config.interpolation,
        )
        return views, label

    def padding():
        return tf.zeros([crops_per_image, size, size, 3], tf.uint8), tf.constant(0, tf.int32)

    @_do_not_convert
    def load(sample):
        real = sample < source.num_examples
        views, label = tf.cond(real, lambda: image(sample), padding)
        views = tf.ensure_shape(views, [crops_per_image, size, size, 3])
        return {"views": views, "label": label, "mask": real}

    step = batch_size * multiple
    padded = -(-source.num_examples // step) * step
    local = padded if deal is None else padded // deal[2] * deal[1]
    samples = (
        sample_order.sample_numbers(0, batch_size, deal)
        .take(local)
        .map(load, **_parallel_map_options(config))
    )
    return _prefetch(samples.batch(batch_size, drop_remainder=True), config)


def find_first_unreadable(source, indices):
    """Decodes images one by one and returns (index, reason) of the first that fails, or None."""
    for index in indices:
        try:
            decode.decode_image(source.read(tf.constant(index, tf.int64))[0])
        except tf.errors.OpError as error:
            return int(index), decode.describe_error(error)
    return None


def _parallel_map_options(config):
    calls = threads.num_parallel_calls(config.reader_threads)
    return {"num_parallel_calls": calls, "deterministic": True}


@_do_not_convert
def _join_chunks(batch):
    """Joins the chunks of a batch: [B / C, C, ...] becomes [B, ...]."""
    return {
        name: tf.reshape(value, [value.shape[0] * value.shape[1], *value.shape[2:]])
        for name, value in batch.items()
    }


def _prefetch(batches, config):
    options = threads.make_dataset_options(config.reader_threads)
    return batches.prefetch(threads.PREFETCH_BATCHES).with_options(options)
