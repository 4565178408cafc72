"""`--mode=predict`: classifies images with one model or an ensemble."""

import dataclasses
import os

import numpy as np
from absl import logging

from input_pipeline.errors import DataError, UsageError
from input_pipeline.text import pluralize
from loops.config import flag_parsers
from loops.config.config import Config
from loops.metrics import classification
from loops.tools.predict import (
    drawn_images,
    ensemble,
    explained_prediction,
    figure,
    image_paths,
    outputs,
    training_images,
    views,
)
from loops.tools.predict.explained_prediction import top_classes
from loops.tools.weights import first_use

_MAX_ERRORS_SHOWN = 5


def run(config: Config) -> dict:
    """Predicts the classes of the images that `--image` names.

    Args:
      config: config of the command line.

    Returns:
      dict as in the JSON file: `models`, `crops`, `seam_carving`, `images` and `bad`. Each of
      `images` has `path`, `predictions` and, if it is known, `true_class`; `split` is "train" of
      those that a run was trained on. Each of `bad`, which have no prediction, has `path` and
      `reason`.

    Raises:
      UsageError: the command names no image, or no model that can predict it.
      DataError: some images do not decode or have no finite logits. The others are predicted
        first.
    """
    paths = image_paths.find(config.prediction.image)
    nets = ensemble.load(config)
    max_classes = min(flag_parsers.parse_top_k(config.evaluation.top_k)[-1], len(nets.class_names))
    figure_folder = None
    if config.prediction.explain and not config.prediction.report:
        figure_folder = outputs.make_figure_folder(nets)
    if figure_folder is not None or config.prediction.report:
        nets.load_float32_models()
    images, predicted, bad, drawn = [], [], [], drawn_images.DrawnImages()
    features = outputs.Features() if config.prediction.features else None
    for path, logits in nets.predict(paths, features.append if features else None):
        shown_path = image_paths.replace_non_utf8(path)
        probabilities, reason = _get_probabilities(path, logits)
        if probabilities is None:
            bad.append({"path": shown_path, "reason": reason})
            logging.error("%s: %s", shown_path, reason)
            continue
        predictions = top_classes(probabilities, nets.class_names, max_classes)
        images.append({"path": shown_path, "predictions": predictions})
        predicted.append(path)
        if true_class := explained_prediction.find_true_class(path, nets.class_names):
            images[-1]["true_class"] = true_class
        drawn.add(len(images) - 1, images[-1], path, logits)
    records = [predictor.record for predictor in nets.predictors]
    trained = training_images.find(paths, records)
    for image, path in zip(images, predicted, strict=True):
        if path in trained:
            image["split"] = "train"
    results = {
        "models": [str(predictor.step_dir) for predictor in nets.predictors],
        "crops": config.evaluation.crops,
        "seam_carving": config.prediction.seam_carving,
        "images": images,
        "bad": bad,
    }
    # Write the files first: printing may fail (a closed pager), and drawing takes long. If there
    # are figures, the JSON file is written again with their paths.
    outputs.write(config, results, max_classes)
    if features:
        models = [str(predictor.step_dir) for predictor in nets.predictors]
        features.write(config.prediction.features, models)
    outputs.summarize(images, bool(config.prediction.csv or config.prediction.report))
    if config.prediction.report:
        outputs.write_report(config.prediction.report, nets, drawn.in_order(), max_classes, results)
    elif figure_folder is not None:
        outputs.write_figures(figure_folder, nets, drawn.in_order(), max_classes, results)
        outputs.write(config, results, max_classes)
    if bad:
        shown = "; ".join(f"{file['path']} ({file['reason']})" for file in bad[:_MAX_ERRORS_SHOWN])
        more = "; ..." if len(bad) > _MAX_ERRORS_SHOWN else ""
        raise DataError(
            f"{len(bad)} of {pluralize(len(paths), 'image')} not predicted: {shown}{more}"
        )
    return results


def _get_probabilities(path: str, logits: np.ndarray | None) -> tuple[np.ndarray | None, str]:
    """Returns the probabilities of an image, float64 [C], or None and the reason why not."""
    if logits is None:
        return None, f"does not decode: {views.describe_decode_error(path)}"
    probabilities = classification.probabilities(logits[:, None])
    if classification.count_non_finite(probabilities):
        return None, "its logits are not finite: the weights or the normalization are broken"
    return probabilities[0], ""


def show(
    ckpt: str | os.PathLike,
    image: str | os.PathLike,
    crops: int = 10,
    seam_carving: bool = True,
    top_k: int = 5,
) -> figure.Figure:
    """Predicts one image and draws the explanation of the prediction, for `predict.ipynb`.

    Args:
      ckpt: run folder, RUN/best, step folder, or published weights as in timm/resnet50.a1_in1k.
        Several are separated by commas.
      image: path of an image file.
      crops: number of crops, 10 or 1.
      seam_carving: whether to add a seam-carved view.
      top_k: number of classes to show.

    Returns:
      a figure that Jupyter displays.

    Raises:
      UsageError: there is no such run or image.
      DataError: the image does not decode or has no finite logits.
    """
    values = {"mode": "predict", "ckpt": str(ckpt), "image": str(image), "crops": crops}
    values |= {"seam_carving": seam_carving, "top_k": str(top_k)}
    config = dataclasses.replace(Config().replace(**values), typed=frozenset(values))
    config = first_use.replace_names(config)
    (path, *others) = image_paths.find(config.prediction.image)
    if others:
        raise UsageError(f"{image}: {len(others) + 1} images; name one of them")
    nets = ensemble.load(config)
    ((_, logits),) = nets.predict([path])
    probabilities, reason = _get_probabilities(path, logits)
    if probabilities is None:
        raise DataError(f"{path}: {reason}")
    max_classes = min(top_k, len(nets.class_names))
    return figure.draw(explained_prediction.explain_image(nets, path, logits, max_classes))
