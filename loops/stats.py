"""`--mode=stats`: statistics of the training pixels, which training then normalises with."""

import dataclasses
import functools
import os

from input_pipeline import source, statistics
from input_pipeline.errors import UsageError
from input_pipeline.wording import counted
from loops import image_folders
from loops.run import progress, report
from loops.step import distribution


def run(config, given):
    """Computes the statistics of a split, of train unless `--split` names another.

    Only those of train are left where training finds them.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.

    Returns:
      dict as in the JSON file.
    """
    distribution.leave_gpus_alone()
    data = image_folders.require_images(config, given, "stats")
    split = config.evaluation.split if "split" in given else "train"
    if split != "train" and "out" in given:
        raise UsageError(
            f"--out={config.export.out} with --split={split}: only the statistics of train are kept"
            " for training; write these with --json"
        )
    folder = image_folders.results_folder(config) if split == "train" else ""
    bar = functools.partial(progress.Progress, "stats")
    found = statistics.compute(source.open_split(data, split), data.reader_threads, bar)
    results = {**dataclasses.asdict(found), "dataset": data.dataset, "split": split}
    # Before anything is written: a disk that is full by now does not take the figures along.
    report.summary(f"{data.data_dir}: pixels of {split}, RGB, 0 to 255", _rows(results, folder))
    if folder:
        report.write_wanted("--out", os.path.join(folder, statistics.NAME), results)
    report.write_json_wanted(config.evaluation.json, results)
    return results


def _rows(results, folder):
    def shown(values):
        return "  ".join(f"{value:.4f}" for value in values)

    rows = [
        ("images", f"{results['num_images']}, {counted(results['num_pixels'], 'pixel')}"),
        ("mean", shown(results["mean"])),
        ("std over all pixels", shown(results["std"])),
        ("mean of the images' std", shown(results["mean_of_image_std"])),
        ("PCA eigenvalues", shown(results["pca_eigenvalues"])),
    ]
    for k, vector in enumerate(zip(*results["pca_eigenvectors"], strict=True)):
        rows.append((f"PCA vector {k + 1}", shown(vector)))
    if results["unreadable"]:
        rows.append(("left out", counted(results["unreadable"], "image") + " not decoded"))
    rows.append(("file", os.path.join(folder, statistics.NAME) if folder else "none"))
    return rows
