"""What a net looks at: the views of one picture, and those of many files in batches."""

import os
import pathlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from input_pipeline import threads
from input_pipeline.augmentation import crops
from input_pipeline.decoding import decode
from loops.tools.predict import seam_carving

_CROP_NAMES = ("upper left", "upper right", "lower left", "lower right", "centre")


class Preprocessing(NamedTuple):
    """How a net sees a picture; nets of one sight share their views.

    Attributes:
      size: side of a view in pixels.
      crop_fraction, interpolation: see `crops.extract_views`.
      num_crops: 1 or 10.
      seams: whether the picture carved to a square is one more view, the last.
    """

    size: int
    crop_fraction: float
    interpolation: str
    num_crops: int
    seams: bool

    @property
    def num_views(self):
        """V: the crops, and one more where seams are carved."""
        return self.num_crops + int(self.seams)

    @property
    def names(self):
        """What people call the views, in their order."""
        listed = ["centre"]
        if self.num_crops > 1:
            listed = [*_CROP_NAMES, *(f"{name}, mirrored" for name in _CROP_NAMES)]
        return [*listed, "seam carving"] if self.seams else listed


def preprocess_image(image, sight):
    """The views of one picture.

    Args:
      image: uint8 tensor [H, W, 3].
      sight: Sight.

    Returns:
      uint8 tensor [V, S, S, 3].
    """
    size, crop_fraction, interpolation, num_crops, seams = sight
    views = crops.extract_views(image, size, num_crops, crop_fraction, interpolation)
    if seams:
        carved = seam_carving.carve_to_square(image, size, interpolation)
        views = tf.concat([views, carved[None]], axis=0)
    return views


def decode_file(path):
    """The pixels of a file, uint8 tensor [H, W, 3].

    Raises:
      tf.errors.OpError: it cannot be read or does not decode.
    """
    return decode.decode_image(tf.io.read_file(_resolve_path(path)))


def _resolve_path(path):
    """A path for TensorFlow, which takes `..` back along it, not from where a link leads."""
    has_parents = os.pardir in pathlib.PurePath(path).parts
    return os.fsencode(os.path.realpath(path) if has_parents else path)


def describe_decode_error(path):
    """Why `make_dataset` marks a file, in one line.

    Args:
      path: str.

    Returns:
      str.
    """
    try:
        decode_file(path)
    except tf.errors.OpError as error:
        return decode.describe_error(error)
    return "it decodes now, but did not at first"


def make_dataset(paths, sights, batch_size, reader_threads=0):
    """Batches of views of files, in order; a file that does not decode is marked, not left out.

    Args:
      paths: list of N str.
      sights: list of Sight.
      batch_size: B; the last batch is padded, so that nets are traced once.
      reader_threads: how many decode; 0: one per core.

    Returns:
      tf.data.Dataset of (tuple of uint8 [B, V, S, S, 3], one for each sight; decoded, bool [B],
      false for a file that does not decode and for padding).
    """
    # Captured by reference: constants of a graph would be copied into it.
    names = tf.constant([_resolve_path(path) for path in paths])

    def attempt(index, number):
        """The file at the first attempt; where that fails, black at the second."""
        real = (number == 0) & (index < len(paths))

        def picture():
            image = decode.decode_image(tf.io.read_file(names[index]))
            return tuple(preprocess_image(image, sight) for sight in sights)

        def black():
            return tuple(tf.zeros([s.num_views, s.size, s.size, 3], tf.uint8) for s in sights)

        return tf.cond(real, picture, black), real

    @tf.autograph.experimental.do_not_convert  # which would take longer than small jobs
    def load(index):
        attempts = tf.data.Dataset.range(2).map(lambda number: attempt(index, number))
        return attempts.ignore_errors(log_warning=False).take(1).get_single_element()

    padded = -(-len(paths) // batch_size) * batch_size
    files = tf.data.Dataset.from_tensor_slices(np.arange(padded))
    calls = threads.num_parallel_calls(reader_threads)
    files = files.map(load, num_parallel_calls=calls, deterministic=True)
    files = files.batch(batch_size, drop_remainder=True).prefetch(threads.PREFETCH_BATCHES)
    return files.with_options(threads.make_dataset_options())
