"""`--mode=predict`: what one run or several say about images."""

import dataclasses

from absl import logging

from input_pipeline.errors import DataError, UsageError
from input_pipeline.text import pluralize
from loops.config import flag_parsers
from loops.config.config import Config
from loops.metrics import classification
from loops.tools.predict import ensemble, explained_prediction, figure, image_paths, outputs, views
from loops.tools.predict.explained_prediction import top_classes

# Pictures that are drawn on a page or in figures: each takes seconds and some 300 kB.
MAX_DRAWN_IMAGES = 50


def run(config):
    """Predicts the images that `--image` names.

    Args:
      config: Config of the command line.

    Returns:
      dict as in the JSON file: `models`, `crops`, `seam_carving`, for each image, `path` and
      `predictions`, and for each file that does not decode, in `bad`, `path` and `reason`.

    Raises:
      UsageError: a command that names no image or no run that could predict it.
      DataError: images that do not decode; the others are predicted first.
    """
    paths = image_paths.find(config.prediction.image)
    nets = ensemble.load(config)
    most = min(flag_parsers.parse_top_ks(config.evaluation.top_k)[-1], len(nets.class_names))
    figures = None
    if config.prediction.explain and not config.prediction.report:
        figures = outputs.make_figure_folder(nets)
    if figures is not None or config.prediction.report:
        nets.load_float32_models()
    images, bad, chosen = [], [], []
    for path, logits in nets.predict(paths):
        if logits is None:
            bad.append(
                {
                    "path": image_paths.replace_non_utf8(path),
                    "reason": views.describe_decode_error(path),
                }
            )
            logging.error("%s does not decode: %s", bad[-1]["path"], bad[-1]["reason"])
            continue
        probabilities = classification.probabilities(logits[:, None])[0]
        found = top_classes(probabilities, nets.class_names, most)
        images.append({"path": image_paths.replace_non_utf8(path), "predictions": found})
        if len(chosen) < MAX_DRAWN_IMAGES:
            chosen.append((path, logits))
    results = {
        "models": [str(member.step_dir) for member in nets.members],
        "crops": config.evaluation.crops,
        "seam_carving": config.prediction.seam_carving,
        "images": images,
        "bad": bad,
    }
    # Before anything that may fail (a pager that is closed) or takes long, as drawing does; a
    # JSON file is written again when it names figures.
    outputs.write(config, results, most)
    outputs.summarize(images)
    if config.prediction.report:
        outputs.write_report(config.prediction.report, nets, chosen, most, results)
    elif figures is not None:
        outputs.write_figures(figures, nets, chosen, most, results)
        outputs.write(config, results, most)
    if bad:
        listed = "; ".join(f"{file['path']} ({file['reason']})" for file in bad[:5])
        more = "; ..." if len(bad) > 5 else ""
        raise DataError(
            f"{len(bad)} of {pluralize(len(paths), 'image')} not decoded: {listed}{more}"
        )
    return results


def show(ckpt, image, crops=10, seam_carving=True, top_k=5):
    """Predicts one picture and draws all there is to see of it; what `predict.ipynb` calls.

    Args:
      ckpt: run folder, RUN/best or step folder, or several separated by commas.
      image: path of an image file.
      crops: views, 10 or 1.
      seam_carving: whether the carved picture is one more view.
      top_k: how many classes to show.

    Returns:
      `figure.Figure`, which Jupyter shows.

    Raises:
      UsageError: no such run or image.
      DataError: the image does not decode.
    """
    values = {"mode": "predict", "ckpt": str(ckpt), "image": str(image), "crops": crops}
    values |= {"seam_carving": seam_carving, "top_k": str(top_k)}
    config = dataclasses.replace(Config().replace(**values), typed=frozenset(values))
    (path, *others) = image_paths.find(config.prediction.image)
    if others:
        raise UsageError(f"{image}: {len(others) + 1} images; choose one of them")
    nets = ensemble.load(config)
    ((_, logits),) = nets.predict([path])
    if logits is None:
        raise DataError(f"{path} does not decode: {views.describe_decode_error(path)}")
    most = min(top_k, len(nets.class_names))
    return figure.draw(explained_prediction.explain_image(nets, path, logits, most))
