"""Prepares a data set (`--mode=prepare`): converts raw images to lists or TFRecord shards.

An interrupted run can be resumed with the same command, which keeps finished shards. Every shard
is written atomically, and the manifest is written last.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from absl import logging

from input_pipeline.config import DataConfig, Exif, PrepareConfig
from input_pipeline.decoding import decode
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import raw_layouts, reencode, shard_writer
from input_pipeline.preparation.raw_set import Item, RawSet
from input_pipeline.sources import image_folders, manifest, path_table
from input_pipeline.system import atomic_files, folder_lock, regular_files
from input_pipeline.system.progress import NoProgress, ProgressBar, ProgressFactory
from input_pipeline.threads import available_cores

_PLAN = "plan.json"
_CHUNK = 256
_MAX_STEM_BYTES = 150  # file systems allow names of 255 bytes


def prepare(
    config: DataConfig,
    prepare_config: PrepareConfig,
    out: str | os.PathLike[str],
    storage: str,
    progress: ProgressFactory = NoProgress,
    origin: str = "",
) -> dict[str, Any]:
    """Prepares a data set.

    Args:
      config: names the raw data set and its files.
      prepare_config: contains the settings of shards and re-encoding.
      out: folder to write into; it is created if it does not exist.
      storage: "tfrecord" or "lists".
      progress: creates the progress bars.
      origin: folder of the raw data set for the manifest, if it was unpacked from there.

    Returns:
      The manifest.

    Raises:
      UsageError: flags conflict, the folder contains other files, another process writes into it,
        or writing failed.
      DataError: an image that must be decoded does not decode, or a split has no image.
    """
    out = pathlib.Path(out)
    if storage == "lists" and prepare_config.short_side:
        raise UsageError(
            f"--short_side={prepare_config.short_side}: re-encoding needs --format=tfrecord"
        )
    if manifest.exists(config.data_dir):
        raise UsageError(f"--data_dir={config.data_dir}: is already a prepared data set")
    raw_layouts.require_separate_folder(config, out, is_data_set=True)
    with folder_lock.acquire(out, f"--out={out}"):
        raw = raw_layouts.find(config, prepare_config)
        for lookalikes in image_folders.find_lookalikes(raw.classes):
            logging.warning("two classes look alike: %s", lookalikes)
        for path in raw.unlabeled[:3]:
            logging.warning("skipping %s: it has no label", path)
        if not all(raw.splits.values()):
            empty = [split for split, items in raw.splits.items() if not items]
            raise DataError(f"{config.data_dir}: no labeled image in the {empty[0]} split")
        _require_no_line_breaks(raw)
        if storage == "lists":
            _require_separate_files(raw)
        plan = _make_plan(config, prepare_config, storage, raw)
        write = _write_lists if storage == "lists" else _write_shards
        threads = config.reader_threads or available_cores()
        with concurrent.futures.ThreadPoolExecutor(threads) as pool, explain_disk_errors(out):
            _start_or_resume(out, plan)
            splits, conversions = write(pool, out, raw, prepare_config, config.exif, progress)
            root = origin or config.data_dir or "."
            manifest.write(out, _make_manifest(root, plan, out, raw, splits, conversions))
        shutil.rmtree(out / manifest.UNFINISHED)
    return manifest.read(out)


@contextlib.contextmanager
def explain_disk_errors(out: pathlib.Path) -> Iterator[None]:
    """Converts errors of the disk to errors of one line."""
    advice = "fix this, then run the same command again to resume"
    try:
        yield
    except OSError as error:
        # Not `Path.resolve`, which raises RuntimeError for a link that leads to itself.
        inside = os.path.join(os.path.realpath(out), "")
        if error.filename and not os.path.realpath(error.filename).startswith(inside):
            raise DataError(f"{error.filename}: {error.strerror}; {advice}") from None
        raise UsageError(f"--out={out}: {error.strerror or error}; {advice}") from None
    except tf.errors.OpError as error:  # raised by the TFRecord writer
        raise UsageError(f"--out={out}: {decode.describe_error(error)}; {advice}") from None


def _write_shards(
    pool: concurrent.futures.Executor,
    out: pathlib.Path,
    raw: RawSet,
    prepare_config: PrepareConfig,
    exif: Exif,
    progress: ProgressFactory,
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Writes shards, indices and lists.

    Returns:
      (the manifest's entries of the splits, conversions).
    """
    writer = shard_writer.ShardWriter(
        pool, out, out / manifest.UNFINISHED, raw.classes, prepare_config, exif
    )
    num_images = sum(map(len, raw.splits.values()))
    # Hashing finished shards takes as long as reading them, so it has a progress bar.
    planning_progress = progress if writer.has_finished_shards() else NoProgress
    with contextlib.closing(planning_progress(num_images)) as bar:
        planned = {split: writer.plan(split, items, bar) for split, items in raw.splits.items()}
    num_kept = sum(len(shard) for shards in planned.values() for shard in shards if shard.metadata)
    splits = {}
    with contextlib.closing(progress(num_images, num_kept)) as bar:
        for split, items in raw.splits.items():
            splits[split] = writer.write_split(split, items, planned[split], bar)
            splits[split]["list"] = _write_list(out, split, items, {})
    return splits, writer.conversions


def _write_lists(
    pool: concurrent.futures.Executor,
    out: pathlib.Path,
    raw: RawSet,
    prepare_config: PrepareConfig,
    exif: Exif,
    progress: ProgressFactory,
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Writes only lists, and converted JPEGs for files whose name does not match their format.

    Returns:
      Like `_write_shards`.
    """
    with contextlib.closing(progress(sum(map(len, raw.splits.values())))) as bar:
        conversions = _convert_mismatched(pool, out, raw, prepare_config, exif, bar)
    replacements = {conversion["file"]: conversion["now"] for conversion in conversions}
    splits = {
        split: {"images": len(items), "list": _write_list(out, split, items, replacements)}
        for split, items in raw.splits.items()
    }
    return splits, conversions


def _require_separate_files(raw: RawSet) -> None:
    """Raises UsageError for an image inside a larger file, because a list can only name files."""
    for items in raw.splits.values():
        for item in items:
            if item.storage:
                raise UsageError(
                    f"{item.path}: lists cannot point into this file; use --format=tfrecord"
                )


def _require_no_line_breaks(raw: RawSet) -> None:
    """Raises DataError for a name with a line break, which a list cannot contain."""
    for items in raw.splits.values():
        for item in items:
            if "\n" in item.name:
                raise DataError(f"{item.path!r}: the name contains a line break; rename the file")


def _make_manifest(
    root: str,
    plan: dict[str, Any],
    out: pathlib.Path,
    raw: RawSet,
    splits: dict[str, Any],
    conversions: list[dict[str, str]],
) -> dict[str, Any]:
    kept = ("dataset", "storage", "split_sha256", "short_side", "quality")
    return {
        **{key: plan[key] for key in kept},
        # Relative to real paths, because `..` after a link leads to the parent of its target.
        "root": os.path.relpath(os.path.realpath(root), os.path.realpath(out)),
        "unlabeled": len(raw.unlabeled),
        "skipped": raw.skipped,
        "conversions": conversions,
        "splits": splits,
        "classes": list(raw.classes),
    }


def _make_plan(
    config: DataConfig, prepare_config: PrepareConfig, storage: str, raw: RawSet
) -> dict[str, Any]:
    """Returns everything that determines the bytes of the shards.

    A resumed run compares it, to detect that it would write another data set.
    """
    return {
        "dataset": config.dataset,
        "storage": storage,
        "split_sha256": raw.sha256(),
        "images": {split: len(items) for split, items in raw.splits.items()},
        "short_side": prepare_config.short_side,
        "quality": prepare_config.quality,
        "shard_megabytes": prepare_config.shard_megabytes,
        "exif": config.exif,
    }


def _start_or_resume(out: pathlib.Path, plan: dict[str, Any]) -> None:
    """Starts or resumes a data set; raises UsageError if the folder contains anything else."""
    path = out / manifest.UNFINISHED / _PLAN
    if path.parent.is_symlink():
        raise UsageError(
            f"--out={out}: {manifest.UNFINISHED} in it is a link; choose another folder"
        )
    if not path.is_file() or manifest.exists(out):
        require_new_folder(out)
    else:
        if _read_plan(path) != plan:
            raise UsageError(
                f"--out={out}: contains an unfinished data set with other images or flags; remove"
                " it, or choose another folder"
            )
        logging.info("resuming in %s", out)
        for temporary in [*out.glob(".tmp-*"), *path.parent.glob(".tmp-*")]:  # of a killed run
            temporary.unlink()
        return
    atomic_files.make_folder(path.parent)
    atomic_files.write_bytes(path, json.dumps(plan).encode())


def require_new_folder(out: pathlib.Path) -> None:
    """Raises UsageError if a folder has files, except those of a run that had just started."""
    if manifest.exists(out):
        raise UsageError(
            f"--out={out}: already contains a prepared data set; choose another folder"
        )
    if any(entry.name not in (folder_lock.NAME, manifest.UNFINISHED) for entry in out.iterdir()):
        raise UsageError(f"--out={out}: is not an empty folder; choose another folder")


def _read_plan(path: pathlib.Path) -> Any:
    """Returns the plan of an interrupted run; None if the file is not one."""
    try:
        return regular_files.read_json(path)
    except ValueError:
        return None


def _write_list(
    out: pathlib.Path, split: str, items: list[Item], replacements: dict[str, str]
) -> dict[str, str]:
    """Writes the `path label` list of a split; returns its name and sha256.

    Args:
      out: folder of the prepared data set.
      split: name of the split.
      items: its images.
      replacements: path of the converted file, by the name of the original.
    """
    names = [replacements.get(item.name, item.name) for item in items]
    lines = path_table.from_names(names, [item.label for item in items]).lines
    name = f"{split}.txt"
    atomic_files.write_bytes(out / name, lines)
    return {"name": name, "sha256": hashlib.sha256(lines).hexdigest()}


def _converted_name(name: str) -> str:
    """Returns the file name of the JPEG that replaces a file.

    The name is not a path, although the original name may be one. The hash keeps it distinct from
    other files with the same stem.
    """
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    stem = os.fsencode(pathlib.PurePath(name).stem)[:_MAX_STEM_BYTES].decode(errors="ignore")
    return f"{digest}-{stem}.jpg"


def _convert_mismatched(
    pool: concurrent.futures.Executor,
    out: pathlib.Path,
    raw: RawSet,
    prepare_config: PrepareConfig,
    exif: Exif,
    bar: ProgressBar,
) -> list[dict[str, str]]:
    """Writes an RGB JPEG for each file whose name does not match its format.

    Returns:
      dicts with `file` (name of the original), `was` (the reason) and `now` (absolute path of the
      JPEG).
    """

    def convert(item):
        data = item.read()
        reason = reencode.find_format_mismatch(item.name, data, exif)
        if reason:
            jpeg, _ = reencode.prepare_image(item.name, data, 0, prepare_config.quality, exif)
            path = out / "converted" / _converted_name(item.name)
            atomic_files.make_folder(path.parent)
            atomic_files.write_bytes(path, jpeg)
            return {"file": item.name, "was": reason, "now": str(path.resolve())}
        return None

    conversions, seen = [], set()
    for items in raw.splits.values():
        for first in range(0, len(items), _CHUNK):
            chunk = items[first : first + _CHUNK]
            # A list may name a file more than once.
            unseen = {item.name: item for item in chunk if item.name not in seen}
            seen |= unseen.keys()
            results = pool.map(convert, unseen.values())
            conversions += [conversion for conversion in results if conversion]
            bar.advance(len(chunk))
    return conversions
