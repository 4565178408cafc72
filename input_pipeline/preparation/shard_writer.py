"""Writes the TFRecord shards of a split, and keeps shards that an earlier run finished."""

import concurrent.futures
import dataclasses
import io
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

from input_pipeline.config import Exif, PrepareConfig
from input_pipeline.preparation import reencode
from input_pipeline.preparation.raw_set import Item
from input_pipeline.sources import manifest, tfrecord
from input_pipeline.system import atomic_files, regular_files, typed_json
from input_pipeline.system.progress import ProgressBar

# Images loaded in parallel: enough to keep the threads busy, few enough to hold in memory.
_CHUNK = 64
_SAMPLE_SIZE = 64
_MEGABYTE = 10**6


@dataclasses.dataclass(frozen=True)
class PlannedShard:
    """A shard to write or to keep.

    Attributes:
      name: file name.
      first, last: range of its items in the split, without the last.
      metadata: metadata of the shard if an earlier run finished it, else None.
    """

    name: str
    first: int
    last: int
    metadata: dict[str, Any] | None

    def __len__(self) -> int:
        return self.last - self.first


class _FinishedShard(TypedDict):
    """The metadata of a finished shard, in `metadata_dir`."""

    name: str
    bytes: int
    sha256: str
    records: int
    lengths: list[int]
    conversions: list[dict[str, str]]
    stands_for: Any


class _StoredImage(NamedTuple):
    """The bytes to store for an item.

    Attributes:
      data: encoded image.
      reason: why it was converted, or "", see `reencode.prepare_image`.
      original_size: bytes of the original file.
    """

    data: bytes
    reason: str
    original_size: int


class ShardWriter:
    """Writes TFRecord shards into a folder.

    Args:
      pool: reads and re-encodes images.
      out: folder of the prepared data set.
      metadata_dir: folder for the metadata of finished shards.
      classes: class names by label.
      prepare_config: contains the settings of shards and re-encoding.
      exif: see `reencode.prepare_image`.

    Attributes:
      conversions: dicts with `file` and `was` of the converted files.
    """

    def __init__(
        self,
        pool: concurrent.futures.Executor,
        out: pathlib.Path,
        metadata_dir: pathlib.Path,
        classes: Sequence[str],
        prepare_config: PrepareConfig,
        exif: Exif = "ignore",
    ) -> None:
        self._pool = pool
        self._out = out
        self._metadata_dir = metadata_dir
        self._classes = classes
        self._prepare_config = prepare_config
        self._exif: Exif = exif
        self.conversions: list[dict[str, str]] = []

    def has_finished_shards(self) -> bool:
        """Returns whether an earlier run finished a shard."""
        return next(self._metadata_dir.glob("*.tfrecord.json"), None) is not None

    def plan(self, split: str, items: Sequence[Item], bar: ProgressBar) -> list[PlannedShard]:
        """Divides a split into shards, and finds the shards that are already finished.

        Args:
          split: name of the split.
          items: its images.
          bar: counts the images of planned shards.
        """
        bounds = self._compute_bounds(items)
        planned = []
        for number, (first, last) in enumerate(itertools.pairwise(bounds)):
            name = f"{split}-{number:05d}-of-{len(bounds) - 1:05d}.tfrecord"
            metadata = self._read_finished(name, _fingerprint_items(items, first, last))
            planned.append(PlannedShard(name, first, last, metadata))
            bar.advance(last - first)
        return planned

    def write_split(
        self,
        split: str,
        items: Sequence[Item],
        planned: Sequence[PlannedShard],
        bar: ProgressBar,
    ) -> dict[str, Any]:
        """Writes the unfinished shards of a split, and the index of all shards.

        Args:
          split: name of the split.
          items: its images.
          planned: its shards.
          bar: counts the written images.

        Returns:
          The manifest's entry of the split.
        """
        shards, lengths = [], []
        for shard in planned:
            metadata = shard.metadata or self._write(shard, items, bar)
            self.conversions += metadata["conversions"]
            lengths.append(np.array(metadata["lengths"], np.int64))
            temporary_keys = ("conversions", "lengths", "stands_for")
            shards.append({k: metadata[k] for k in metadata if k not in temporary_keys})
        index = self._write_index(f"{split}.index.npy", items, lengths)
        return {"images": len(items), "shards": shards, "index": index}

    def _compute_bounds(self, items: Sequence[Item]) -> list[int]:
        """Returns the first item of each shard, then the number of items.

        The result depends only on the items and the settings, so a resumed run plans the same
        shards.
        """
        target_size = self._prepare_config.shard_megabytes * _MEGABYTE
        sizes = [_size(item) for item in items]
        ends = np.cumsum(np.array(sizes) * self._estimate_size_ratio(items) + tfrecord.FRAME_BYTES)
        num_shards = max(1, round(ends[-1] / target_size))
        inner = np.searchsorted(ends, ends[-1] / num_shards * np.arange(1, num_shards)) + 1
        return [int(n) for n in np.unique([0, *inner, len(items)])]

    def _estimate_size_ratio(self, items: Sequence[Item]) -> float:
        """Estimates the ratio of stored to original bytes from a sample."""
        if not self._prepare_config.short_side:
            return 1.0
        sample = items[:: max(1, len(items) // _SAMPLE_SIZE)]
        sizes = [
            (len(image.data), image.original_size) for image in self._pool.map(self._load, sample)
        ]
        stored, original = np.sum(sizes, axis=0)
        return float(stored / original)

    def _load(self, item: Item) -> _StoredImage:
        data = item.read()
        prepare_config = self._prepare_config
        stored, reason = reencode.prepare_image(
            item.name, data, prepare_config.short_side, prepare_config.quality, self._exif
        )
        return _StoredImage(stored, reason, len(data))

    def _metadata_path(self, name: str) -> pathlib.Path:
        return self._metadata_dir / f"{name}.json"

    def _read_finished(self, name: str, fingerprint: list[Any]) -> dict[str, Any] | None:
        """Returns the metadata of a shard that an earlier run finished, or None.

        A shard with another fingerprint is written again: a replaced file may have moved the
        bounds of the shards.
        """
        path, shard = self._metadata_path(name), self._out / name
        if not (path.is_file() and shard.is_file()):
            return None
        try:
            metadata = typed_json.convert(regular_files.read_json(path), _FinishedShard, path.name)
        except (OSError, ValueError):
            return None
        if metadata["stands_for"] != fingerprint or metadata["name"] != name:
            return None
        is_intact = (
            shard.stat().st_size == metadata["bytes"]
            and atomic_files.sha256(shard) == metadata["sha256"]
        )
        return metadata if is_intact else None

    def _write(
        self, shard: PlannedShard, items: Sequence[Item], bar: ProgressBar
    ) -> dict[str, Any]:
        """Writes one of the split's shards and then its metadata, which it returns."""
        fingerprint = _fingerprint_items(items, shard.first, shard.last)
        conversions, items = [], items[shard.first : shard.last]

        def records() -> Iterator[bytes]:
            for first in range(0, len(items), _CHUNK):
                chunk = items[first : first + _CHUNK]
                for item, image in zip(chunk, self._pool.map(self._load, chunk), strict=True):
                    if image.reason:
                        conversions.append({"file": item.name, "was": image.reason})
                    class_name = self._classes[item.label]
                    yield tfrecord.serialize_example(image.data, item.label, class_name, item.name)
                    bar.advance(1)

        metadata = tfrecord.write_shard(self._out / shard.name, records())
        metadata |= {"conversions": conversions, "stands_for": fingerprint}
        atomic_files.write_bytes(self._metadata_path(shard.name), json.dumps(metadata).encode())
        return metadata

    def _write_index(
        self, name: str, items: Sequence[Item], lengths: Sequence[np.ndarray]
    ) -> dict[str, str]:
        """Writes the index of a split's records; returns the file's name and sha256.

        Args:
          name: file name.
          items: images of the split.
          lengths: bytes of each record, per shard.
        """
        index = np.empty(len(items), manifest.INDEX_ROW)
        index["length"] = np.concatenate(lengths)
        index["offset"] = np.concatenate([np.cumsum(n) - n for n in lengths])
        index["label"] = [item.label for item in items]
        path, buffer = self._out / name, io.BytesIO()
        np.save(buffer, index)
        atomic_files.write_bytes(path, buffer.getvalue())
        return {"name": name, "sha256": atomic_files.sha256(path)}


def _size(item: Item) -> int:
    return item.size if item.size >= 0 else os.path.getsize(item.path)


def _fingerprint_items(items: Sequence[Item], first: int, last: int) -> list[Any]:
    """Returns a value that changes if a shard's items change, in the types of JSON.

    It contains the number of the first item, and each item's size and modification time.
    """
    items = items[first:last]
    mtime_of_path = {path: os.stat(path).st_mtime_ns for path in {item.path for item in items}}
    return [first, *([_size(item), mtime_of_path[item.path]] for item in items)]
