"""What a prediction leaves behind: lines on stdout, a CSV table, a page or figures."""

import csv
import io
import os
import pathlib

import tensorflow as tf
from absl import logging

from input_pipeline.decoding import decode
from input_pipeline.errors import DataError, UsageError
from input_pipeline.text import tf_error_message
from loops.monitoring import console, progress_bar
from loops.runtime import output_files
from loops.tools.predict import explained_prediction, figure, html_report, image_paths

# Up to so many pictures, stdout has a block for each; beyond, a line.
_MAX_BLOCKS = 20
_MAX_NAME_BYTES = 180  # bytes of a figure's name; file systems take 255


def summarize(images):
    """Says on stdout what was found.

    Args:
      images: as in the JSON file of a prediction.
    """
    if len(images) <= _MAX_BLOCKS:
        for image in images:
            rows = [(p["name"], f"{p['probability']:.2%}") for p in image["predictions"]]
            console.print_summary(image["path"], rows)
        return
    firsts = [(image["path"], image["predictions"][0]) for image in images]
    rows = [(path, f"{first['probability']:7.2%}  {first['name']}") for path, first in firsts]
    console.print_summary(f"{len(images)} images, the most probable class of each:", rows)


def to_csv(results, most):
    """A table with one line per file: its path, the best classes, and why it did not decode.

    Args:
      results: as in the JSON file of a prediction.
      most: classes of each image.

    Returns:
      bytes, CSV in UTF-8: path, then class<k>, name<k>, probability<k> from the first on, error.
    """
    text = io.StringIO()
    ranks = range(1, most + 1)
    columns = [f"{name}{k}" for k in ranks for name in ("class", "name", "probability")]
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", *columns, "error"])
    for image in results["images"]:
        cells = [p[key] for p in image["predictions"] for key in ("class", "name", "probability")]
        table.writerow([image["path"], *cells, ""])
    for file in results["bad"]:
        table.writerow([file["path"], *[""] * len(columns), file["reason"]])
    return text.getvalue().encode("utf-8", "replace")


def write(config, results, most):
    """Writes the files of `--json` and `--csv`.

    Args:
      config: Config.
      results: as in the JSON file of a prediction.
      most: classes of each image.
    """
    output_files.write_json_output(config.evaluation.json, results)
    if config.prediction.csv:
        table = to_csv(results, most)
        output_files.write_flag_output(
            "--csv", config.prediction.csv, table, output_files.write_bytes
        )


def write_report(path, nets, chosen, most, results):
    """Writes the page of `--report`.

    Args:
      path: of the HTML file.
      nets: Ensemble.
      chosen: list of (path, logits [M, V, C]) of the pictures to draw.
      most: classes to show of each.
      results: as in the JSON file of the prediction.
    """
    articles = [
        html_report.render_article(shown) for shown in _explain_images(nets, chosen, most, results)
    ]
    text = html_report.render_page(articles, results, len(results["images"]) - len(chosen))
    encoded = text.encode("utf-8", "replace")
    output_files.write_flag_output("--report", path, encoded, output_files.write_bytes)
    console.print_summary("report", [("page", path)])


def make_figure_folder(nets):
    """RUN/explain of the first run, made if it is not there.

    Raises:
      UsageError: it cannot be made.
    """
    folder = pathlib.Path(nets.members[0].step_dir).absolute().parent / "explain"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--explain: {folder} cannot be made ({error.strerror}); name a page with --report"
        ) from None
    return folder


def write_figures(folder, nets, chosen, most, results):
    """Writes a figure of each image and adds its path as `figure`; see `write_report`."""
    exhibits = _explain_images(nets, chosen, most, results)
    for number, (shown, image) in enumerate(zip(exhibits, results["images"], strict=False), 1):
        file = pathlib.Path(shown.path).absolute()
        # The number tells apart what folders of the same name hold.
        name = os.fsencode(f"{number:02d}-{file.parent.name}-{file.name}")[:_MAX_NAME_BYTES]
        path = folder / f"{name.decode(errors='ignore')}.png"
        output_files.write_flag_output(
            "--explain", path, figure.draw(shown).png(), output_files.write_bytes
        )
        image["figure"] = image_paths.replace_non_utf8(path)
    console.print_summary("figures", [("folder", str(folder))])


def _explain_images(nets, chosen, most, results):
    """Yields the Exhibit of each chosen picture."""
    omitted = len(results["images"]) - len(chosen)
    if omitted:
        logging.warning("the first %d pictures are drawn, %d are not", len(chosen), omitted)
    bar = progress_bar.Progress("draw", len(chosen))
    try:
        for path, logits in chosen:
            yield explained_prediction.explain_image(nets, path, logits, most)
            bar.advance(1)
    except tf.errors.ResourceExhaustedError as error:
        raise UsageError(
            "--report, --explain: out of memory while drawing; predict on a CPU:"
            f" CUDA_VISIBLE_DEVICES=-1 ({tf_error_message(error)[:100]})"
        ) from None
    except tf.errors.OpError as error:
        shown = image_paths.replace_non_utf8(path)
        raise DataError(
            f"{shown} does not decode any more: {decode.describe_error(error)}"
        ) from None
    finally:
        bar.close()
