"""Results of an evaluation on their way out: their names, files, curves and pictures."""

import contextlib
import json
import math

import tensorflow as tf
from absl import logging

from input_pipeline import datasets
from input_pipeline.augmentation import crops
from input_pipeline.decoding import decode
from input_pipeline.system import folder_lock
from loops.metrics import comparison
from loops.monitoring import metric_writer, plots
from loops.runtime import output_files

WATCH_CURVE = "watch"
# What besides accuracies goes to TensorBoard, and under which group.
_TENSORBOARD_GROUPS = {"brier": "calibration", "ece": "calibration", "temperature": "calibration"}
# A confusion matrix has a pixel for each pair of classes: of more, nobody could see it.
_MAX_CLASSES_DRAWN = 2000


def curve_name(run_dir):
    """Which curve of a run, and so which event files, an evaluation belongs to.

    Beside a newer file TensorBoard stops reading the one that training still writes, and of two
    writers the steps would come out of order: where a training is on, it is a curve of its own.
    """
    return WATCH_CURVE if folder_lock.is_held(run_dir) else "eval"


def add_metadata(results, config, split, step, model_names):
    """Adds to figures what they are figures of.

    Args:
      results: dict of figures.
      config: Config of the evaluation.
      split: Source: its fingerprint tells other images under the same name from these.
      step: of the checkpoint.
      model_names: one or several.
    """
    names = model_names if isinstance(model_names, list) else [model_names]
    return {
        **results,
        "crops": config.evaluation.crops,
        "models": [str(name) for name in names],
        "dataset": config.data.dataset,
        "split": config.evaluation.split,
        "fingerprint": split.fingerprint,
        **preprocessing(config.data),
        "step": step,
    }


def preprocessing(data):
    """How images are prepared for the net: dict of fields of a DataConfig."""
    return {name: getattr(data, name) for name in ("image_size", "crop_fraction", "interpolation")}


def score(predicted, names, labels, class_names, name_of, ks, real=None):
    """`comparison.compare_models`, with names for the numbers of its mistakes.

    Args:
      predicted, names, labels, class_names, ks, real: see `comparison.compare_models`.
      name_of: from an image's position in the split to what a person calls it.
    """
    results = comparison.compare_models(predicted, names, labels, class_names, ks, real)
    results["mistakes"] = _name_mistakes(results["mistakes"], class_names, name_of)
    return results


def preprocessing_suffix(config, record):
    """What the names of files say where images are prepared in another way than the run's own."""
    forms = {"image_size": "-{}px", "crop_fraction": "-crop{:g}", "interpolation": "-{}"}
    here, own = preprocessing(config.data), preprocessing(record.config.data)
    return "".join(forms[k].format(value) for k, value in here.items() if value != own[k])


def _name_mistakes(found, class_names, name_of):
    """Adds names to mistakes; `name_of(position)` names an image."""
    return [
        {
            "image": name_of(one["position"]),
            "class": class_names[one["label"]],
            "predicted": class_names[one["predicted"]],
            "probability": one["probability"],
            "position": one["position"],
        }
        for one in found
    ]


def to_scalars(results, suffix=""):
    """Results under their TensorBoard tags; ten-crop figures have tags of their own."""
    suffix = _make_tag_suffix(results, suffix)
    tags = {f"accuracy{suffix}/{k}": v for k, v in results.items() if k[3:].isdigit()}
    tags |= {
        f"{group}{suffix}/{k}": results[k]
        for k, group in _TENSORBOARD_GROUPS.items()
        if k in results
    }
    return {f"loss{suffix}/cross_entropy": results["nll"], **tags}


def _make_tag_suffix(results, between=""):
    """What a tag says where an evaluation is not that of val's centre crops."""
    crops_word = "" if results["crops"] == 1 else f"_{results['crops']}_crops"
    split_word = "" if results["split"] == "val" else f"_{results['split']}"
    return crops_word + between + split_word


def write_json(run_dir, results, also="", suffix=""):
    """Writes results as eval-<step>-<split>-<crops><suffix>.json, and to the file `also`.

    A run folder that is read-only or on a full disk costs its file and a warning, not the figures.
    A file that says more of the same predictions stays, as one that an evaluation of the last step
    has left before the shorter one at the end of training.

    Raises:
      UsageError: `also` cannot be written.
    """
    name = "eval-{step:08d}-{split}-{crops}".format(**results)
    path = run_dir / f"{name}{suffix}.json"
    with _warn_if_unwritable(path):
        if not _is_more_complete(path, results):
            output_files.write_json(path, results)
    output_files.write_json_output(also, results)


def _is_more_complete(path, results):
    """Whether a file has all that results have, of the same predictions, and more."""
    try:
        found = json.loads(path.read_text())
        same = found["top1"] == results["top1"] and math.isclose(
            found["nll"], results["nll"], rel_tol=1e-5
        )
        return same and found.keys() > results.keys()
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return False  # none, or one that somebody else has written


def log_to_tensorboard(run_dir, results, suffix="", pictures=lambda sink: None, curve="eval"):
    """Adds an evaluation to the curves of a run, where its folder can be written.

    Args:
      run_dir: the run folder.
      results: of `comparison.compare_models`, described.
      suffix: of the tags, for images of another size.
      pictures: called with the sink after the curves.
      curve: folder of the event files, and `split` of the line in metrics.jsonl.
    """
    with _warn_if_unwritable(run_dir / curve), metric_writer.MetricWriter(run_dir) as sink:
        sink.write_scalars(curve, results["step"], to_scalars(results, suffix))
        pictures(sink)


@contextlib.contextmanager
def _warn_if_unwritable(path):
    """Turns a path that cannot be written into a warning."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        is_system = isinstance(error, OSError)
        reason = (error.strerror or str(error)) if is_system else decode.describe_error(error)
        logging.warning("%s is not written: %s", path, reason)


def log_images(sink, curve, results, probs, split, data):
    """Hands the sink a reliability diagram, the confusion matrix and the surest mistakes.

    Args:
      sink: Measurements.
      curve: folder of the event files.
      results: of `comparison.compare_models`, described.
      probs: float64 [N, C], what they are results of.
      split: Source.
      data: DataConfig: mistakes are shown as the net's centre crop.
    """
    step = results["step"]
    suffix = _make_tag_suffix(results)
    sink.write_image(
        curve, step, f"reliability{suffix}", plots.draw_reliability_diagram(results["reliability"])
    )
    names = [datasets.display_name(name) for name in split.class_names]
    if len(names) <= _MAX_CLASSES_DRAWN:
        matrix = comparison.confusion_matrix(probs, split.labels, len(names))
        sink.write_image(
            curve, step, f"confusion{suffix}", plots.draw_confusion_matrix(matrix, names)
        )
    images, titles = [], []
    for mistake in results["mistakes"]:
        encoded, _ = split.read(tf.constant(mistake["position"], tf.int64))
        size = (data.image_size, 1, data.crop_fraction, data.interpolation)
        images.append(crops.extract_views(decode.decode_image(encoded), *size)[0].numpy())
        truth, said = (datasets.display_name(mistake[k]) for k in ("class", "predicted"))
        titles.append(f"{said} {mistake['probability']:.0%}\nis {truth}")
    if images:
        sink.write_image_grid(curve, step, f"mistakes{suffix}", images, titles)
