"""What a prediction leaves behind: lines on stdout, a CSV table, a page or figures."""

import csv
import io
import pathlib

from absl import logging

from loops.prediction import exhibit, figure, page
from loops.run import progress, report

# Up to so many pictures, stdout has a block for each; beyond, a line.
_MOST_BLOCKS = 20


def summarize(images):
    """Says on stdout what was found.

    Args:
      images: as in the JSON file of a prediction.
    """
    if len(images) <= _MOST_BLOCKS:
        for image in images:
            rows = [(p["name"], f"{p['probability']:.2%}") for p in image["predictions"]]
            report.summary(image["path"], rows)
        return
    firsts = [(image["path"], image["predictions"][0]) for image in images]
    rows = [(path, f"{first['probability']:7.2%}  {first['name']}") for path, first in firsts]
    report.summary(f"{len(images)} images, the most probable class of each:", rows)


def csv_table(results, most):
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


def draw(prediction, nets, chosen, most, results):
    """Writes the page of `--report`, or without one, a figure of each picture.

    Args:
      prediction: PredictConfig.
      nets: Ensemble.
      chosen: list of (path, logits [M, V, C]) of the pictures to draw.
      most: classes to show of each.
      results: as in the JSON file of the prediction; `figure` is added to the drawn images.
    """
    omitted = len(results["images"]) - len(chosen)
    if omitted:
        logging.warning("the first %d pictures are drawn, %d are not", len(chosen), omitted)
    bar = progress.Progress("draw", len(chosen))
    articles = []
    for (path, logits), image in zip(chosen, results["images"], strict=False):
        shown = exhibit.make(nets, path, logits, most)
        if prediction.report:
            articles.append(page.article(shown))
        else:
            image["figure"] = str(_figure_path(nets, path))
            report.write_bytes(image["figure"], figure.draw(shown).png())
        bar.advance(1)
    bar.close()
    if prediction.report:
        text = page.document(articles, results, omitted)
        report.write_bytes(prediction.report, text.encode("utf-8", "replace"))
        report.summary("report", [("page", prediction.report)])
    elif chosen:
        report.summary("figures", [("folder", str(_figure_path(nets, chosen[0][0]).parent))])


def _figure_path(nets, path):
    """RUN/explain/NAME.png; the folder before the name tells apart what would share it."""
    folder = pathlib.Path(nets.members[0].step_dir).absolute().parent / "explain"
    folder.mkdir(exist_ok=True)
    return folder / f"{pathlib.Path(path).absolute().parent.name}-{pathlib.Path(path).name}.png"
