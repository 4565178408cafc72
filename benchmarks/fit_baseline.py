"""What one would take instead: `keras.applications.ResNet50V2`, trained by `model.fit`.

    python -m benchmarks.fit_baseline --data_dir=DIR --image_size=84 --epochs=10 --run_dir=RUN

trains on DIR/train/CLASS/* as a careful user of Keras would: images augmented in tf.data, SGD with
Nesterov momentum, warm-up and cosine, decay of kernels, smoothed labels, bfloat16 where the CPU has
it. Then it judges DIR/val (and DIR/test) on the centre crop and on ten crops, the very views of
`main.py --mode=eval`, and writes RUN/fit.json. A run that was cut goes on from its last epoch.
"""

import argparse
import json
import pathlib
import shutil
import time

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

# Keras decays outside of the momentum: L2 of 1e-4 with a momentum of 0.9 amounts to ten times.
_WEIGHT_DECAY = 1e-3
_LABEL_SMOOTHING = 0.1


def make_model(num_classes, image_size, dtype):
    """ResNet50V2 on pixels from 0 to 255, with float32 logits [B, C]."""
    keras.mixed_precision.set_global_policy(dtype)
    shape = (image_size, image_size, 3)
    backbone = keras.applications.ResNet50V2(
        weights=None, input_shape=shape, classes=num_classes, classifier_activation=None
    )
    images = keras.Input(shape)
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(images)
    logits = keras.layers.Activation("linear", dtype="float32")(backbone(scaled))
    return keras.Model(images, logits)


def compile_model(model, total_steps, warmup_steps, learning_rate):
    """Sets optimizer and loss: a warm-up, then a cosine to zero."""
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


def make_train_dataset(folder, image_size, batch_size, augment, seed):
    """Shuffled, augmented batches of a folder of class folders.

    Args:
      folder: pathlib.Path with a folder for each class.
      image_size: side in pixels.
      batch_size: images of a batch; what is over at the end of an epoch is left out.
      augment: "standard": random area of 10 to 100 % (TensorFlow's function wants a tenth of the
        image), aspect 3/4 to 4/3, mirror; or "layers": RandomFlip, RandomTranslation and
        RandomZoom of Keras.
      seed: of the order.

    Returns:
      (tf.data.Dataset of (images float32 [B, S, S, 3], one-hot labels [B, C]), steps an epoch,
      names of the classes).
    """
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir())
    files = [(p, n) for n, name in enumerate(classes) for p in sorted((folder / name).iterdir())]
    paths = tf.constant([str(path) for path, _ in files])
    labels = tf.constant([number for _, number in files])

    def load(path, label):
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


def _random_resized_crop(image):
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([1, 0, 4]),
        area_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        use_image_if_no_bounding_boxes=True,
    )
    return tf.slice(image, begin, size)


def evaluate(model, data_dir, split, image_size, crops):
    """Scores a split on the views of `main.py --mode=eval`.

    Returns:
      dict: top1, top5, num_examples and so on of `metrics.score`.
    """
    words = ["eval", "--dataset=folder", f"--data_dir={data_dir}", f"--image_size={image_size}"]
    config = resolve.resolve(flags.parse(words))
    images = source.open_split(config.data, split)
    batches = pipeline.eval_dataset(images, config.data, crops, 50, 1)
    logits, labels = [], []
    for batch in batches:
        real = batch["mask"].numpy()
        views = tf.reshape(batch["views"], [-1, image_size, image_size, 3])
        of_batch = model.predict_on_batch(tf.cast(views, tf.float32))
        logits.append(of_batch.reshape(len(real), crops, -1)[real])
        labels.append(batch["label"].numpy()[real])
    labels = np.concatenate(labels)
    assert len(labels) == images.num_examples
    return classification.score(classification.mean_softmax(np.concatenate(logits)), labels)


def train(args, run_dir):
    """Trains, or goes on with, the model; returns it and the seconds of each epoch of fit."""
    images, steps, classes = make_train_dataset(
        args.data_dir / "train", args.image_size, args.batch_size, args.augment, args.seed
    )
    keras.utils.set_random_seed(args.seed)
    model = make_model(len(classes), args.image_size, args.dtype)
    warmup = round(args.warmup_epochs * steps)
    compile_model(model, args.epochs * steps, warmup, args.learning_rate)
    clock = _EpochTimer(run_dir / "seconds.json")
    # The clock comes first: saving is no part of its epochs. The backup outlives `fit`, for judging
    # may be interrupted as well.
    backup = keras.callbacks.BackupAndRestore(str(run_dir / "backup"), delete_checkpoint=False)
    log = keras.callbacks.CSVLogger(str(run_dir / "epochs.csv"), append=True)
    model.fit(images, epochs=args.epochs, callbacks=[clock, backup, log], verbose=2)
    return model, clock.seconds


class _EpochTimer(keras.callbacks.Callback):
    """Takes the seconds of each epoch, those before an interruption among them."""

    def __init__(self, path):
        super().__init__()
        self._path = path
        self.seconds = json.loads(path.read_text()) if path.exists() else []

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.monotonic() - self._began)
        harness.write_json(self._path, self.seconds)


def main():
    """Trains and judges; does nothing where RUN/fit.json is there already."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data_dir", type=pathlib.Path, required=True, help="train/, val/, test/")
    parser.add_argument("--run_dir", type=pathlib.Path, required=True, help="folder of this run")
    parser.add_argument("--image_size", type=int, default=84)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=0.05, help="the highest")
    parser.add_argument("--warmup_epochs", type=float, default=1.0)
    parser.add_argument("--augment", choices=["standard", "layers"], default="standard")
    half = "mixed_bfloat16" if mixed_precision.cpu_has_bfloat16() else "float32"
    parser.add_argument("--dtype", choices=["mixed_bfloat16", "float32"], default=half)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not (args.data_dir / "train").is_dir():
        parser.error(f"--data_dir={args.data_dir}: it has no folder train/")
    result_file = args.run_dir / "fit.json"
    if result_file.exists():
        harness.echo(f"{result_file} is there already")
        return
    args.run_dir.mkdir(parents=True, exist_ok=True)
    model, seconds = train(args, args.run_dir)
    words = [f"--{name}={value}" for name, value in vars(args).items()]
    report = harness.collect_metadata("benchmarks.fit_baseline", words, ("tensorflow", "keras"))
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
