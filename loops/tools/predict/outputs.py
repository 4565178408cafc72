"""Writes the results of a prediction: a summary on stdout, a CSV table, a page or figures."""

import csv
import io
import json
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import user_code
from input_pipeline.decoding import decode
from input_pipeline.errors import DataError, UsageError
from input_pipeline.system import atomic_files
from input_pipeline.text import pluralize
from loops.config.config import Config
from loops.evaluation import first_filters
from loops.monitoring import console, progress_bar
from loops.runtime import output_files
from loops.runtime.out_of_memory import convert_out_of_memory
from loops.tools.predict import (
    drawn_images,
    ensemble,
    explained_prediction,
    figure,
    html_report,
    image_paths,
    training_images,
)
from nets.macs import count_parameters

# With more images, stdout has one line per image and not a block per image.
_MAX_BLOCKS = 20
_MAX_NAME_BYTES = 180  # of a figure's file name; file systems allow 255


def summarize(images: Sequence[dict[str, Any]], has_files: bool) -> None:
    """Prints the predictions to stdout; of many that are in files, only how many are right.

    Args:
      images: `images` of the JSON results of a prediction.
      has_files: whether the predictions are written to a table or a page.
    """
    if len(images) <= _MAX_BLOCKS:
        for image in images:
            rows = [(p["name"], f"{p['probability']:.2%}") for p in image["predictions"]]
            console.print_summary(image["path"], rows)
        return
    accuracy = training_images.describe_accuracy(images)
    rows = [("top-1", accuracy)] if accuracy else []
    if has_files:
        console.print_summary(f"{len(images)} images", rows)
        return
    top1 = [(image["path"], image["predictions"][0]) for image in images]
    rows = [(path, f"{p['probability']:7.2%}  {p['name']}") for path, p in top1] + rows
    console.print_summary(f"{len(images)} images, top-1 class of each:", rows)


def to_csv(results: Mapping[str, Any], max_classes: int) -> bytes:
    """Returns a CSV table in UTF-8 with one line per file.

    The columns are path, true_class, split, class<k>, name<k> and probability<k> for k from 1, and
    error. `true_class` is the folder if it is a class, and `split` is `train` for training images.

    Args:
      results: the JSON results of a prediction.
      max_classes: number of classes of each image.
    """
    text = io.StringIO()
    ranks = range(1, max_classes + 1)
    columns = [f"{name}{k}" for k in ranks for name in ("class", "name", "probability")]
    table = csv.writer(text, lineterminator="\n")
    facts = ["true_class", "split"]
    table.writerow(["path", *facts, *columns, "error"])
    for image in results["images"]:
        cells = [image.get(name, "") for name in facts]
        for prediction in image["predictions"]:
            cells += [prediction["class"], prediction["name"], f"{prediction['probability']:.6g}"]
        table.writerow([image["path"], *cells, ""])
    for file in results["bad"]:
        table.writerow([file["path"], *[""] * len(facts + columns), file["reason"]])
    return text.getvalue().encode("utf-8", "replace")


def write(config: Config, results: dict[str, Any], max_classes: int) -> None:
    """Writes the files of `--json` and `--csv`.

    Args:
      config: Config of the command line.
      results: the JSON results of a prediction.
      max_classes: number of classes of each image.
    """
    output_files.write_json_output(config.evaluation.json, results)
    if config.prediction.csv:
        table = to_csv(results, max_classes)
        output_files.write_flag_output(
            "--csv", config.prediction.csv, table, output_files.write_bytes
        )
        logging.info("wrote the predictions to %s", config.prediction.csv)


class Features:
    """The features of images, for a `.npz` file.

    `names` is bytes [N], the paths. `features_<m>` is float32 [N, D] of model m. `meta` is JSON as
    uint8, with the step folders as `models`.
    """

    def __init__(self):
        self._names: list[bytes] = []
        self._rows: list[list[np.ndarray]] = []

    def append(self, path: str, features: list[np.ndarray]) -> None:
        """Adds an image with the features of each model, float32 [D]."""
        self._names.append(os.fsencode(path))
        self._rows.append(features)

    def write(self, path: str, models: Sequence[str]) -> None:
        """Writes the file of `--features`.

        Args:
          path: path of the file.
          models: the step folders.

        Raises:
          UsageError: the file cannot be written.
        """
        arrays = {
            f"features_{m}": np.stack(column)
            for m, column in enumerate(zip(*self._rows, strict=True))
        }
        meta = np.frombuffer(json.dumps({"models": [*models]}).encode(), np.uint8)
        content = io.BytesIO()
        np.savez(content, names=np.array(self._names), meta=meta, **arrays)  # type: ignore[arg-type]
        output_files.write_flag_output(
            "--features", path, content.getvalue(), output_files.write_bytes
        )


def write_report(
    path: str,
    nets: ensemble.Ensemble,
    chosen: Sequence[tuple[int, str, np.ndarray]],
    max_classes: int,
    results: Mapping[str, Any],
) -> None:
    """Writes the HTML page of `--report`.

    Args:
      path: path of the HTML file.
      nets: the nets that predicted the images.
      chosen: (index in `images` of the results, path, logits [M, V, C]) of each image to draw.
      max_classes: number of classes to show of each image.
      results: the JSON results of the prediction.
    """
    explained = _explain_images(nets, chosen, max_classes, results)
    filters = [
        explained_prediction.Panel(
            picture, predictor.record.config.net.model, str(predictor.step_dir)
        )
        for predictor in nets.predictors
        if (picture := first_filters.draw(predictor.float32_model)) is not None
    ]
    facts = _list_facts(nets, results)
    text = html_report.render_page(explained, len(chosen), results, facts, filters)
    encoded = text.encode("utf-8", "replace")
    output_files.write_flag_output("--report", path, encoded, output_files.write_bytes)
    console.print_summary("report", [("page", path)])


def _list_facts(nets: ensemble.Ensemble, results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (name, value) of when, with what and how the images were predicted."""
    facts = [("Date", time.strftime("%Y-%m-%d %H:%M %Z"))]
    for predictor in nets.predictors:
        name = user_code.display_name(predictor.record.config.net.model)
        parameters = count_parameters(predictor.float32_model)
        size = predictor.preprocessing.size
        facts.append(("Net", f"{name}, {parameters / 1e6:.1f} M parameters, {size} px"))
        facts.append(("Run", str(predictor.step_dir)))
    views = pluralize(results["crops"], "crop")
    views += " and seam carving" if results["seam_carving"] else ""
    facts.append(("Classes", str(len(nets.class_names))))
    facts.append(("Certainty", f"the mean probability over {views}"))
    facts.append(("Command", shlex.join(["python", *sys.argv])))
    return facts


def make_figure_folder(nets: ensemble.Ensemble) -> pathlib.Path:
    """Creates RUN/explain of the first net's run and returns its path.

    Raises:
      UsageError: the folder cannot be created.
    """
    folder = pathlib.Path(nets.predictors[0].step_dir).absolute().parent / "explain"
    try:
        atomic_files.make_folder(folder)
    except OSError as error:
        raise UsageError(
            f"--explain: {folder} cannot be created ({error.strerror}); write a page with --report"
        ) from None
    return folder


def write_figures(
    folder: pathlib.Path,
    nets: ensemble.Ensemble,
    chosen: Sequence[tuple[int, str, np.ndarray]],
    max_classes: int,
    results: Mapping[str, Any],
) -> None:
    """Writes a figure of each chosen image and adds its path to the results as `figure`.

    Args:
      folder: folder of the figures.
      nets, chosen, max_classes, results: see `write_report`.
    """
    explained = _explain_images(nets, chosen, max_classes, results)
    for (number, *_), prediction in zip(chosen, explained, strict=True):
        file = pathlib.Path(prediction.path).absolute()
        # The number makes names unique: different folders may have the same name.
        name = os.fsencode(f"{number + 1:02d}-{file.parent.name}-{file.name}")[:_MAX_NAME_BYTES]
        path = folder / f"{name.decode(errors='ignore')}.png"
        output_files.write_flag_output(
            "--explain", path, figure.draw(prediction).png(), atomic_files.write_bytes
        )
        results["images"][number]["figure"] = image_paths.replace_non_utf8(path)
    console.print_summary("figures", [("folder", str(folder))])


def _explain_images(
    nets: ensemble.Ensemble,
    chosen: Sequence[tuple[int, str, np.ndarray]],
    max_classes: int,
    results: Mapping[str, Any],
) -> Iterator[explained_prediction.ExplainedPrediction]:
    """Yields the explained prediction of each chosen image.

    Raises:
      UsageError: out of memory.
      DataError: an image does not decode any longer.
    """
    omitted = len(results["images"]) - len(chosen)
    if omitted:
        which = drawn_images.describe(results["images"], len(chosen))
        logging.info("drawing %s; %s not drawn", which, pluralize(omitted, "image"))
    bar = progress_bar.Progress("draw", len(chosen))
    out_of_memory = convert_out_of_memory(
        "--report, --explain", lambda: "predict on a CPU: CUDA_VISIBLE_DEVICES=-1"
    )
    try:
        with out_of_memory:
            for _, path, logits in chosen:
                yield explained_prediction.explain_image(nets, path, logits, max_classes)
                bar.advance(1)
    except tf.errors.OpError as error:
        text_path = image_paths.replace_non_utf8(path)
        raise DataError(
            f"{text_path} does not decode any longer: {decode.describe_error(error)}"
        ) from None
    finally:
        bar.close()
