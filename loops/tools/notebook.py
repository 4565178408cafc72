"""Figures of runs for notebooks: curves, mistakes, explanations, filters, augmentations."""

import dataclasses
import pathlib

import cv2
import numpy as np

from loops.runtime import tensorflow_startup

# Before the other imports, which would show TensorFlow's startup messages.
tensorflow_startup.load_tensorflow()

from input_pipeline.errors import UsageError  # noqa: E402
from input_pipeline.sources import source  # noqa: E402
from input_pipeline.system import regular_files  # noqa: E402
from loops.checkpointing import run_folder  # noqa: E402
from loops.config.config import Config  # noqa: E402
from loops.evaluation import eval_results, first_filters  # noqa: E402
from loops.monitoring import metric_writer, plots  # noqa: E402
from loops.tools.predict import augmentation_page, ensemble, figure, predict  # noqa: E402

explain = predict.show
augmentations = augmentation_page.show
_MAX_MISTAKES = 16
_FILTERS_ZOOM = 2  # of drawn filters


def curves(run: str | pathlib.Path) -> figure.Figure:
    """Draws loss and top-1 accuracy over the steps of a run, from its metrics.jsonl.

    Args:
      run: run folder.

    Returns:
      a figure that Jupyter displays, training in blue and validation in red.

    Raises:
      UsageError: there is no such run, or it has no checkpoint yet.
    """
    run_dir, _ = run_folder.find_checkpoint(str(run))
    lines = metric_writer.read_lines(run_dir)
    drawn = []
    for tag, title, top in (
        ("loss/cross_entropy", "loss", 0.0),
        ("accuracy/top1", "top-1 accuracy", 1.0),
    ):
        points = {
            # By step: an evaluation of an older checkpoint is behind newer ones in the file.
            name: sorted(
                (line["step"], line[tag])
                for line in lines
                if line["split"] == split and line.get(tag) is not None
            )
            for split, name in (("train", "training"), ("eval", "validation"))
        }
        drawn.append(plots.draw_curves(points, title, top))
    return figure.Figure(np.concatenate(drawn, axis=1))


def mistakes(run: str | pathlib.Path) -> figure.Figure:
    """Draws the most confident mistakes of a run's last evaluation.

    Args:
      run: run folder with results of an evaluation of one data set.

    Returns:
      a figure that Jupyter displays. Captions have the predicted class and the true one.

    Raises:
      UsageError: there is no such run, it has not been evaluated, or it made no mistake.
    """
    run_dir, _ = run_folder.find_checkpoint(str(run))
    files = sorted(run_dir.glob("eval-*.json"), key=lambda path: -path.stat().st_mtime)
    evaluations = map(regular_files.read_json, files)
    # The evaluation at the end of a training keeps no mistakes, and one of test sets has several.
    results = next((result for result in evaluations if "mistakes" in result), None)
    if results is None:
        raise UsageError(f"{run}: not evaluated yet; run --mode=eval --ckpt={run}")
    results["mistakes"] = results["mistakes"][:_MAX_MISTAKES]
    if not results["mistakes"]:
        raise UsageError(f"{run}: its last evaluation has no mistakes")
    record = run_folder.read_record(run_dir)
    data = dataclasses.replace(record.config.data, cache="none", data_service="")
    split = source.open_split(data, results["split"], record.class_names)
    if split.fingerprint != results["fingerprint"]:
        raise UsageError(
            f"{run}: was evaluated on other images than those in {data.data_dir}; run --mode=eval"
            f" --ckpt={run}"
        )
    images, captions = eval_results.read_mistakes(results, split, data)
    return figure.Figure(plots.draw_image_grid(images, captions))


def filters(run: str | pathlib.Path) -> figure.Figure:
    """Draws the filters of the first convolution of a run.

    Args:
      run: run folder, RUN/best or step folder.

    Returns:
      a figure that Jupyter displays.

    Raises:
      UsageError: there is no such run, or the filters do not read colors.
    """
    values = {"mode": "predict", "ckpt": str(run)}
    config = dataclasses.replace(Config().replace(**values), typed=frozenset(values))
    (net, *_) = ensemble.load(config).predictors
    picture = first_filters.draw(net.float32_model)
    if picture is None:
        raise UsageError(f"{run}: the first filters do not read colors")
    return figure.Figure(
        cv2.resize(
            picture, None, fx=_FILTERS_ZOOM, fy=_FILTERS_ZOOM, interpolation=cv2.INTER_NEAREST
        )
    )
