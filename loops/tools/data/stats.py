"""`--mode=stats`: statistics of the training pixels, which training then normalises with."""

import dataclasses
import functools
import os

from input_pipeline import pixel_statistics
from input_pipeline.errors import UsageError
from input_pipeline.sources import source
from input_pipeline.text import pluralize
from loops.config import dataset_flags
from loops.distribution import strategies
from loops.monitoring import console, progress_bar
from loops.runtime import output_files


def run(config):
    """Computes the statistics of a split, of train unless `--split` names another.

    Only those of train are left where training finds them.

    Args:
      config: Config of the command line.

    Returns:
      dict as in the JSON file.
    """
    strategies.hide_gpus()
    data = dataset_flags.resolve_data_config(config)
    split = config.evaluation.split if "split" in config.typed else "train"
    if split != "train" and "out" in config.typed:
        raise UsageError(
            f"--out={config.export.out} with --split={split}: only the statistics of train are kept"
            " for training; write these with --json"
        )
    folder = dataset_flags.resolve_results_folder(config) if split == "train" else ""
    bar = functools.partial(progress_bar.Progress, "stats")
    found = pixel_statistics.compute(source.open_split(data, split), data.reader_threads, bar)
    results = {**dataclasses.asdict(found), "dataset": data.dataset, "split": split}
    # Before anything is written: a disk that is full by now does not take the figures along.
    console.print_summary(
        f"{data.data_dir}: pixels of {split}, RGB, 0 to 255", _rows(results, folder)
    )
    if folder:
        output_files.write_flag_output(
            "--out", os.path.join(folder, pixel_statistics.FILENAME), results
        )
    output_files.write_json_output(config.evaluation.json, results)
    return results


def _rows(results, folder):
    def shown(values):
        return "  ".join(f"{value:.4f}" for value in values)

    rows = [
        ("images", f"{results['num_images']}, {pluralize(results['num_pixels'], 'pixel')}"),
        ("mean", shown(results["mean"])),
        ("std over all pixels", shown(results["std"])),
        ("mean of the images' std", shown(results["mean_of_image_std"])),
        ("PCA eigenvalues", shown(results["pca_eigenvalues"])),
    ]
    for k, vector in enumerate(zip(*results["pca_eigenvectors"], strict=True)):
        rows.append((f"PCA vector {k + 1}", shown(vector)))
    if results["unreadable"]:
        rows.append(("left out", pluralize(results["unreadable"], "image") + " not decoded"))
    rows.append(("file", os.path.join(folder, pixel_statistics.FILENAME) if folder else "none"))
    return rows
