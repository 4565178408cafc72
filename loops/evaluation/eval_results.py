"""Results of an evaluation: scores, metadata, JSON files, TensorBoard curves and images."""

import contextlib
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import datasets
from input_pipeline.augmentation import crops
from input_pipeline.config import RESIZING_FIELDS, DataConfig
from input_pipeline.decoding import decode
from input_pipeline.errors import DataError
from input_pipeline.sources.source import Source
from input_pipeline.system import atomic_files, folder_lock, regular_files
from input_pipeline.text import escape_unprintable, pluralize
from input_pipeline.user_code import function_names
from loops.checkpointing.run_folder import Record
from loops.config import flag_parsers
from loops.config.config import Config
from loops.evaluation.trained_models import TrainedModel
from loops.metrics import calibration, classification, comparison, metrics
from loops.monitoring import console, metric_writer, plots
from loops.runtime import output_files

WATCH_CURVE = "watch"
# A confusion matrix has a pixel for each pair of classes. Above this it is not readable.
_MAX_CLASSES_DRAWN = 2000
# With fewer, the accuracy in a bin of the ECE has a standard error of over 15 points.
_MIN_IMAGES_PER_BIN = 10


def score_models(
    predicted: list[dict[int, np.ndarray]],
    models: list[TrainedModel],
    split: Source,
    real: list[frozenset[int]] | None = None,
    top1_raw: float | None = None,
) -> dict:
    """Scores the predictions of one or several models on a split.

    Args:
      predicted: for each model, probabilities float64 [N, C] by number of views.
      models: in the same order. The config of the first one says how it is evaluated.
      split: the images.
      real: ImageNet-ReaL labels, see `imagenet_real`.
      top1_raw: top-1 accuracy of the raw weights, that is, without EMA.

    Returns:
      dict of metrics and metadata, as in the JSON file.
    """
    config = models[0].config
    names = [str(model.step_dir) for model in models]
    ks = flag_parsers.parse_top_k(config.evaluation.top_k)
    more = metrics.parse(config.evaluation.metrics)
    results = score(
        predicted, names, split.labels, split.class_names, split.describe, ks, real, more
    )
    if top1_raw is not None:
        results["top1_raw"] = top1_raw
    return add_metadata(results, config, split, max(model.step for model in models), names)


def score(
    predicted: list[dict[int, np.ndarray]],
    names: Sequence[str],
    labels: np.ndarray,
    class_names: Sequence[str],
    describe_image: Callable[[int], str],
    ks: Sequence[int],
    real: list[frozenset[int]] | None = None,
    more: Sequence[str] = (),
) -> dict:
    """Compares models as `comparison.compare_models` does, and names images and classes.

    Args:
      predicted, names, labels, class_names, ks, real, more: see `comparison.compare_models`.
      describe_image: returns the name of the image at a position of the split.
    """
    for name, by_views in zip(names, predicted, strict=True):
        warn_of_non_finite(name, by_views[max(by_views)])
    results = comparison.compare_models(predicted, names, labels, class_names, ks, real, more)
    results["mistakes"] = [
        {
            "image": describe_image(mistake["position"]),
            "class": class_names[mistake["label"]],
            "predicted": class_names[mistake["predicted"]],
            "probability": mistake["probability"],
            "position": mistake["position"],
        }
        for mistake in results["mistakes"]
    ]
    return results


def warn_of_small_set(ks: Sequence[int], num_classes: int, num_images: int) -> None:
    """Warns of metrics that say nothing about a model on so few classes or images.

    Args:
      ks: the values of k of top-k accuracy.
      num_classes: number of classes.
      num_images: number of images of the split.
    """
    for k in ks:
        if k >= num_classes:
            logging.warning(
                "top-%d accuracy is 100 %% for any model: there are %d classes", k, num_classes
            )
    if num_images < _MIN_IMAGES_PER_BIN * calibration.BINS:
        logging.warning(
            "the ECE of %s is mostly noise: it has %d bins",
            pluralize(num_images, "image"),
            calibration.BINS,
        )


def warn_of_non_finite(name: str, probs: np.ndarray, is_final: bool = True) -> None:
    """Warns that a model has no prediction for some images.

    Args:
      name: of the model.
      probs: float [N, C].
      is_final: whether the weights will not change anymore.

    Raises:
      DataError: the final weights have no prediction for any image.
    """
    count = classification.count_non_finite(probs)
    if is_final and count == len(probs):
        raise DataError(
            f"{name}: the logits of all {pluralize(count, 'image')} are not finite; its weights or"
            " its normalization are broken"
        )
    if count:
        logging.warning(
            "%s: the logits of %s are not finite; they count as wrong",
            name,
            pluralize(count, "image"),
        )


def add_metadata(
    results: dict, config: Config, split: Source, step: int, model_names: Sequence[str]
) -> dict:
    """Adds to a dict of metrics what was evaluated, and how.

    Args:
      results: dict of metrics.
      config: config of the evaluation.
      split: its fingerprint is recorded, to identify the version of the data.
      step: step of the checkpoint.
      model_names: the step folders, as strings.
    """
    return {
        **results,
        "crops": config.evaluation.crops,
        "models": [*model_names],
        "dataset": config.data.dataset,
        "split": config.evaluation.split,
        "fingerprint": split.fingerprint,
        **get_resizing(config.data),
        "step": step,
    }


def get_resizing(data: DataConfig) -> dict:
    """Returns how images are resized and cropped, by field of DataConfig."""
    return {name: getattr(data, name) for name in RESIZING_FIELDS}


def resizing_suffix(config: Config, record: Record) -> str:
    """Returns the file-name suffix that says how resizing differs from the run's; "" if equal."""
    formats = {"image_size": "-{}px", "crop_fraction": "-crop{:g}", "interpolation": "-{}"}
    own = get_resizing(record.config.data)
    changed = {k: v for k, v in get_resizing(config.data).items() if v != own[k]}
    return "".join(formats[name].format(value) for name, value in changed.items())


def curve_name(run_dir: pathlib.Path) -> str:
    """Returns the folder of the event files for an evaluation of a run.

    While the run trains, evaluations by other processes get a separate curve. Otherwise
    TensorBoard would stop reading the file that training writes once there is a newer one, and
    the steps of two writers would be out of order.
    """
    return WATCH_CURVE if folder_lock.is_held(run_dir) else "eval"


def to_scalars(results: dict, suffix: str = "") -> dict[str, float]:
    """Returns results by TensorBoard tag. Ten-crop metrics have separate tags.

    Ten-crop tags sort behind those of the center crop, which have a value for each epoch.
    """
    suffix = _make_tag_suffix(results, suffix)
    tags = {f"accuracy/{k}{suffix}": v for k, v in results.items() if re.fullmatch(r"top\d+", k)}
    groups = {name: facts.tensorboard_group for name, facts in metrics.iter_shown(results)}
    groups["temperature"] = "calibration"
    tags |= {
        f"{group}/{name}{suffix}": results[name]
        for name, group in groups.items()
        if group and name in results
    }
    return {f"loss/cross_entropy{suffix}": results["nll"], **tags}


def write_json(run_dir: pathlib.Path, results: dict, also: str = "", suffix: str = "") -> None:
    """Writes results to eval-<step>-<split>-<crops><suffix>.json, and to the file `also`.

    If the run folder is not writable, its file is skipped with a warning. A more complete file of
    the same predictions is not overwritten. The end of training would otherwise replace the file
    of an earlier evaluation of the last step.

    Raises:
      UsageError: `also` cannot be written.
    """
    path = _make_path(run_dir, results["step"], results["split"], results["crops"], suffix)
    with _warn_if_unwritable(path):
        if not _is_more_complete(path, results):
            atomic_files.write_json(path, results)
    output_files.write_json_output(also, results)


def write_json_file(path: pathlib.Path, results: dict) -> None:
    """Writes results into a run folder. If it is not writable, warns."""
    with _warn_if_unwritable(path):
        atomic_files.write_json(path, results)


def _make_path(
    run_dir: pathlib.Path, step: int, split: str, crops: int, suffix: str = ""
) -> pathlib.Path:
    return run_dir / f"eval-{step:08d}-{split}-{crops}{suffix}.json"


def read_final(run_dir: pathlib.Path, step: int, config: Config, fingerprint: str) -> dict | None:
    """Returns the results that the last evaluation of a training has written, or None.

    Args:
      run_dir: the run folder.
      step: the last step.
      config: config of the training. Results without one of its `--top_k` or `--metrics` do not
        count.
      fingerprint: that of the val split. Results of other images do not count.
    """
    evaluation = config.evaluation
    try:
        path = _make_path(run_dir, step, evaluation.split, evaluation.crops)
        results = regular_files.read_json(path)
        wanted = {f"top{k}" for k in flag_parsers.parse_top_k(evaluation.top_k)}
        wanted |= {function_names(name) for name in metrics.parse(evaluation.metrics)}
        is_same = (results["fingerprint"], results["step"]) == (fingerprint, step)
        console.format_evaluation(results)  # fails unless it has all that is shown
        return results if is_same and results.keys() >= wanted else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # no file, or one that another program has written


def log_to_tensorboard(
    run_dir: pathlib.Path,
    results: dict,
    suffix: str = "",
    log_more: Callable[[metric_writer.MetricWriter], None] = lambda writer: None,
    curve: str = "eval",
) -> None:
    """Adds an evaluation to the curves of a run. If its folder is not writable, warns.

    Args:
      run_dir: the run folder.
      results: what `score_models` returned.
      suffix: suffix of the tags, for images of another size.
      log_more: called with the writer after the scalars are written.
      curve: folder of the event files, and `split` of the line in metrics.jsonl.
    """
    with _warn_if_unwritable(run_dir / curve), metric_writer.MetricWriter(run_dir) as writer:
        writer.write_scalars(curve, results["step"], to_scalars(results, suffix))
        log_more(writer)


def log_images(
    writer: metric_writer.MetricWriter,
    curve: str,
    results: dict,
    probs: np.ndarray,
    split: Source,
    data: DataConfig,
) -> None:
    """Logs a reliability diagram, the confusion matrix and the most confident mistakes.

    Args:
      writer: the run's MetricWriter.
      curve: folder of the event files.
      results: what `score_models` returned.
      probs: the predictions, float64 [N, C].
      split: the images.
      data: how they are resized. Mistakes are shown as the center crop of the model.
    """
    step, suffix = results["step"], _make_tag_suffix(results)
    diagram = plots.draw_reliability_diagram(results["reliability"])
    writer.write_image(curve, step, f"reliability{suffix}", diagram)
    names = [_caption(name) for name in split.class_names]
    if len(names) <= _MAX_CLASSES_DRAWN:
        matrix = comparison.confusion_matrix(probs, split.labels, len(names))
        writer.write_image(
            curve, step, f"confusion{suffix}", plots.draw_confusion_matrix(matrix, names)
        )
    images, captions = read_mistakes(results, split, data)
    if images:
        writer.write_image_grid(curve, step, f"mistakes{suffix}", images, captions)


def read_mistakes(
    results: dict, split: Source, data: DataConfig
) -> tuple[list[np.ndarray], list[str]]:
    """Returns the images of the most confident mistakes, uint8 [S, S, 3], and their captions.

    Args:
      results: what `score_models` returned.
      split: the images.
      data: how they are resized.
    """
    images, captions = [], []
    for mistake in results["mistakes"]:
        encoded, _ = split.read(tf.constant(mistake["position"], tf.int64))
        image = decode.decode_image(encoded, data.exif)
        view = crops.extract_views(
            image,
            data.image_size,
            1,
            data.crop_fraction,
            data.interpolation,
            data.torchvision_rounding,
        )
        images.append(view[0].numpy())
        truth, predicted = (_caption(mistake[k]) for k in ("class", "predicted"))
        captions.append(f"{predicted} {mistake['probability']:.0%}\nis {truth}")
    return images, captions


def _caption(class_name: str) -> str:
    """Returns the name of a class in one line."""
    return escape_unprintable(datasets.display_name(class_name))


def _make_tag_suffix(results: dict, between: str = "") -> str:
    """Returns the suffix of a tag: number of crops and split, unless they are 1 and val."""
    crops_part = "" if results["crops"] == 1 else f"_{results['crops']}_crops"
    split_part = "" if results["split"] == "val" else f"_{results['split']}"
    return crops_part + between + split_part


def _is_more_complete(path: pathlib.Path, results: dict) -> bool:
    """Returns whether a file holds results of the same predictions with additional keys."""
    try:
        existing = regular_files.read_json(path)
        is_same = existing["top1"] == results["top1"] and math.isclose(
            existing["nll"], results["nll"], rel_tol=1e-5
        )
        return is_same and existing.keys() > results.keys()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return False  # no file, or one that another program has written


@contextlib.contextmanager
def _warn_if_unwritable(path: pathlib.Path) -> Iterator[None]:
    """Turns a failed write into a warning."""
    try:
        yield
    except OSError as error:
        logging.warning("could not write %s: %s", path, error.strerror or error)
    except tf.errors.OpError as error:
        logging.warning("could not write %s: %s", path, decode.describe_error(error))
