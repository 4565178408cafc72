"""Writes the shards of a split, keeping those that an earlier run has finished."""

import dataclasses
import io
import itertools
import json
import os

import numpy as np

from input_pipeline.preparation import reencode
from input_pipeline.sources import manifest, tfrecord
from input_pipeline.system import atomic_files

# Images in flight: enough to keep the threads busy, few enough to hold in memory.
_CHUNK = 64
_SAMPLE_SIZE = 64
_MEGABYTE = 10**6


@dataclasses.dataclass(frozen=True)
class PlannedShard:
    """A shard that is to be there in the end.

    Attributes:
      name: of its file.
      first, last: numbers of its items in the split, the last excluded.
      facts: dict of a shard that an earlier run has finished, or None.
    """

    name: str
    first: int
    last: int
    facts: dict | None

    def __len__(self):
        return self.last - self.first


class ShardWriter:
    """Writes TFRecord shards into a folder.

    Args:
      pool: concurrent.futures executor that reads and re-encodes.
      out: pathlib.Path of the set.
      facts_dir: pathlib.Path of the facts of finished shards.
      classes: names of the classes by label.
      prepare_config: PrepareConfig.

    Attributes:
      conversions: dicts `file`, `was` of the files that were not what their names say.
    """

    def __init__(self, pool, out, facts_dir, classes, prepare_config):
        self._pool = pool
        self._out = out
        self._facts_dir = facts_dir
        self._classes = classes
        self._prepare_config = prepare_config
        self.conversions = []

    def has_finished_shards(self):
        """Whether an earlier run has finished a shard."""
        return next(self._facts_dir.glob("*.tfrecord.json"), None) is not None

    def plan(self, split, items, bar):
        """Cuts a split into shards and looks which of them are there, whole.

        Args:
          split: its name.
          items: list of Items.
          bar: what counts the images that are planned for, see `Silent`.

        Returns:
          list of PlannedShards.
        """
        bounds = self._compute_bounds(items)
        planned = []
        for number, (first, last) in enumerate(itertools.pairwise(bounds)):
            name = f"{split}-{number:05d}-of-{len(bounds) - 1:05d}.tfrecord"
            facts = self._finished(name, _fingerprint_items(items, first, last))
            planned.append(PlannedShard(name, first, last, facts))
            bar.advance(last - first)
        return planned

    def write_split(self, split, items, planned, bar):
        """Writes the shards of a split that are not there yet, and the index of all.

        Args:
          split: its name.
          items: list of Items.
          planned: its PlannedShards.
          bar: what counts the images that are written, see `Silent`.

        Returns:
          dict: what the manifest says of the split.
        """
        shards, lengths = [], []
        for shard in planned:
            facts = shard.facts or self._write(shard, items, bar)
            self.conversions += facts["conversions"]
            lengths.append(np.array(facts["lengths"], np.int64))
            of_work = ("conversions", "lengths", "stands_for")
            shards.append({k: facts[k] for k in facts if k not in of_work})
        index = self._write_index(f"{split}.index.npy", items, lengths)
        return {"images": len(items), "shards": shards, "index": index}

    def _compute_bounds(self, items):
        """Numbers of the first item of each shard, and of all: a function of the items alone."""
        wanted = self._prepare_config.shard_megabytes * _MEGABYTE
        sizes = [_size(item) for item in items]
        ends = np.cumsum(np.array(sizes) * self._estimate_size_ratio(items) + tfrecord.FRAME_BYTES)
        shards = max(1, round(ends[-1] / wanted))
        inner = np.searchsorted(ends, ends[-1] / shards * np.arange(1, shards)) + 1
        return [int(n) for n in np.unique([0, *inner, len(items)])]

    def _estimate_size_ratio(self, items):
        """About how much smaller re-encoding makes the images: a ratio of bytes."""
        if not self._prepare_config.short_side:
            return 1.0
        sample = items[:: max(1, len(items) // _SAMPLE_SIZE)]
        sizes = [(len(data), before) for data, _, before in self._pool.map(self._load, sample)]
        after, before = np.sum(sizes, axis=0)
        return float(after / before)

    def _load(self, item):
        """(bytes to store, why they were converted, bytes before) of an item."""
        data = item.read()
        prepare_config = self._prepare_config
        stored, reason = reencode.prepare_image(
            item.name, data, prepare_config.short_side, prepare_config.quality
        )
        return stored, reason, len(data)

    def _facts_path(self, name):
        return self._facts_dir / f"{name}.json"

    def _finished(self, name, stands_for):
        """Facts of a shard that an earlier run has finished, or None.

        One that stood for other items, since a file has been replaced and moved the bounds, is
        written again.
        """
        path, shard = self._facts_path(name), self._out / name
        if not (path.is_file() and shard.is_file()):
            return None
        facts = json.loads(path.read_text())
        if facts.get("stands_for") != stands_for:
            return None
        same = (
            shard.stat().st_size == facts["bytes"] and atomic_files.sha256(shard) == facts["sha256"]
        )
        return facts if same else None

    def _write(self, shard, items, bar):
        """Writes a PlannedShard of the split's items and, after it, its facts."""
        stands_for = _fingerprint_items(items, shard.first, shard.last)
        conversions, items = [], items[shard.first : shard.last]

        def records():
            for first in range(0, len(items), _CHUNK):
                part = items[first : first + _CHUNK]
                for item, (data, reason, _) in zip(
                    part, self._pool.map(self._load, part), strict=True
                ):
                    if reason:
                        conversions.append({"file": item.name, "was": reason})
                    class_name = self._classes[item.label]
                    yield tfrecord.serialize_example(data, item.label, class_name, item.name)
                    bar.advance(1)

        facts = tfrecord.write_shard(self._out / shard.name, records())
        facts |= {"conversions": conversions, "stands_for": stands_for}
        atomic_files.write_bytes(self._facts_path(shard.name), json.dumps(facts).encode())
        return facts

    def _write_index(self, name, items, lengths):
        """Writes where each record lies; returns the file's name and sha256."""
        index = np.empty(len(items), manifest.INDEX_ROW)
        index["length"] = np.concatenate(lengths)
        index["offset"] = np.concatenate([np.cumsum(n) - n for n in lengths])
        index["label"] = [item.label for item in items]
        path, data = self._out / name, io.BytesIO()
        np.save(data, index)
        atomic_files.write_bytes(path, data.getvalue())
        return {"name": name, "sha256": atomic_files.sha256(path)}


def _size(item):
    return item.size if item.size >= 0 else os.path.getsize(item.path)


def _fingerprint_items(items, first, last):
    """What tells the items of a shard from those of another.

    The number of the first one, and of each its size and when its file was last written.
    """
    items = items[first:last]
    written = {path: os.stat(path).st_mtime_ns for path in {item.path for item in items}}
    return [first, *([_size(item), written[item.path]] for item in items)]
