"""Finds the images of a prediction that its nets were trained on: their accuracy flatters."""

import contextlib
import os
from collections.abc import Iterable, Sequence

from input_pipeline.errors import UserError
from input_pipeline.sources import folder_splits, layouts, source
from input_pipeline.text import pluralize
from loops.checkpointing import run_folder
from loops.tools.predict import overlays


def find(paths: Sequence[str], records: Iterable[run_folder.Record]) -> set[str]:
    """Returns those of the paths that are training images of a run.

    Args:
      paths: paths of image files.
      records: the Records of the runs. A run whose images are elsewhere, or changed, has none.
    """
    real_paths = {path: os.path.realpath(path) for path in paths}
    found: set[str] = set()
    for record in records:
        data = record.config.data
        root = os.path.join(os.path.realpath(data.data_dir), "")
        if not data.data_dir or not any(path.startswith(root) for path in real_paths.values()):
            continue
        with contextlib.suppress(UserError):
            trained = set(map(os.path.realpath, _list_training_images(record)))
            found |= {path for path, real in real_paths.items() if real in trained}
    return found


def _list_training_images(record: run_folder.Record) -> list[str]:
    """Returns the paths of the training images of a run; nothing is written."""
    data = record.config.data
    if folder_splits.is_written(data.data_dir):
        written = folder_splits.list_written(data.data_dir, "train")
        return [os.path.join(data.data_dir, path) for path in written]
    layout = layouts.recognize(data.data_dir)
    kinds = {place.kind for place in layout.splits.values()} if layout else set()
    if data.dataset != "lists" and kinds != {layouts.FOLDERS}:
        return []  # images in archives are not predicted, and opening those may write an index
    split = source.open_split(data, "train", record.class_names)
    return [split.describe(index) for index in range(split.num_examples)]


def describe_accuracy(images: Sequence[dict]) -> str:
    """Returns how many images are right, and how many without those that were trained on.

    Args:
      images: `images` of the JSON results of a prediction.

    Returns:
      text as in "70 of 100 right (70.0 %)"; "" if no true class is known.
    """
    known = [image for image in images if "true_class" in image]
    if not known:
        return ""
    others = [image for image in known if image.get("split") != "train"]
    text = _count_right(known)
    if len(others) < len(known):
        text += f"; {pluralize(len(known) - len(others), 'training image')} among them"
        text += f", without them {_count_right(others)}" if others else ""
    return text


def _count_right(images: Sequence[dict]) -> str:
    right = sum(image["predictions"][0]["class"] == image["true_class"] for image in images)
    return f"{right} of {len(images)} right ({overlays.format_percent(right / len(images))})"
