"""`--mode=prepare`: a raw data set becomes lists, or TFRecord shards, with a manifest.

A killed run is continued by the same command: finished shards are kept. A shard is written under
another name and renamed when it is whole and on the disk; the manifest comes last.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import shutil

import tensorflow as tf
from absl import logging

from input_pipeline.decoding import decode
from input_pipeline.errors import DataError, UsageError
from input_pipeline.preparation import raw_layouts, reencode, shard_writer
from input_pipeline.sources import manifest, path_table
from input_pipeline.system import atomic_files, folder_lock
from input_pipeline.system.progress import NoProgress
from input_pipeline.threads import available_cores

# The plan and the facts of finished shards, until the manifest holds them all.
_UNFINISHED = ".unfinished"
_PLAN = "plan.json"
_CHUNK = 256
_MAX_STEM_BYTES = 150  # bytes; file systems take names of 255


def prepare(config, prepare_config, out, storage, progress=NoProgress):
    """Prepares a data set.

    Args:
      config: DataConfig of the raw set.
      prepare_config: PrepareConfig.
      out: folder to write into; made if it is not there.
      storage: "tfrecord" or "lists".
      progress: function from the numbers of images and of those done before to what counts them,
        as `Silent`.

    Returns:
      dict: the manifest.

    Raises:
      UsageError: flags that do not go together, a folder that holds something else or that
        another process writes into.
      DataError: an image that does not decode where it has to be, or no image.
    """
    out = pathlib.Path(out)
    if storage == "lists" and prepare_config.short_side:
        raise UsageError("--short_side re-encodes: that needs --format=tfrecord")
    if manifest.exists(config.data_dir):
        raise UsageError(f"--data_dir={config.data_dir}: this set is prepared already")
    _require_separate_folder(config, out)
    with folder_lock.acquire(out, f"--out={out}"):
        raw = raw_layouts.find(config, prepare_config)
        for path in raw.unlabelled[:3]:
            logging.warning("%s has no label and is left out", path)
        if not all(raw.splits.values()):
            empty = [split for split, items in raw.splits.items() if not items]
            raise DataError(f"{config.data_dir}: no labelled image in the {empty[0]} split")
        _require_no_line_breaks(raw)
        if storage == "lists":
            _require_no_tar_files(raw)
        plan = _make_plan(config, prepare_config, storage, raw)
        write = _write_lists if storage == "lists" else _write_shards
        threads = config.reader_threads or available_cores()
        with concurrent.futures.ThreadPoolExecutor(threads) as pool, _explain_disk_errors(out):
            _start_or_resume(out, plan)
            splits, conversions = write(pool, out, raw, prepare_config, progress)
            manifest.write(out, _make_manifest(config, plan, out, raw, splits, conversions))
        shutil.rmtree(out / _UNFINISHED)
    return manifest.read(out)


@contextlib.contextmanager
def _explain_disk_errors(out):
    """Turns what disks do into one line."""
    again = "the same command goes on from here"
    try:
        yield
    except OSError as error:
        if error.filename and out.resolve() not in pathlib.Path(error.filename).resolve().parents:
            raise DataError(f"{error.filename}: {error.strerror}; mend it, {again}") from None
        raise UsageError(f"--out={out}: {error.strerror or error}; mend it, {again}") from None
    except tf.errors.OpError as error:  # of the writer of records
        raise UsageError(f"--out={out}: {decode.describe_error(error)}; mend it, {again}") from None


def _write_shards(pool, out, raw, prepare_config, progress):
    """Writes shards, their indices and lists; returns what the manifest says of splits, and the
    conversions."""
    writer = shard_writer.ShardWriter(pool, out, out / _UNFINISHED, raw.classes, prepare_config)
    total = sum(map(len, raw.splits.values()))
    # The sha256 of a shard takes as long as reading it.
    with contextlib.closing(
        (progress if writer.has_finished_shards() else NoProgress)(total)
    ) as bar:
        planned = {split: writer.plan(split, items, bar) for split, items in raw.splits.items()}
    kept = sum(len(shard) for shards in planned.values() for shard in shards if shard.facts)
    splits = {}
    with contextlib.closing(progress(total, kept)) as bar:
        for split, items in raw.splits.items():
            splits[split] = writer.write_split(split, items, planned[split], bar)
            splits[split]["list"] = _write_list(out, split, items, {})
    return splits, writer.conversions


def _write_lists(pool, out, raw, prepare_config, progress):
    """As `_write_shards`, lists alone, and JPEGs beside them for what is not what it says."""
    with contextlib.closing(progress(sum(map(len, raw.splits.values())))) as bar:
        conversions, lists = _convert_mismatched(pool, out, raw, prepare_config, bar)
    splits = {
        split: {"images": len(items), "list": _write_list(out, split, items, lists)}
        for split, items in raw.splits.items()
    }
    return splits, conversions


def _require_no_tar_files(raw):
    """Raises UsageError for images in a tar file, which no line of a list can point into."""
    for items in raw.splits.values():
        for item in items:
            if item.size >= 0:
                raise UsageError(
                    f"{item.path}: lists cannot point into a tar file; use --format=tfrecord"
                )


def _require_no_line_breaks(raw):
    """Raises DataError for a name that no line of a list can hold."""
    for items in raw.splits.values():
        for item in items:
            if "\n" in item.name:
                raise DataError(f"{item.path!r}: a line break in a file's name; rename it")


def _make_manifest(config, plan, out, raw, splits, conversions):
    """What the manifest says."""
    kept = ("dataset", "storage", "split_sha256", "short_side", "quality")
    return {
        **{key: plan[key] for key in kept},
        # Between real paths: `..` of a link is not where the link lies.
        "root": os.path.relpath(os.path.realpath(config.data_dir or "."), os.path.realpath(out)),
        "unlabelled": len(raw.unlabelled),
        "conversions": conversions,
        "splits": splits,
        "classes": list(raw.classes),
    }


def _make_plan(config, prepare_config, storage, raw):
    """What decides the bytes of every shard, so that a continued run can tell its own."""
    return {
        "dataset": config.dataset,
        "storage": storage,
        "split_sha256": raw.sha256(),
        "images": {split: len(items) for split, items in raw.splits.items()},
        "short_side": prepare_config.short_side,
        "quality": prepare_config.quality,
        "shard_megabytes": prepare_config.shard_megabytes,
    }


def _require_separate_folder(config, out):
    """Raises UsageError where the new folder would be taken for one of the classes."""
    if config.dataset == "lists":
        return
    root = pathlib.Path(config.data_dir)
    homes = [root / name for name in raw_layouts.SPLIT_FOLDERS if (root / name).is_dir()] or [root]
    if out.resolve().parent in [home.resolve() for home in homes]:
        raise UsageError(f"--out={out}: lies among the class folders; name a folder elsewhere")


def _start_or_resume(out, plan):
    """Starts or continues a set in `out`; UsageError where it holds anything else."""
    path = out / _UNFINISHED / _PLAN
    if manifest.exists(out):
        raise UsageError(f"--out={out}: holds a prepared set already; name another folder")
    if path.is_file():
        if json.loads(path.read_text()) != plan:
            raise UsageError(
                f"--out={out}: holds the beginning of another set (other images or other flags);"
                " remove it, or name another folder"
            )
        logging.info("continuing in %s", out)
        for left in [*out.glob(".tmp-*"), *path.parent.glob(".tmp-*")]:  # of a killed run
            left.unlink()
        return
    # Without a plan nothing has begun: a disk was full, or the process ended, just before it.
    if any(other.name not in (folder_lock.NAME, _UNFINISHED) for other in out.iterdir()):
        raise UsageError(f"--out={out}: is not an empty folder; name another one")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_bytes(path, json.dumps(plan).encode())


def _write_list(out, split, items, converted):
    """Writes the `path label` list of a split; returns its name and sha256."""
    names = [converted.get(item.name, item.name) for item in items]
    lines = path_table.from_names(names, [item.label for item in items]).lines
    name = f"{split}.txt"
    atomic_files.write_bytes(out / name, lines)
    return {"name": name, "sha256": hashlib.sha256(lines).hexdigest()}


def _converted_name(name):
    """Name of the JPEG that replaces a file: neither a path, as the names in a list may be, nor
    that of another file with the same stem."""
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    stem = os.fsencode(pathlib.PurePath(name).stem)[:_MAX_STEM_BYTES].decode(errors="ignore")
    return f"{digest}-{stem}.jpg"


def _convert_mismatched(pool, out, raw, prepare_config, bar):
    """For lists: writes an RGB JPEG beside them for each file that is not what its name says.

    Returns:
      (conversions, dict from a file's name to the absolute path of its replacement).
    """

    def convert(item):
        data = item.read()
        reason = reencode.find_format_mismatch(item.name, data)
        if reason:
            jpeg, _ = reencode.prepare_image(item.name, data, 0, prepare_config.quality)
            path = out / "converted" / _converted_name(item.name)
            path.parent.mkdir(exist_ok=True)
            atomic_files.write_bytes(path, jpeg)
            return {"file": item.name, "was": reason, "now": str(path.resolve())}
        return None

    conversions, looked_at = [], set()
    for items in raw.splits.values():
        for first in range(0, len(items), _CHUNK):
            part = items[first : first + _CHUNK]
            # A list may name a file more than once.
            fresh = {item.name: item for item in part if item.name not in looked_at}
            looked_at |= fresh.keys()
            conversions += [found for found in pool.map(convert, fresh.values()) if found]
            bar.advance(len(part))
    return conversions, {c["file"]: c["now"] for c in conversions}
