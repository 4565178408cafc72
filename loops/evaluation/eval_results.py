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

WATCH = "watch"
# What besides accuracies goes to TensorBoard, and under which group.
_CURVES = {"brier": "calibration", "ece": "calibration", "temperature": "calibration"}
# A confusion matrix has a pixel for each pair of classes: of more, nobody could see it.
_MOST_CLASSES_DRAWN = 2000


def curve_of(run_dir):
    """Which curve of a run, and so which event files, an evaluation belongs to.

    Beside a newer file TensorBoard stops reading the one that training still writes, and of two
    writers the steps would come out of order: where a training is on, it is a curve of its own.
    """
    return WATCH if folder_lock.is_held(run_dir) else "eval"


def described(results, config, split, step, model_names):
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
        **view_of(config.data),
        "step": step,
    }


def view_of(data):
    """How images are prepared for the net: dict of fields of a DataConfig."""
    return {name: getattr(data, name) for name in ("image_size", "crop_fraction", "interpolation")}


def judged(predicted, names, labels, class_names, name_of, ks, real=None):
    """`judgement.compare`, with names for the numbers of its mistakes.

    Args:
      predicted, names, labels, class_names, ks, real: see `judgement.compare`.
      name_of: from an image's position in the split to what a person calls it.
    """
    results = comparison.compare(predicted, names, labels, class_names, ks, real)
    results["mistakes"] = _named_mistakes(results["mistakes"], class_names, name_of)
    return results


def view_suffix(config, record):
    """What the names of files say where images are prepared in another way than the run's own."""
    forms = {"image_size": "-{}px", "crop_fraction": "-crop{:g}", "interpolation": "-{}"}
    here, own = view_of(config.data), view_of(record.config.data)
    return "".join(forms[k].format(value) for k, value in here.items() if value != own[k])


def _named_mistakes(found, class_names, name_of):
    """`judgement.mistakes` with names for numbers; `name_of(position)` names an image."""
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


def scalars(results, suffix=""):
    """Results under their TensorBoard tags; ten-crop figures have tags of their own."""
    suffix = _of_crops_and_split(results, suffix)
    tags = {f"accuracy{suffix}/{k}": v for k, v in results.items() if k[3:].isdigit()}
    tags |= {f"{group}{suffix}/{k}": results[k] for k, group in _CURVES.items() if k in results}
    return {f"loss{suffix}/cross_entropy": results["nll"], **tags}


def _of_crops_and_split(results, between=""):
    """What a tag says where an evaluation is not that of val's centre crops."""
    crops_word = "" if results["crops"] == 1 else f"_{results['crops']}_crops"
    split_word = "" if results["split"] == "val" else f"_{results['split']}"
    return crops_word + between + split_word


def write(run_dir, results, also="", suffix=""):
    """Writes results as eval-<step>-<split>-<crops><suffix>.json, and to the file `also`.

    A run folder that is read-only or on a full disk costs its file and a warning, not the figures.
    A file that says more of the same predictions stays, as one that an evaluation of the last step
    has left before the shorter one at the end of training.

    Raises:
      UsageError: `also` cannot be written.
    """
    name = "eval-{step:08d}-{split}-{crops}".format(**results)
    path = run_dir / f"{name}{suffix}.json"
    with _kept_if_possible(path):
        if not _says_more(path, results):
            output_files.write_json(path, results)
    output_files.write_json_wanted(also, results)


def _says_more(path, results):
    """Whether a file has all that results have, of the same predictions, and more."""
    try:
        found = json.loads(path.read_text())
        same = found["top1"] == results["top1"] and math.isclose(
            found["nll"], results["nll"], rel_tol=1e-5
        )
        return same and found.keys() > results.keys()
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return False  # none, or one that somebody else has written


def record(run_dir, results, suffix="", pictures=lambda sink: None, curve="eval"):
    """Adds an evaluation to the curves of a run, where its folder can be written.

    Args:
      run_dir: the run folder.
      results: of `judgement.compare`, described.
      suffix: of the tags, for images of another size.
      pictures: called with the sink after the curves.
      curve: folder of the event files, and `split` of the line in metrics.jsonl.
    """
    with _kept_if_possible(run_dir / curve), metric_writer.Measurements(run_dir) as sink:
        sink.measure(curve, results["step"], scalars(results, suffix))
        pictures(sink)


@contextlib.contextmanager
def _kept_if_possible(path):
    """Turns a path that cannot be written into a warning."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        is_system = isinstance(error, OSError)
        reason = (error.strerror or str(error)) if is_system else decode.reason(error)
        logging.warning("%s is not written: %s", path, reason)


def record_pictures(sink, curve, results, probs, split, data):
    """Hands the sink a reliability diagram, the confusion matrix and the surest mistakes.

    Args:
      sink: Measurements.
      curve: folder of the event files.
      results: of `judgement.compare`, described.
      probs: float64 [N, C], what they are results of.
      split: Source.
      data: DataConfig: mistakes are shown as the net's centre crop.
    """
    step = results["step"]
    suffix = _of_crops_and_split(results)
    sink.image(curve, step, f"reliability{suffix}", plots.reliability(results["reliability"]))
    names = [datasets.readable(name) for name in split.class_names]
    if len(names) <= _MOST_CLASSES_DRAWN:
        matrix = comparison.confusion(probs, split.labels, len(names))
        sink.image(curve, step, f"confusion{suffix}", plots.confusion(matrix, names))
    images, titles = [], []
    for mistake in results["mistakes"]:
        encoded, _ = split.read(tf.constant(mistake["position"], tf.int64))
        size = (data.image_size, 1, data.crop_fraction, data.interpolation)
        images.append(crops.views(decode.decode(encoded), *size)[0].numpy())
        truth, said = (datasets.readable(mistake[k]) for k in ("class", "predicted"))
        titles.append(f"{said} {mistake['probability']:.0%}\nis {truth}")
    if images:
        sink.image_grid(curve, step, f"mistakes{suffix}", images, titles)
