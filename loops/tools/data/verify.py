"""`--mode=verify`: what is wrong with a data set, as a report and on one screen."""

import functools
import os

from absl import logging

from input_pipeline.errors import DataError
from input_pipeline.preparation import verify
from input_pipeline.sources import manifest
from input_pipeline.system import atomic_files
from input_pipeline.text import pluralize
from loops.config import dataset_flags
from loops.distribution import strategies
from loops.monitoring import console, progress_bar
from loops.runtime import output_files

_REPORT_FILE = "verify.json"
_MAX_SHOWN = 12


def run(config):
    """Verifies a data set as a command line says.

    Args:
      config: Config of the command line.

    Returns:
      dict: the report.

    Raises:
      DataError: images that no run could use, after the report is written.
    """
    strategies.hide_gpus()
    data = dataset_flags.resolve_data_config(config)
    folder = dataset_flags.resolve_results_folder(config)
    sums_path = os.path.join(folder, verify.CHECKSUMS_FILE)
    bar = functools.partial(progress_bar.Progress, "verify")
    results, sums = verify.verify(data, config.prepare, sums_path, bar)
    # Before anything is written: a disk that is full by now does not take the answer along.
    console.print_summary(f"{data.data_dir}: {data.dataset}", _rows(results, folder))
    output_files.write_flag_output("--out", os.path.join(folder, _REPORT_FILE), results)
    output_files.write_json_output(config.evaluation.json, results)
    prepared = manifest.exists(data.data_dir)  # has checksums of its own
    if not prepared and verify.read_checksums(sums_path) != sums:
        lines = verify.format_checksums(sums)
        output_files.write_flag_output("--out", sums_path, lines, atomic_files.write_bytes)
        logging.info("checksums are in %s; a later run compares with them", sums_path)
    if results["bad"]:
        first = next(f for f in results["findings"] if f["kind"] in verify.FATAL_KINDS)
        raise DataError(
            f"{results['bad']} of {sum(results['images'].values())} images or shards are bad, the"
            f" first is {first['file']} ({first['kind']}: {first['why']})"
        )
    return results


def _format_verdict(results):
    if results["bad"]:
        return f"{results['bad']} bad"
    if across := results["duplicates_across_splits"]:
        return f"every image decodes, but {across} are in more than one split"
    return "every image is good"


def _rows(results, folder):
    images = ", ".join(f"{n} {split}" for split, n in results["images"].items())
    of_class = results["images_of_class"]
    rows = [
        ("images", f"{images}, {results['bytes'] / 1e6:.1f} MB"),
        (
            "classes",
            f"{results['classes']}, {of_class['fewest']} to {pluralize(of_class['most'], 'image')}",
        ),
        ("formats", ", ".join(f"{n} {kind}" for kind, n in results["formats"].items())),
        ("labels", results["label_map_says"]),
    ]
    if results["numeric_folders_out_of_order"]:
        rows.append(("labels", "NOT the numbers that the folders are called: 10 sorts before 2"))
    for kind, count in results["counts"].items():
        across = results["duplicates_across_splits"] if kind == "duplicate" else 0
        rows.append((kind, f"{count}" + (f", {across} of them across splits" if across else "")))
    for finding in results["findings"][:_MAX_SHOWN]:
        rows.append((f"- {finding['kind']}", f"{finding['file']}: {finding['why']}"))
    if len(results["findings"]) > _MAX_SHOWN:
        rows.append(("", f"and {len(results['findings']) - _MAX_SHOWN} more"))
    rows.append(("verdict", _format_verdict(results)))
    rows.append(("report", os.path.join(folder, _REPORT_FILE)))
    return rows
