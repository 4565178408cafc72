"""`--mode=verify`: checks every image of a data set, writes a report and prints a summary."""

import functools
import os
from typing import Any

from absl import logging

from input_pipeline import datasets
from input_pipeline.errors import DataError
from input_pipeline.preparation import verify
from input_pipeline.sources import image_folders, manifest
from input_pipeline.system import atomic_files
from input_pipeline.text import pluralize
from loops.config import dataset_flags
from loops.config.config import Config
from loops.distribution import strategies
from loops.monitoring import console, progress_bar
from loops.runtime import output_files

_REPORT_FILE = "verify.json"
_MAX_FINDINGS_SHOWN = 12


def run(config: Config) -> dict[str, Any]:
    """Verifies a data set and returns the report.

    Args:
      config: config of the command line.

    Raises:
      DataError: some images cannot be used. The report is written first.
    """
    strategies.hide_gpus()
    data = dataset_flags.resolve_data_config(config)
    folder, is_writable = dataset_flags.resolve_results_folder(config)
    checksums_path = os.path.join(folder, verify.CHECKSUMS_FILE)
    make_bar = functools.partial(progress_bar.Progress, "verify")
    report, checksums = verify.verify(data, config.prepare, checksums_path, make_bar)
    # Print first, so that the report is not lost if the disk is full.
    console.print_summary(
        f"{data.data_dir}: {data.dataset}", _make_rows(report, folder if is_writable else "")
    )
    if is_writable:
        report_path = os.path.join(folder, _REPORT_FILE)
        output_files.write_flag_output("--out", report_path, report, atomic_files.write_json)
    output_files.write_json_output(config.evaluation.json, report)
    has_checksums = manifest.exists(data.data_dir)  # those of the shards
    if is_writable and not has_checksums and verify.read_checksums(checksums_path) != checksums:
        lines = verify.format_checksums(checksums)
        output_files.write_flag_output("--out", checksums_path, lines, atomic_files.write_bytes)
        logging.info("wrote checksums to %s; the next run compares with them", checksums_path)
    if report["bad"]:
        first = next(f for f in report["findings"] if f["kind"] in verify.FATAL_KINDS)
        raise DataError(
            f"{report['bad']} of {sum(report['images'].values())} images or shards are bad, the"
            f" first is {first['file']} ({first['kind']}: {first['why']})"
        )
    if empty := [split for split, count in report["images"].items() if not count]:
        raise DataError(
            f"--data_dir={data.data_dir}: the {empty[0]} split has no labeled image; put its images"
            " into class folders, or remove it"
        )
    return report


def _format_verdict(report: dict[str, Any]) -> str:
    good, unread = "every image is good", ""
    unlabeled = report["counts"].get("unlabeled", 0)
    pictures = image_folders.pick_pictures(report["skipped"])
    if unlabeled or pictures:
        count = sum(report["images"].values())
        good = f"{pluralize(count, 'image')} {'is' if count == 1 else 'are'} good"
    if unlabeled:
        unread = f"; {pluralize(unlabeled, 'image')} without a label cannot be used"
    if pictures:
        unread += f"; {image_folders.describe_other_files(pictures)}"
    if report["bad"]:
        good = f"{report['bad']} bad"
    elif duplicates := report["duplicates_across_splits"]:
        good = f"every image decodes, but {duplicates} are in more than one split"
    elif report["missing"]:
        good += ", but see what is missing"
    return good + unread


def _choose_image_size(short_side: int) -> int:
    """Returns four fifths of a short side in pixels, rounded down to 32, 64 and so on up to 224."""
    return min(max(short_side * 4 // 5 // 32, 1), 7) * 32


def _make_rows(report: dict[str, Any], folder: str) -> list[tuple[str, str]]:
    images = ", ".join(f"{count} {split}" for split, count in report["images"].items())
    per_class = report["images_of_class"]
    most = pluralize(per_class["most"], "image")
    is_published = bool(datasets.get(report["dataset"]).class_table)
    formats = ", ".join(f"{count} {name}" for name, count in report["formats"].items())
    rows = [
        ("images", f"{images}, {report['bytes'] / 1e6:.1f} MB"),
        ("classes", f"{report['classes']}, {per_class['fewest']} to {most}"),
        ("formats", formats),
        ("labels", report["label_map_says"]),
    ]
    if sides := report["short_side"]:
        text = f"{sides['smallest']} to {sides['largest']} px, median {sides['median']}"
        if not is_published:
            text += f"; train with --image_size={_choose_image_size(sides['median'])}"
        rows.append(("short side", text))
    if turned := report["turned_by_exif"]:
        advice = "" if is_published else "; train with --exif=apply, which turns them upright"
        rows.append(("turned", f"{pluralize(turned, 'image')} by EXIF orientation{advice}"))
    if report["numeric_folders_out_of_order"]:
        rows.append(("labels", "NOT the numbers in the folder names, because 10 sorts before 2"))
    if report["skipped"]:
        rows.append(("other files", image_folders.describe_other_files(report["skipped"])))
    rows += [("missing", text) for text in report["missing"]]
    rows += [("look alike", text) for text in report["lookalikes"]]
    for kind, count in report["counts"].items():
        duplicates = report["duplicates_across_splits"] if kind == "duplicate" else 0
        across = f", {duplicates} of them across splits" if duplicates else ""
        rows.append((kind, f"{count}{across}"))
    for finding in report["findings"][:_MAX_FINDINGS_SHOWN]:
        rows.append((f"- {finding['kind']}", f"{finding['file']}: {finding['why']}"))
    if len(report["findings"]) > _MAX_FINDINGS_SHOWN:
        rows.append(("", f"and {len(report['findings']) - _MAX_FINDINGS_SHOWN} more"))
    rows.append(("verdict", _format_verdict(report)))
    rows.append(("report", os.path.join(folder, _REPORT_FILE) if folder else "none"))
    return rows
