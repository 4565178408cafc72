"""Finds the images of a prediction that its nets were trained on: their accuracy flatters."""

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence

from input_pipeline.errors import UserError
from input_pipeline.sources import folder_splits, layouts, source
from input_pipeline.text import pluralize
from loops.checkpointing import run_folder
from loops.tools.predict import overlays


def find(paths: Sequence[str], records: Iterable[run_folder.Record]) -> set[str]:
    """Returns those of the paths that are training images of a run.

    Args:
      paths: paths of image files, or of links to them.
      records: the Records of the runs. Images that were copied since are not recognized.
    """
    real_paths = {path: os.path.realpath(path) for path in paths}
    found: set[str] = set()
    for record in records:
        root = os.path.realpath(record.config.data.data_dir)
        inside = {p: r for p, r in real_paths.items() if r.startswith(os.path.join(root, ""))}
        if record.config.data.data_dir and inside:
            with contextlib.suppress(UserError):
                is_trained = _make_test(root, record)
                found |= {path for path, real in inside.items() if is_trained(real)}
    return found


def _make_test(root: str, record: run_folder.Record) -> Callable[[str], bool]:
    """Returns the function that says whether a path below `root` is of a training image.

    Nothing is written, and no class folder is listed: ILSVRC has 1.3 million images.
    """
    if folder_splits.is_written(root):
        written = folder_splits.list_written(root, "train")
        return {os.path.join(root, path) for path in written}.__contains__
    if record.config.data.dataset == "lists":
        split = source.open_split(record.config.data, "train", record.class_names)
        return {os.path.realpath(split.describe(i)) for i in range(split.num_examples)}.__contains__
    layout = layouts.recognize(root)
    place = layout.splits.get("train") if layout else None
    if place is None or place.kind != layouts.FOLDERS:
        return lambda path: False
    folders = {os.path.realpath(place.folder / name) for name in record.class_names}
    return lambda path: os.path.dirname(path) in folders


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
