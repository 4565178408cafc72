"""Puts logits on disk: what one pass over the images leaves, so that no figure needs another one.

A plain `.npz` (zip of `.npy`, uncompressed), which `numpy.load` reads too: `labels` int32 [N],
`names` bytes [N] (of the files), `meta` (JSON as uint8), and `logits_<m>` float32 [N, V, C] of each
model. `logits_file` reads it.
"""

import json
import os
import pathlib
import shutil
import zipfile

import numpy as np
from numpy.lib import format as npy

from input_pipeline.errors import DataError

FORMAT = 1


class Writer:
    """Collects logits beside the file to be and puts them there at the end; a context manager.

    Args:
      path: the `.npz` file; replaced if it is there.
      split: Source of the images.
      facts: dict of `dataset` and `split`.
    """

    def __init__(self, path, split, facts):
        self._path = pathlib.Path(path)
        self._split = split
        self._facts = facts
        self._models = []
        self._parts = []

    def member(self, facts, views):
        """Begins the next model; returns the function that takes the logits of each batch.

        Args:
          facts: see `Member.facts`.
          views: V.

        Returns:
          function of float32 [b, V, C]: the images in the order of the split.
        """
        part = self._path.with_name(f".{self._path.name}-{os.getpid()}-{len(self._parts)}.npy")
        shape = (self._split.num_examples, views, len(self._split.class_names))
        self._parts.append(part)
        self._models.append(facts)
        array = npy.open_memmap(part, "w+", np.dtype("<f4"), shape)
        done = 0

        def add(logits):
            nonlocal done
            if not np.isfinite(logits).all():
                raise DataError(
                    f"--save_logits={self._path}: {facts['model']} has logits that are not finite;"
                    " evaluate it without --mixed_precision"
                )
            array[done : done + len(logits)] = logits
            done += len(logits)

        return add

    def finish(self):
        """Writes the file, whole or not at all."""
        split = self._split
        names = [split.describe(i) for i in range(split.num_examples)]
        meta = {
            "format": FORMAT,
            "models": self._models,
            "class_names": list(split.class_names),
            "fingerprint": split.fingerprint,
            **self._facts,
        }
        arrays = {
            "labels": np.asarray(split.labels, "<i4"),
            "names": np.array([name.encode() for name in names]),
            "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8),
        }
        temporary = self._path.with_name(f".{self._path.name}-{os.getpid()}")
        self._parts.append(temporary)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w") as file:
                    npy.write_array(file, array, allow_pickle=False)
            for number, part in enumerate(self._parts[:-1]):
                entry = f"logits_{number}.npy"
                with archive.open(entry, "w", force_zip64=True) as file, open(part, "rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
        os.replace(temporary, self._path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for part in self._parts:
            part.unlink(missing_ok=True)
