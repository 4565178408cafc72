"""Pixel statistics of a split. `--mode=stats` computes them; training normalizes with them."""

import contextlib
import dataclasses
import os
import pathlib

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline.decoding import decode
from input_pipeline.errors import DataError
from input_pipeline.sources.source import Source
from input_pipeline.system import regular_files, typed_json
from input_pipeline.system.progress import NoProgress, ProgressFactory
from input_pipeline.threads import make_dataset_options, num_parallel_calls

FILENAME = "statistics.json"


@dataclasses.dataclass(frozen=True)
class PixelStatistics:
    """Pixel statistics of a training split, RGB, 0..255.

    Attributes:
      mean: of all pixels, per channel.
      std: standard deviation of all pixels, per channel. It is 1 for a constant channel, so that
        the channel becomes 0 when it is normalized.
      mean_of_image_std: mean over images of the standard deviation within each image. It is
        smaller than std, which includes the differences between images.
      pca_eigenvalues: of the pixels' 3 x 3 covariance matrix, largest first.
      pca_eigenvectors: three rows; column k is the unit eigenvector of eigenvalue k.
      num_images, num_pixels: the numbers that the statistics are computed from.
      unreadable: number of images that do not decode and were skipped.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_of_image_std: tuple[float, ...]
    pca_eigenvalues: tuple[float, ...]
    pca_eigenvectors: tuple[tuple[float, ...], ...]
    num_images: int
    num_pixels: int
    unreadable: int = 0


def load(data_dir: str | os.PathLike) -> PixelStatistics | None:
    """Loads the statistics that `--mode=stats` wrote to a folder; None if there are none.

    Raises:
      DataError: the file is malformed.
    """
    path = pathlib.Path(data_dir, FILENAME)
    if not data_dir or not os.path.lexists(path):
        return None
    try:
        content = regular_files.read_json(path)
        statistics = typed_json.convert(content, PixelStatistics, FILENAME)
        arrays = (statistics.mean, statistics.std, statistics.pca_eigenvalues)
        shapes = [np.shape(a) for a in (*arrays, *statistics.pca_eigenvectors)]
        numbers = np.concatenate([*arrays, *statistics.pca_eigenvectors])
        if shapes != [(3,)] * 6 or not np.isfinite(numbers).all() or not min(statistics.std) > 0:
            raise ValueError("not three means, positive deviations and eigenvectors")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a file of pixel statistics: {error}; run --mode=stats"
        ) from None
    return statistics


def compute(
    source: Source, threads: int = 0, progress: ProgressFactory = NoProgress
) -> PixelStatistics:
    """Reads and decodes each image once and sums its pixels in float64.

    Args:
      source: the split.
      threads: number of decoding threads; 0 for one per core.
      progress: makes a progress bar from the number of images.

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
    num_images, num_pixels = 0, 0
    total, products, deviations = np.zeros(3), np.zeros((3, 3)), np.zeros(3)
    # Sums of squares around a point near the mean lose fewer digits than sums around zero.
    with contextlib.closing(progress(source.num_examples)) as bar:
        for image_pixels, sums, squares in images.as_numpy_iterator():
            bar.advance(1)
            if not image_pixels:
                continue
            num_images, num_pixels = num_images + 1, num_pixels + int(image_pixels)
            total += sums
            products += squares
            variance = np.diag(squares) / image_pixels - (sums / image_pixels) ** 2
            deviations += np.sqrt(np.maximum(variance, 0.0))
    if not num_images:
        raise DataError(f"all {source.num_examples} images are unreadable; run --mode=verify")
    unreadable = source.num_examples - num_images
    if unreadable:
        logging.warning("%d images do not decode: run --mode=verify", unreadable)
    return _statistics_from_sums(num_images, num_pixels, total, products, deviations, unreadable)


_PIXEL_OFFSET = 128.0
# The sums are exact integers. For a constant channel, rounding leaves a deviation of about 1e-6.
# A single pixel in a hundred million that differs by 1 gives 1e-4.
_MIN_STD = 1e-5
# Number of pixels that are converted to float64 at a time. A whole photo in float64 would take 24
# bytes per pixel in each thread.
_STRIP = 2**18


def _sum_image(source: Source, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sums the pixels of an image after subtracting 128.

    Returns:
      (number of pixels, int64; sums, float64 [3]; sums of products, float64 [3, 3]); zeros if the
      image is unreadable.
    """

    def sum_pixels(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        pixels = tf.reshape(decode.decode_image(source.read(index)[0]), [-1, 3])  # [H * W, 3]
        number = tf.shape(pixels, tf.int64)[0]

        def add_strip(start, total, products):
            strip = tf.cast(pixels[start : start + _STRIP], tf.float64) - _PIXEL_OFFSET
            products += tf.matmul(strip, strip, transpose_a=True)
            return start + _STRIP, total + tf.reduce_sum(strip, 0), products

        begin = (tf.zeros([], tf.int64), tf.zeros([3], tf.float64), tf.zeros([3, 3], tf.float64))
        _, total, products = tf.while_loop(
            lambda start, *_: start < number, add_strip, begin, parallel_iterations=1
        )
        return number, total, products

    def make_zeros(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        del index
        return tf.zeros([], tf.int64), tf.zeros([3], tf.float64), tf.zeros([3, 3], tf.float64)

    one = tf.data.Dataset.from_tensors(index)
    attempts = one.map(sum_pixels).ignore_errors().concatenate(one.map(make_zeros))
    return attempts.take(1).get_single_element()


def _statistics_from_sums(
    num_images: int,
    num_pixels: int,
    total: np.ndarray,
    products: np.ndarray,
    deviations: np.ndarray,
    unreadable: int,
) -> PixelStatistics:
    mean = total / num_pixels  # minus 128
    covariance = products / num_pixels - np.outer(mean, mean)
    std = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    constant = std < _MIN_STD
    if constant.any():
        channels = ", ".join(np.array(("red", "green", "blue"))[constant])
        logging.warning("%s: the same in all pixels; its deviation is set to 1", channels)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    # The sign of an eigenvector is arbitrary. Make its largest component positive.
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), range(3)])
    return PixelStatistics(
        mean=tuple((mean + _PIXEL_OFFSET).tolist()),
        std=tuple(np.where(constant, 1.0, std).tolist()),
        mean_of_image_std=tuple((deviations / num_images).tolist()),
        pca_eigenvalues=tuple(np.maximum(values, 0.0).tolist()),
        pca_eigenvectors=tuple(map(tuple, (vectors * signs).tolist())),
        num_images=num_images,
        num_pixels=num_pixels,
        unreadable=unreadable,
    )
