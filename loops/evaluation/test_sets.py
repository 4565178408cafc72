"""Several test sets of one run in one table: ImageNet-V2, A, R, Sketch, C and others."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from input_pipeline.errors import UsageError
from input_pipeline.sources import image_folders
from loops.metrics import classification, confidence_intervals

SEVERITIES = ("1", "2", "3", "4", "5")
# Folders of ImageNet-C: blur/defocus_blur/1/n01440764.
_MAX_DEPTH = 3
HEADER = ("", "images", "classes", "top-1", "95 % interval", "top-5", "among them", "95 % interval")


@dataclasses.dataclass(frozen=True)
class TestSet:
    """A folder to evaluate on.

    Attributes:
      name: for the table.
      folder: the folder.
      corruption: the corruption of ImageNet-C, or "".
    """

    name: str
    folder: str
    corruption: str = ""


def get_severities(test_set: TestSet) -> tuple[str, str]:
    """Returns the corruption and its folder, equal for all its severities; ("", "") without one."""
    if not test_set.corruption:
        return "", ""
    return test_set.corruption, os.path.dirname(test_set.folder)


def find(folder: str) -> list[TestSet]:
    """Returns the test sets in a folder: itself, or for ImageNet-C one for each severity.

    Raises:
      UsageError: there is no such folder.
    """
    if not os.path.isdir(folder):
        raise UsageError(f"--test_sets={folder}: there is no such folder")
    corruptions = _find_corruptions(pathlib.Path(folder), _MAX_DEPTH)
    name = os.path.basename(os.path.realpath(folder))
    return [
        TestSet(f"{path.name} {severity}", str(path / severity), path.name)
        for path in corruptions
        for severity in SEVERITIES
        if (path / severity).is_dir()
    ] or [TestSet(name, folder)]


def _find_corruptions(folder: pathlib.Path, depth: int) -> list[pathlib.Path]:
    """Returns the folders that contain only the folders 1 to 5 of class folders."""
    names = image_folders.list_subfolders(folder)
    if names and set(names) <= set(SEVERITIES):
        return [folder] if image_folders.list_subfolders(folder / names[0]) else []
    # Class folders are not searched: their names are WordNet ids or numbers.
    names = [name for name in names if not any(character.isdigit() for character in name)]
    if not depth:
        return []
    return [path for name in names for path in _find_corruptions(folder / name, depth - 1)]


def score_present_classes(
    probs: np.ndarray, labels: np.ndarray, ks: Sequence[int]
) -> dict[str, float | int]:
    """Scores predictions among only those classes that the test set has.

    ImageNet-A and ImageNet-R have 200 of the 1,000 classes, and are published this way.

    Args:
      probs: float64 [N, C].
      labels: int [N].
      ks: the values of k of top-k accuracy.

    Returns:
      dict of `num_present_classes` and, for each k, present_top<k> with its Wilson interval.
    """
    present = np.unique(labels)
    scores = classification.score(probs[:, present], np.searchsorted(present, labels), ks)
    kept = {k: v for k, v in scores.items() if k.startswith("top") and not k.endswith("error")}
    return {"num_present_classes": len(present)} | {f"present_{k}": v for k, v in kept.items()}


def average_severities(
    corruption: str, correct: Sequence[np.ndarray]
) -> dict[str, float | int | str]:
    """Averages the top-1 accuracy over the severities of a corruption.

    Args:
      corruption: its name.
      correct: for each severity, bool [N], whether each image is right. The severities show the
        same images, so their errors are not independent, and images are resampled.

    Returns:
      dict of name, top1, num_severities and, if all have as many images, top1_low and top1_high.
    """
    results: dict[str, float | int | str] = {
        "name": f"{corruption}, mean of {len(correct)}",
        "top1": float(np.mean([values.mean() for values in correct])),
        "num_severities": len(correct),
    }
    if len({len(values) for values in correct}) == 1:
        per_image = np.mean(correct, axis=0)[None]
        ((low, high),) = confidence_intervals.bootstrap_mean_intervals(per_image)
        if per_image.min() == per_image.max() and per_image[0, 0] in (0, 1):  # all right or wrong
            low, high = confidence_intervals.wilson(int(per_image.sum()), per_image.size)
        results |= {"top1_low": low, "top1_high": high}
    return results


def format_row(results: Mapping) -> list[str]:
    """Formats one row under `HEADER`: a test set, or a mean over severities."""
    row = [results["name"], str(results.get("num_examples", ""))]
    row.append(str(results.get("num_present_classes", "")))
    row += [f"{results['top1']:.2%}", _format_interval(results, "top1")]
    row.append(f"{results['top5']:.2%}" if "top5" in results else "")
    is_subset = results.get("is_subset", False)
    row.append(f"{results['present_top1']:.2%}" if is_subset else "")
    return [*row, _format_interval(results, "present_top1") if is_subset else ""]


def _format_interval(results: Mapping, name: str) -> str:
    if f"{name}_low" not in results:
        return ""
    return f"{results[f'{name}_low']:.2%} to {results[f'{name}_high']:.2%}"
