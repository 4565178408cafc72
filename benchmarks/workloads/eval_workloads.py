"""The two sides of `benchmarks.eval_vs_keras`: the same crops of the same photos."""

import dataclasses
import math
import pathlib
from collections.abc import Callable

import keras
import tensorflow as tf

import flags
from benchmarks.workloads import keras_resnetv2
from input_pipeline import pipeline
from input_pipeline.augmentation import batch_augment
from input_pipeline.decoding import decode
from input_pipeline.sources.source import Source
from loops.checkpointing import restore
from loops.config import resolve
from loops.config.config import Config
from loops.distribution import strategies
from loops.evaluator import Evaluator, choose_views_per_batch

_MODEL = "resnetv2_50"
_NUM_CLASSES = 1000

# (evaluates a number of images, reads a number of images without evaluating, number of images).
Side = tuple[Callable[[int], None], Callable[[int], None], int]


def make_photo_source(folder: str, max_images: int) -> Source:
    """Returns a Source of the photos in a folder, all of class 0.

    Raises:
      SystemExit: there is no photo.
    """
    files = sorted(p for p in pathlib.Path(folder).rglob("*") if p.is_file())
    paths = [str(p) for p in files if p.name.lower().endswith(decode.EXTENSIONS)][:max_images]
    if not paths:
        raise SystemExit(f"{folder}: contains no photo")
    names = tf.constant(paths)
    return Source(
        num_examples=len(paths),
        class_names=tuple(map(str, range(_NUM_CLASSES))),
        labels=[0] * len(paths),
        read=lambda i: (tf.io.read_file(names[i]), tf.constant(0, tf.int32)),
        read_file=lambda i: (tf.io.read_file(names[i]), tf.constant(0, tf.int32)),
        describe=lambda i: paths[i],
        fingerprint="",
    )


def build_ours(folder: str, max_images: int, size: int, crops: int, dtype: str) -> Side:
    """Builds our evaluation.

    Args:
      folder: folder of photos.
      max_images: number of photos to use at most.
      size: crop size in pixels.
      crops: crops per image, 1 or 10.
      dtype: "float32" or "bfloat16".
    """
    config = _make_config(size)
    strategy = strategies.make_strategy(config.distribution)
    source = make_photo_source(folder, max_images)
    keras.utils.set_random_seed(0)
    model = restore.build_model(strategy, config.net, _NUM_CLASSES, dtype)
    # One evaluator, and so one trace, for the warm-up passes and the timed pass.
    batch = choose_views_per_batch() // crops
    evaluator = Evaluator(strategy, model, source, config.data, crops, batch)

    def evaluate(count: int) -> None:
        is_full = count == source.num_examples
        evaluator(max_batches=None if is_full else math.ceil(count / batch))

    return evaluate, lambda count: _read(source, config, crops, count), source.num_examples


def build_keras(folder: str, max_images: int, size: int, crops: int, dtype: str) -> Side:
    """Builds the same evaluation in plain Keras; see `build_ours`."""
    config = _make_config(size)
    # Sets the same devices and memory options; the strategy itself is not used.
    strategies.make_strategy(config.distribution)
    source = make_photo_source(folder, max_images)
    keras.utils.set_random_seed(0)
    model = keras_resnetv2.build_model(_NUM_CLASSES, dtype=dtype, image_size=size)

    def normalize_crops(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        images = tf.reshape(batch["views"], [-1, size, size, 3])
        return batch_augment.normalize(images, config.data.mean, config.data.std)

    # One dataset, of which the warm-up passes take a part.
    dataset = _make_dataset(source, config, crops).map(normalize_crops).prefetch(1)
    batch = _choose_batch_size(source, crops)

    def evaluate(count: int) -> None:
        is_full = count == source.num_examples
        batches = dataset if is_full else dataset.take(math.ceil(count / batch))
        logits = model.predict(batches, verbose=0)
        probabilities = keras.ops.softmax(logits.reshape(-1, crops, _NUM_CLASSES))
        keras.ops.mean(probabilities, axis=1)

    return evaluate, lambda count: _read(source, config, crops, count), source.num_examples


def _make_config(size: int) -> Config:
    words = ["benchmark", f"--model={_MODEL}", "--dataset=ilsvrc2012", "--strategy=one"]
    return resolve.resolve(flags.parse([*words, f"--image_size={size}"]))


def _choose_batch_size(source: Source, crops: int) -> int:
    return min(choose_views_per_batch() // crops, source.num_examples)


def _make_dataset(source: Source, config: Config, crops: int) -> tf.data.Dataset:
    return pipeline.eval_dataset(source, config.data, crops, _choose_batch_size(source, crops), 1)


def _read(source: Source, config: Config, crops: int, count: int) -> None:
    for _ in _make_dataset(dataclasses.replace(source, num_examples=count), config, crops):
        pass
