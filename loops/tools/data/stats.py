"""`--mode=stats`: computes the pixel statistics that training normalizes images with."""

import dataclasses
import functools
import os
from collections.abc import Iterable
from typing import Any

from input_pipeline import pixel_statistics
from input_pipeline.errors import UsageError
from input_pipeline.sources import source
from input_pipeline.system import atomic_files
from input_pipeline.text import pluralize
from loops.config import dataset_flags
from loops.config.config import Config
from loops.distribution import strategies
from loops.monitoring import console, progress_bar
from loops.runtime import output_files


def run(config: Config) -> dict[str, Any]:
    """Computes the pixel statistics of the train split, or of another `--split`.

    Only those of the train split are written where training finds them.

    Args:
      config: config of the command line.

    Returns:
      dict as in the JSON file.

    Raises:
      UsageError: `--out` was given with another split than train.
    """
    strategies.hide_gpus()
    data = dataset_flags.resolve_data_config(config)
    split = config.evaluation.split if "split" in config.typed else "train"
    if split != "train" and "out" in config.typed:
        raise UsageError(
            f"--out={config.export.out} with --split={split}: training uses only the statistics of"
            " train; write these with --json"
        )
    folder = ""
    if split == "train":
        folder, is_writable = dataset_flags.resolve_results_folder(config)
        folder = folder if is_writable else ""
    make_bar = functools.partial(progress_bar.Progress, "stats")
    statistics = pixel_statistics.compute(
        source.open_split(data, split), data.reader_threads, make_bar
    )
    results = {**dataclasses.asdict(statistics), "dataset": data.dataset, "split": split}
    # Print first, so that the results are not lost if the disk is full.
    console.print_summary(
        f"{data.data_dir}: pixels of {split}, RGB, 0 to 255", _make_rows(results, folder)
    )
    if folder:
        path = os.path.join(folder, pixel_statistics.FILENAME)
        output_files.write_flag_output("--out", path, results, atomic_files.write_json)
    output_files.write_json_output(config.evaluation.json, results)
    return results


def _make_rows(results: dict[str, Any], folder: str) -> list[tuple[str, str]]:
    rows = [
        ("images", f"{results['num_images']}, {pluralize(results['num_pixels'], 'pixel')}"),
        ("mean", _format_numbers(results["mean"])),
        ("std over all pixels", _format_numbers(results["std"])),
        ("mean of the images' std", _format_numbers(results["mean_of_image_std"])),
        ("PCA eigenvalues", _format_numbers(results["pca_eigenvalues"])),
    ]
    for k, vector in enumerate(zip(*results["pca_eigenvectors"], strict=True), 1):
        rows.append((f"PCA vector {k}", _format_numbers(vector)))
    if results["unreadable"]:
        rows.append(("left out", pluralize(results["unreadable"], "image") + " not decoded"))
    rows.append(("file", os.path.join(folder, pixel_statistics.FILENAME) if folder else "none"))
    return rows


def _format_numbers(numbers: Iterable[float]) -> str:
    return "  ".join(f"{number:.4f}" for number in numbers)
