"""`--mode=predict`: what a run says about single images."""

import os
import pathlib

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import crops, datasets, decode
from input_pipeline.errors import DataError, UsageError
from loops import validation
from loops.evaluate import VIEWS_PER_BATCH, evaluation_config, logits_fn
from loops.run import report, restored_net, run_folder
from loops.scoring import metrics
from loops.step import distribution, precision


def run(config, given):
    """Predicts the images that `--image` names.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.

    Returns:
      dict as in the JSON file: `models` and, for each image, `path` and `predictions`.

    Raises:
      DataError: images that do not decode; the others are predicted first.
    """
    paths = image_paths(config.prediction.image)
    run_dir, step_dir = run_folder.find_checkpoint(config.evaluation.ckpt)
    record = run_folder.read_record(run_dir)
    config = evaluation_config(record, config, given)
    validation.check(config)
    strategy = distribution.make_strategy(config.distribution)
    dtype = precision.compute_dtype(config.precision)
    model = restored_net.restore(strategy, record, step_dir, dtype)
    net = tf.function(logits_fn(model, config.data.mean, config.data.std), reduce_retracing=True)
    most = min(validation.top_ks(config.evaluation.top_k)[-1], len(record.class_names))
    images, bad = [], []
    batch_size = max(1, VIEWS_PER_BATCH // config.evaluation.crops)
    for start in range(0, len(paths), batch_size):
        views, read = _read(paths[start : start + batch_size], config, bad)
        if read:
            probabilities = metrics.probabilities(net(tf.stack(views)).numpy()[None])
            for path, of_image in zip(read, probabilities, strict=True):
                found = top_classes(of_image, record.class_names, most)
                images.append({"path": path, "predictions": found})
                report.summary(path, [(p["name"], f"{p['probability']:.2%}") for p in found])
    results = {"models": [str(step_dir)], "crops": config.evaluation.crops, "images": images}
    if config.evaluation.json:
        report.write_json(config.evaluation.json, results)
    if bad:
        raise DataError(f"{len(bad)} of {len(paths)} images do not decode: {'; '.join(bad[:5])}")
    return results


def image_paths(text):
    """The image files that `--image` names: files, and those of folders by their extension.

    Args:
      text: paths separated by commas.

    Returns:
      list of str.

    Raises:
      UsageError: nothing is named, or there is no such file, or no image in a folder.
    """
    if not text:
        raise UsageError("--image is missing: name files or folders, separated by commas")
    paths = []
    for name in text.split(","):
        if os.path.isdir(name):
            files = sorted(p for p in pathlib.Path(name).rglob("*") if p.is_file())
            found = [str(p) for p in files if p.name.lower().endswith(decode.EXTENSIONS)]
            if not found:
                raise UsageError(f"--image={name}: no image in this folder")
            paths += found
        elif os.path.isfile(name):
            paths.append(name)
        else:
            raise UsageError(f"--image={name}: there is no such file or folder")
    return paths


def top_classes(probabilities, class_names, most):
    """The most probable classes of one image.

    Args:
      probabilities: float [C].
      class_names: C names.
      most: how many to return.

    Returns:
      list of dicts: `class`, `name` (readable), `probability`; the most probable first.
    """
    order = np.argsort(-probabilities, kind="stable")[:most]
    return [
        {
            "class": class_names[i],
            "name": datasets.readable(class_names[i]),
            "probability": float(probabilities[i]),
        }
        for i in order
    ]


def _read(paths, config, bad):
    """Views and paths of the images that decode; the others are appended to `bad`."""
    views, read = [], []
    for path in paths:
        try:
            image = decode.decode(tf.io.read_file(path))
            data = config.data
            views.append(
                crops.views(
                    image,
                    data.image_size,
                    config.evaluation.crops,
                    data.crop_fraction,
                    data.interpolation,
                )
            )
            read.append(path)
        except tf.errors.OpError as error:
            reason = decode.reason(error)
            logging.error("%s does not decode: %s", path, reason)
            bad.append(f"{path} ({reason})")
    return views, read
