"""The two sides of `benchmarks.eval_vs_keras`: the same crops of the same photographs."""

import dataclasses
import pathlib

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
from loops.distribution import strategies
from loops.evaluator import Evaluator, choose_views_per_batch

_MODEL = "resnetv2_50"
_NUM_CLASSES = 1000


def make_photo_source(folder, most):
    """Source of the photographs of a folder, all of class 0.

    Raises:
      SystemExit: there is none.
    """
    files = sorted(p for p in pathlib.Path(folder).rglob("*") if p.is_file())
    paths = [str(p) for p in files if p.name.lower().endswith(decode.EXTENSIONS)][:most]
    if not paths:
        raise SystemExit(f"{folder}: no photograph in it")
    names = tf.constant(paths)
    return Source(
        num_examples=len(paths),
        class_names=tuple(map(str, range(_NUM_CLASSES))),
        labels=[0] * len(paths),
        read=lambda i: (tf.io.read_file(names[i]), tf.constant(0, tf.int32)),
        describe=lambda i: paths[i],
        fingerprint="",
    )


def _take(split, count):
    return dataclasses.replace(split, num_examples=count)


def build_ours(folder, most, size, crops, dtype):
    """Builds our evaluation.

    Args:
      folder, most: see `make_photo_source`.
      size: side of a crop in pixels.
      crops: views of an image, 1 or 10.
      dtype: "float32" or "bfloat16".

    Returns:
      (function that evaluates a number of images, function that only reads them, number of all).
    """
    config = _make_config(size)
    strategy = strategies.make_strategy(config.distribution)
    split = make_photo_source(folder, most)
    keras.utils.set_random_seed(0)
    model = restore.build_model(strategy, config.net, _NUM_CLASSES, dtype)
    # One evaluator, and so one trace, for the passes to warm up and the one that counts.
    batch = choose_views_per_batch() // crops
    evaluator = Evaluator(strategy, model, split, config.data, crops, batch)

    def evaluate(count):
        evaluator(max_batches=None if count == split.num_examples else -(-count // batch))

    return evaluate, lambda count: _read(split, config, crops, count), split.num_examples


def build_keras(folder, most, size, crops, dtype):
    """Builds the same evaluation in plain Keras; arguments and result as of `build_ours`."""
    config = _make_config(size)
    # The same devices and memory settings; nothing of the strategy is used.
    strategies.make_strategy(config.distribution)
    split = make_photo_source(folder, most)
    keras.utils.set_random_seed(0)
    model = keras_resnetv2.build_model(_NUM_CLASSES, dtype=dtype, image_size=size)

    def views(batch):
        images = tf.reshape(batch["views"], [-1, size, size, 3])
        return batch_augment.normalize(images, config.data.mean, config.data.std)

    # One data set as well, of which the warm-up takes a part.
    dataset = _make_dataset(split, config, crops).map(views).prefetch(1)
    batch = _choose_batch_size(split, crops)

    def evaluate(count):
        whole = count == split.num_examples
        logits = model.predict(dataset if whole else dataset.take(-(-count // batch)), verbose=0)
        probabilities = keras.ops.softmax(logits.reshape(-1, crops, _NUM_CLASSES))
        keras.ops.mean(probabilities, axis=1)

    return evaluate, lambda count: _read(split, config, crops, count), split.num_examples


def _make_config(size):
    words = ["benchmark", f"--model={_MODEL}", "--dataset=ilsvrc2012", "--strategy=one"]
    return resolve.resolve(flags.parse([*words, f"--image_size={size}"]))


def _choose_batch_size(split, crops):
    return min(choose_views_per_batch() // crops, split.num_examples)


def _make_dataset(split, config, crops):
    return pipeline.eval_dataset(split, config.data, crops, _choose_batch_size(split, crops), 1)


def _read(split, config, crops, count):
    for _ in _make_dataset(_take(split, count), config, crops):
        pass
