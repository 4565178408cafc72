"""Puts logits on disk: what one pass over the images leaves, so that no figure needs another one.

A plain `.npz` (zip of `.npy`, uncompressed), which `numpy.load` reads too: `labels` int32 [N],
`names` bytes [N] (of the files), `meta` (JSON as uint8), and `logits_<m>` float32 [N, V, C] of each
model. `logits_file` reads it.
"""

import contextlib
import json
import os
import pathlib
import zipfile

import numpy as np
from numpy.lib import format as npy

from input_pipeline.errors import DataError, UsageError

FORMAT = 1


class Writer:
    """Writes a file of logits as they come; a context manager that leaves a whole file or none.

    Args:
      path: the `.npz` file; replaced if it is there.
      split: Source of the images.
      facts: dict of `dataset` and `split`.
    """

    def __init__(self, path, split, facts):
        self._path = pathlib.Path(path)
        self._temporary = self._path.parent / f".{self._path.name}-{os.getpid()}"
        self._split = split
        self._facts = facts
        self._models = []
        self._archive = self._entry = None

    def begin_model(self, facts, views):
        """Begins the next model; returns the function that takes the logits of each batch.

        Args:
          facts: see `logits_file.Member.facts`.
          views: V.

        Returns:
          function of float32 [b, V, C]: the images in the order of the split.

        Raises:
          UsageError: the disk is full or fails.
        """
        with self._convert_errors():
            if self._archive is None:
                self._archive = zipfile.ZipFile(self._temporary, "w", zipfile.ZIP_STORED)
            self._close_entry()
            name = f"logits_{len(self._models)}.npy"
            self._entry = self._archive.open(name, "w", force_zip64=True)
            shape = (self._split.num_examples, views, len(self._split.class_names))
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(self._entry, header)
        self._models.append(facts)

        def add(logits):
            if not np.isfinite(logits).all():
                raise DataError(
                    f"--save_logits={self._path}: {facts['model']} has logits that are not finite;"
                    " evaluate it without --mixed_precision"
                )
            with self._convert_errors():
                self._entry.write(np.ascontiguousarray(logits, "<f4").tobytes())

        return add

    def finish(self):
        """Adds what the logits are of and gives the file its name.

        Raises:
          UsageError: the disk is full or fails.
        """
        split = self._split
        meta = {
            "format": FORMAT,
            "models": self._models,
            "class_names": list(split.class_names),
            "fingerprint": split.fingerprint,
            **self._facts,
        }
        names = [os.fsencode(split.describe(i)) for i in range(split.num_examples)]
        arrays = {
            "labels": np.asarray(split.labels, "<i4"),
            "names": np.array(names),
            "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8),
        }
        with self._convert_errors():
            self._close_entry()
            for name, array in arrays.items():
                with self._archive.open(f"{name}.npy", "w") as file:
                    npy.write_array(file, array, allow_pickle=False)
            self._archive.close()
            os.replace(self._temporary, self._path)

    def _close_entry(self):
        if self._entry is not None:
            self._entry.close()
        self._entry = None

    @contextlib.contextmanager
    def _convert_errors(self):
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"--save_logits={self._path}: could not be written ({error.strerror or error})"
            ) from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._archive is not None:
            with contextlib.suppress(OSError, ValueError):
                self._close_entry()
                self._archive.close()
            self._archive.fp = None  # or it tries again, and complains, when it is collected
        self._temporary.unlink(missing_ok=True)
