"""Trains `keras.applications.ResNet50V2` with `model.fit`, as a baseline.

    python -m benchmarks.fit_baseline --data_dir=DIR --image_size=84 --epochs=10 --run_dir=RUN

Trains on DIR/train/CLASS/* as a careful user of Keras would. It uses augmentation in tf.data, SGD
with Nesterov momentum, warmup and cosine schedule, weight decay of kernels, label smoothing, and
bfloat16 if the CPU supports it.

Then it evaluates DIR/val (and DIR/test) on the center crop and on ten crops, the same crops as in
`main.py --mode=eval`, and writes RUN/fit.json. An interrupted run resumes from its last epoch.
"""

import argparse
import json
import pathlib
import shutil
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import flags
from benchmarks import harness
from input_pipeline import pipeline
from input_pipeline.sources import source
from loops.config import resolve
from loops.metrics import classification
from loops.optimization import mixed_precision

# Keras applies weight decay outside of the momentum. L2 of 1e-4 with a momentum of 0.9 corresponds
# to ten times as much.
_WEIGHT_DECAY = 1e-3
_LABEL_SMOOTHING = 0.1
_EVAL_BATCH_SIZE = 50


def make_model(num_classes: int, image_size: int, dtype: str) -> keras.Model:
    """Builds ResNet50V2 on pixels from 0 to 255, with float32 logits [B, C]."""
    keras.mixed_precision.set_global_policy(dtype)
    shape = (image_size, image_size, 3)
    backbone = keras.applications.ResNet50V2(
        weights=None, input_shape=shape, classes=num_classes, classifier_activation=None
    )
    images = keras.Input(shape)
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(images)
    logits = keras.layers.Activation("linear", dtype="float32")(backbone(scaled))
    return keras.Model(images, logits)


def compile_model(
    model: keras.Model, total_steps: int, warmup_steps: int, learning_rate: float
) -> None:
    """Sets optimizer and loss: SGD with warmup and a cosine schedule to zero."""
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(total_steps - warmup_steps, 1),
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
    )
    optimizer = keras.optimizers.SGD(
        schedule, momentum=0.9, nesterov=True, weight_decay=_WEIGHT_DECAY
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=_LABEL_SMOOTHING)
    model.compile(optimizer, loss, metrics=["accuracy"])


def make_train_dataset(
    folder: pathlib.Path, image_size: int, batch_size: int, augment: str, seed: int
) -> tuple[tf.data.Dataset, int, list[str]]:
    """Builds shuffled, augmented batches from class folders.

    Args:
      folder: contains a folder for each class.
      image_size: S, in pixels.
      batch_size: B; an incomplete last batch of an epoch is dropped.
      augment: "standard" or "layers". "standard" crops a random 8 to 100 % of the area with aspect
        ratio 3/4 to 4/3, and flips. "layers" uses RandomFlip, RandomTranslation and RandomZoom.
      seed: seed of the shuffling.

    Returns:
      (dataset of (images float32 [B, S, S, 3], one-hot labels [B, C]), steps per epoch, class
      names).
    """
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir())
    files = [(p, n) for n, name in enumerate(classes) for p in sorted((folder / name).iterdir())]
    paths = tf.constant([str(path) for path, _ in files])
    labels = tf.constant([number for _, number in files])

    def load(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_image(tf.io.read_file(path), 3, expand_animations=False)
        if augment == "standard":
            image = _random_resized_crop(image)
        image = tf.image.resize(image, [image_size, image_size], antialias=True)
        return image, tf.one_hot(label, len(classes))

    layers = [keras.layers.RandomFlip("horizontal")]
    if augment == "layers":
        layers += [keras.layers.RandomTranslation(0.1, 0.1), keras.layers.RandomZoom(0.2)]
    distort = keras.Sequential(layers)
    dataset = tf.data.Dataset.from_tensor_slices((paths, labels))
    dataset = dataset.shuffle(len(files), seed=seed).map(load, tf.data.AUTOTUNE)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    dataset = dataset.map(lambda x, y: (distort(x, training=True), y), tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE), len(files) // batch_size, classes


def _random_resized_crop(image: tf.Tensor) -> tf.Tensor:
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([1, 0, 4]),
        area_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        use_image_if_no_bounding_boxes=True,
    )
    return tf.slice(image, begin, size)


def evaluate(
    model: keras.Model, data_dir: pathlib.Path, split: str, image_size: int, crops: int
) -> dict[str, Any]:
    """Scores a split on the crops of `main.py --mode=eval`.

    Returns:
      The scores of `classification.score`: top1, top5, num_examples and so on.
    """
    words = ["eval", "--dataset=folder", f"--data_dir={data_dir}", f"--image_size={image_size}"]
    config = resolve.resolve(flags.parse(words))
    images = source.open_split(config.data, split)
    logits, labels = [], []
    for batch in pipeline.eval_dataset(images, config.data, crops, _EVAL_BATCH_SIZE, 1):
        mask = batch["mask"].numpy()
        views = tf.reshape(batch["views"], [-1, image_size, image_size, 3])
        batch_logits = model.predict_on_batch(tf.cast(views, tf.float32))
        logits.append(batch_logits.reshape(len(mask), crops, -1)[mask])
        labels.append(batch["label"].numpy()[mask])
    labels = np.concatenate(labels)
    assert len(labels) == images.num_examples
    return classification.score(classification.mean_softmax(np.concatenate(logits)), labels)


def train(args: argparse.Namespace, run_dir: pathlib.Path) -> tuple[keras.Model, list[float]]:
    """Trains the model or resumes its training; returns it and the seconds of each epoch."""
    images, steps, classes = make_train_dataset(
        args.data_dir / "train", args.image_size, args.batch_size, args.augment, args.seed
    )
    keras.utils.set_random_seed(args.seed)
    model = make_model(len(classes), args.image_size, args.dtype)
    warmup = round(args.warmup_epochs * steps)
    compile_model(model, args.epochs * steps, warmup, args.learning_rate)
    timer = _EpochTimer(run_dir / "seconds.json")
    # The timer comes first so that its epochs exclude saving. The backup is kept after `fit`,
    # because the evaluation may be interrupted too.
    backup = keras.callbacks.BackupAndRestore(str(run_dir / "backup"), delete_checkpoint=False)
    log = keras.callbacks.CSVLogger(str(run_dir / "epochs.csv"), append=True)
    model.fit(images, epochs=args.epochs, callbacks=[timer, backup, log], verbose=2)
    return model, timer.seconds


class _EpochTimer(keras.callbacks.Callback):
    """Measures the seconds of each epoch, including those before an interruption."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self._path = path
        self.seconds: list[float] = json.loads(path.read_text()) if path.exists() else []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.seconds.append(time.monotonic() - self._started)
        harness.write_json(self._path, self.seconds)


def main() -> None:
    """Trains and evaluates, unless RUN/fit.json already exists."""
    parser = harness.BenchmarkParser(__doc__, has_json=False)
    parser.add_argument("--data_dir", type=pathlib.Path, required=True, help="train/, val/, test/")
    parser.add_argument("--run_dir", type=pathlib.Path, required=True, help="folder of this run")
    parser.add_flag("--image_size", 84, "image size in pixels")
    parser.add_flag("--epochs", 10, "epochs to train")
    parser.add_flag("--batch_size", 64, "images per step")
    parser.add_flag("--learning_rate", 0.05, "peak learning rate")
    parser.add_flag("--warmup_epochs", 1.0, "epochs of linear warmup")
    parser.add_flag("--augment", "standard", "augmentation", choices=["standard", "layers"])
    half = "mixed_bfloat16" if mixed_precision.cpu_has_bfloat16() else "float32"
    parser.add_flag("--dtype", half, choices=["mixed_bfloat16", "float32"])
    parser.add_flag("--seed", 0, "seed of weights and shuffling")
    args = parser.parse_args()
    if not (args.data_dir / "train").is_dir():
        parser.error(f"--data_dir={args.data_dir}: has no folder train/")
    result_file = args.run_dir / "fit.json"
    if result_file.exists():
        harness.echo(f"{result_file} already exists")
        return
    args.run_dir.mkdir(parents=True, exist_ok=True)
    model, seconds = train(args, args.run_dir)
    packages = ("tensorflow", "keras")
    report = harness.collect_metadata(
        "benchmarks.fit_baseline", parser.format_flags(args), packages
    )
    report |= {"seconds_of_epochs": seconds, "parameters": model.count_params(), "results": {}}
    for split in ("val", "test"):
        if (args.data_dir / split).is_dir():
            for crops in (1, 10):
                scores = evaluate(model, args.data_dir, split, args.image_size, crops)
                report["results"][f"{split}-{crops}"] = scores
                harness.echo(f"{split}, {crops} crop(s): top-1 {scores['top1']:.2%}")
    harness.write_json(result_file, report)
    shutil.rmtree(args.run_dir / "backup", ignore_errors=True)


if __name__ == "__main__":
    main()
