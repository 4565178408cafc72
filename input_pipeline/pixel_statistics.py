"""Statistics of a split's pixels: `--mode=stats` computes them, training normalises with them."""

import contextlib
import dataclasses
import json
import pathlib

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline.decoding import decode
from input_pipeline.errors import DataError
from input_pipeline.system.progress import NoProgress
from input_pipeline.threads import make_dataset_options, num_parallel_calls

FILENAME = "statistics.json"


@dataclasses.dataclass(frozen=True)
class PixelStatistics:
    """Statistics of the pixels of a training split, RGB, 0..255.

    Attributes:
      mean: over all pixels.
      std: over all pixels: the root of the mean square distance from `mean`; 1 where that is 0,
        so that a channel that never changes is all zeros when it is normalised.
      mean_of_image_std: the mean over images of the deviation within each: smaller than std,
        which also counts how images differ from one another.
      pca_eigenvalues: of the pixels' 3 x 3 covariance matrix, largest first.
      pca_eigenvectors: three rows; column k is the unit vector of eigenvalue k.
      num_images, num_pixels: how many were seen.
      unreadable: images that do not decode and were left out.
    """

    mean: tuple
    std: tuple
    mean_of_image_std: tuple
    pca_eigenvalues: tuple
    pca_eigenvectors: tuple
    num_images: int
    num_pixels: int
    unreadable: int = 0


def load(data_dir):
    """The Statistics that `--mode=stats` has left in a folder, or None.

    Raises:
      DataError: the file is there and does not hold them.
    """
    path = pathlib.Path(data_dir, FILENAME)
    if not data_dir or not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        values = {f.name: facts[f.name] for f in dataclasses.fields(PixelStatistics)}
        found = PixelStatistics(**{n: _to_tuples(value) for n, value in values.items()})
        shapes = [np.shape(v) for v in (found.mean, found.std, found.pca_eigenvectors)]
        if shapes != [(3,), (3,), (3, 3)] or not min(found.std) > 0:
            raise ValueError("not three means, deviations and vectors")
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} does not hold statistics: {error}; run --mode=stats") from None
    return found


def _to_tuples(value):
    return tuple(map(_to_tuples, value)) if isinstance(value, list) else value


def compute(source, threads=0, progress=NoProgress):
    """Reads and decodes every image once and adds up its pixels in float64.

    Args:
      source: Source.
      threads: that decode; 0: as many as there are cores.
      progress: function from the number of images to what counts them, as `Silent`.

    Returns:
      Statistics.

    Raises:
      DataError: no image decodes.
    """
    images = (
        tf.data.Dataset.range(source.num_examples)
        .map(
            lambda index: _sum_image(source, index),
            num_parallel_calls=num_parallel_calls(threads),
            deterministic=True,  # sums of floats depend on their order
        )
        .with_options(make_dataset_options(threads))
    )
    count, pixels = 0, 0
    total, products, deviations = np.zeros(3), np.zeros((3, 3)), np.zeros(3)
    # Sums of squares about a point near the mean lose fewer digits than those about zero.
    with contextlib.closing(progress(source.num_examples)) as bar:
        for of_image, sums, squares in images.as_numpy_iterator():
            bar.advance(1)
            if not of_image:
                continue
            count, pixels = count + 1, pixels + int(of_image)
            total += sums
            products += squares
            spread = np.diag(squares) / of_image - (sums / of_image) ** 2
            deviations += np.sqrt(np.maximum(spread, 0.0))
    if not count:
        raise DataError(f"none of {source.num_examples} images decodes")
    if count < source.num_examples:
        logging.warning("%d images do not decode: run --mode=verify", source.num_examples - count)
    return _statistics_from_sums(
        count, pixels, total, products, deviations, source.num_examples - count
    )


_PIXEL_OFFSET = 128.0
# The sums are whole numbers and exact, so that rounding makes 1e-6 of a channel that never changes;
# one pixel of a hundred million that is 1 off gives 1e-4.
_MIN_STD = 1e-5
# Pixels that are numbers of 64 bits at a time: of a whole photograph they would be 24 times its
# size, for every thread.
_STRIP = 2**18


def _sum_image(source, index):
    """Number of pixels, sums [3] and sums of products [3, 3], about 128; zeros if unreadable."""

    def sums(index):
        pixels = tf.reshape(decode.decode_image(source.read(index)[0]), [-1, 3])  # [H * W, 3]
        number = tf.shape(pixels, tf.int64)[0]

        def add(start, total, products):
            strip = tf.cast(pixels[start : start + _STRIP], tf.float64) - _PIXEL_OFFSET
            products += tf.matmul(strip, strip, transpose_a=True)
            return start + _STRIP, total + tf.reduce_sum(strip, 0), products

        begin = (tf.zeros([], tf.int64), tf.zeros([3], tf.float64), tf.zeros([3, 3], tf.float64))
        _, total, products = tf.while_loop(
            lambda start, *_: start < number, add, begin, parallel_iterations=1
        )
        return number, total, products

    def nothing(index):
        del index
        return tf.zeros([], tf.int64), tf.zeros([3], tf.float64), tf.zeros([3, 3], tf.float64)

    one = tf.data.Dataset.from_tensors(index)
    attempts = one.map(sums).ignore_errors().concatenate(one.map(nothing))
    return attempts.take(1).get_single_element()


def _statistics_from_sums(count, pixels, total, products, deviations, unreadable):
    mean = total / pixels  # about 128
    covariance = products / pixels - np.outer(mean, mean)
    std = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    constant = std < _MIN_STD
    if constant.any():
        channels = ", ".join(np.array(("red", "green", "blue"))[constant])
        logging.warning("%s: the same in all pixels; a deviation of 1 is written", channels)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    # The sign of an eigenvector is anybody's choice: its largest component is positive here.
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), range(3)])
    return PixelStatistics(
        mean=tuple((mean + _PIXEL_OFFSET).tolist()),
        std=tuple(np.where(constant, 1.0, std).tolist()),
        mean_of_image_std=tuple((deviations / count).tolist()),
        pca_eigenvalues=tuple(np.maximum(values, 0.0).tolist()),
        pca_eigenvectors=tuple(map(tuple, (vectors * signs).tolist())),
        num_images=count,
        num_pixels=pixels,
        unreadable=unreadable,
    )
