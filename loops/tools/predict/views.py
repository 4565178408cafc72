"""The views that a net predicts on: of one image, and of many files in batches."""

import functools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from input_pipeline import threads
from input_pipeline.arithmetic import ceil_div
from input_pipeline.augmentation import crops
from input_pipeline.config import Exif
from input_pipeline.decoding import decode
from input_pipeline.sources import image_folders
from loops.tools.predict import seam_carving

# Up to this many photographs decode in the time that the graph of a dataset takes to build.
_MAX_FILES_WITHOUT_DATASET = 32
_CROP_NAMES = ("upper left", "upper right", "lower left", "lower right", "center")


class Preprocessing(NamedTuple):
    """How an image becomes the views of a net. Nets with equal preprocessing share their views.

    Attributes:
      size: side of a view in pixels.
      crop_fraction, interpolation, torchvision_rounding: see `crops.extract_views`.
      num_crops: 1 or 10.
      seam_carving: whether the image carved to a square is one more view, the last one.
      exif: see `decode.decode_image`.
    """

    size: int
    crop_fraction: float
    interpolation: str
    num_crops: int
    seam_carving: bool
    torchvision_rounding: bool = False
    exif: Exif = "ignore"

    @property
    def num_views(self) -> int:
        """V: the number of crops, plus one with seam carving."""
        return self.num_crops + int(self.seam_carving)

    @property
    def view_names(self) -> list[str]:
        """Readable names of the views, in their order."""
        names = ["center"]
        if self.num_crops > 1:
            names = [*_CROP_NAMES, *(f"{name}, mirrored" for name in _CROP_NAMES)]
        return [*names, "seam carving"] if self.seam_carving else names


def preprocess_image(image: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """Returns the views of one image: uint8 [H, W, 3] to uint8 [V, S, S, 3]."""
    size, crop_fraction, interpolation, num_crops, with_seam_carving, rounding, _ = preprocessing
    views = crops.extract_views(image, size, num_crops, crop_fraction, interpolation, rounding)
    if with_seam_carving:
        carved = seam_carving.carve_to_square(image, size, interpolation)
        views = tf.concat([views, carved[None]], axis=0)
    return views


def decode_file(path: str, exif: Exif = "ignore") -> tf.Tensor:
    """Returns the pixels of a file: uint8 [H, W, 3].

    Raises:
      tf.errors.OpError: the file cannot be read or decoded.
    """
    return decode.decode_image(tf.io.read_file(_resolve_path(path)), exif)


def _resolve_path(path: str) -> str | bytes:
    """Returns a path that TensorFlow resolves like the operating system.

    TensorFlow removes `folder/..` from the text of a path, which is wrong if `folder` is a link.
    """
    has_parents = os.pardir in pathlib.PurePath(path).parts
    return os.fsencode(os.path.realpath(path) if has_parents else path)


def describe_decode_error(path: str) -> str:
    """Returns in one line why `make_dataset` could not decode a file."""
    try:
        decode_file(path)
    except tf.errors.OpError as error:
        counts = image_folders.count_other_files([os.path.basename(path)])
        advice = "; convert it to JPEG" if image_folders.pick_pictures(counts) else ""
        return decode.describe_error(error) + advice
    return "it decodes now, but did not before"


def load_batches(
    paths: Sequence[str],
    preprocessings: Sequence[Preprocessing],
    batch_size: int,
    reader_threads: int = 0,
) -> Iterable[tuple[tuple[tf.Tensor, ...], tf.Tensor]]:
    """Returns the batches of `make_dataset`. Few files are read without a dataset."""
    if len(paths) > _MAX_FILES_WITHOUT_DATASET:
        return make_dataset(paths, preprocessings, batch_size, reader_threads)
    return _iter_batches(paths, preprocessings, batch_size)


def _iter_batches(
    paths: Sequence[str], preprocessings: Sequence[Preprocessing], batch_size: int
) -> Iterator[tuple[tuple[tf.Tensor, ...], tf.Tensor]]:
    for start in range(0, len(paths), batch_size):
        loaded = [_load_views(path, preprocessings) for path in paths[start : start + batch_size]]
        loaded += [None] * (batch_size - len(loaded))
        decoded = tf.constant([views is not None for views in loaded])
        rows = [views or _make_black_views(preprocessings) for views in loaded]
        yield tuple(tf.stack(views) for views in zip(*rows, strict=True)), decoded


def _load_views(path: str, preprocessings: Sequence[Preprocessing]) -> tuple[tf.Tensor, ...] | None:
    """Returns the views of a file, or None if it does not decode."""
    kinds = dict.fromkeys(p.exif for p in preprocessings)
    try:
        with tf.device("CPU"):  # as in a dataset; only the views go to a GPU
            images = {exif: decode_file(path, exif) for exif in kinds}
            return tuple(preprocess_image(images[p.exif], p) for p in preprocessings)
    except tf.errors.ResourceExhaustedError:
        raise
    except tf.errors.OpError:
        return None


def _make_black_views(preprocessings: Sequence[Preprocessing]) -> tuple[tf.Tensor, ...]:
    return tuple(tf.zeros((p.num_views, p.size, p.size, 3), tf.uint8) for p in preprocessings)


def make_dataset(
    paths: Sequence[str],
    preprocessings: Sequence[Preprocessing],
    batch_size: int,
    reader_threads: int = 0,
) -> tf.data.Dataset:
    """Returns batches of the views of files, in order.

    A file that does not decode keeps its place and is marked.

    Args:
      paths: N file names.
      preprocessings: the different kinds of preprocessing to apply to each file.
      batch_size: B. The last batch is padded, so that nets are traced once.
      reader_threads: number of threads that decode; 0 for one per core.

    Returns:
      tf.data.Dataset of (views, decoded). `views` is a tuple with uint8 [B, V, S, S, 3] for each
      preprocessing. `decoded` is bool [B], false for a file that does not decode and for padding.
    """
    # Captured by reference, because constants would be copied into the graph.
    names = tf.constant([_resolve_path(path) for path in paths])

    def load_attempt(
        index: tf.Tensor, attempt: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
        """Returns the views of a file at the first attempt, and black views at the second."""
        is_file = (attempt == 0) & (index < len(paths))

        def load_views() -> tuple[tf.Tensor, ...]:
            data = tf.io.read_file(names[index])
            kinds = dict.fromkeys(p.exif for p in preprocessings)
            images = {exif: decode.decode_image(data, exif) for exif in kinds}
            return tuple(preprocess_image(images[p.exif], p) for p in preprocessings)

        black_views = functools.partial(_make_black_views, preprocessings)
        return tf.cond(is_file, load_views, black_views), is_file

    @tf.autograph.experimental.do_not_convert  # conversion would take longer than small jobs
    def load(index: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
        attempts = tf.data.Dataset.range(2).map(lambda attempt: load_attempt(index, attempt))
        return attempts.ignore_errors(log_warning=False).take(1).get_single_element()

    padded = ceil_div(len(paths), batch_size) * batch_size
    files = tf.data.Dataset.from_tensor_slices(np.arange(padded))
    calls = threads.num_parallel_calls(reader_threads)
    files = files.map(load, num_parallel_calls=calls, deterministic=True)
    files = files.batch(batch_size, drop_remainder=True).prefetch(threads.PREFETCH_BATCHES)
    return files.with_options(threads.make_dataset_options())
