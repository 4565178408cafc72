"""Writes the logits of an evaluation to a file, so that metrics need no second pass.

The file is an uncompressed `.npz` (a zip archive of `.npy`), which `numpy.load` also reads:

  labels: int32 [N].
  names: bytes [N], file names of the images.
  meta: JSON as uint8.
  logits_<m>: float32 [N, V, C] of model m.

`logits_reader` reads it.
"""

import contextlib
import json
import os
import pathlib
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
from numpy.lib import format as npy

from input_pipeline.errors import DataError, UsageError
from input_pipeline.system import atomic_files

if TYPE_CHECKING:  # it imports TensorFlow
    from input_pipeline.sources.source import Source

FORMAT = 1


class _UnfinishedError(Exception):
    """The file was not finished."""


class Writer:
    """Writes a file of logits batch by batch.

    Use it as a context manager. The file appears under its name only after `finish`.

    Args:
      path: the `.npz` file. An existing file is replaced.
      split: Source of the images.
      metadata: names of the data set and of the split, under `dataset` and `split`.
    """

    def __init__(self, path: str | pathlib.Path, split: "Source", metadata: Mapping[str, str]):
        self._path = pathlib.Path(path)
        self._stack = contextlib.ExitStack()
        self._split = split
        self._metadata = metadata
        self._models = []
        self._archive: zipfile.ZipFile | None = None
        self._entry: IO[bytes] | None = None

    def begin_model(self, metadata: Mapping[str, Any], views: int) -> Callable[[np.ndarray], None]:
        """Begins the next model and returns a function that appends a batch of its logits.

        Args:
          metadata: see `logits_reader.StoredModel.facts`.
          views: V.

        Returns:
          function of float32 [b, V, C]. Call it in the order of the split.

        Raises:
          UsageError: the disk is full or fails.
        """
        with self._convert_errors():
            if self._archive is None:
                file = self._stack.enter_context(atomic_files.replacing(self._path))
                self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
            self._close_entry()
            name = f"logits_{len(self._models)}.npy"
            self._entry = self._archive.open(name, "w", force_zip64=True)
            shape = (self._split.num_examples, views, len(self._split.class_names))
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(self._entry, header)
        self._models.append(metadata)

        def append(logits: np.ndarray) -> None:
            if not np.isfinite(logits).all():
                raise DataError(
                    f"--save_logits={self._path}: the logits of {metadata['model']} are not finite;"
                    " evaluate it without --mixed_precision"
                )
            with self._convert_errors():
                self._entry.write(np.ascontiguousarray(logits, "<f4").tobytes())

        return append

    def finish(self) -> None:
        """Writes labels, names and metadata, and gives the file its name.

        Raises:
          UsageError: the disk is full or fails.
        """
        split = self._split
        meta = {
            "format": FORMAT,
            "models": self._models,
            "class_names": list(split.class_names),
            "fingerprint": split.fingerprint,
            **self._metadata,
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
            self._stack.close()

    def _close_entry(self) -> None:
        if self._entry is not None:
            self._entry.close()
        self._entry = None

    @contextlib.contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"--save_logits={self._path}: could not be written ({error.strerror or error})"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        if self._archive is not None:
            with contextlib.suppress(OSError, ValueError):
                self._close_entry()
                self._archive.close()
            # Otherwise the archive tries to close again, and logs an error, on deletion.
            self._archive.fp = None
        # Removes the temporary file, unless `finish` has given it its name.
        with contextlib.suppress(OSError, _UnfinishedError), self._stack:
            raise _UnfinishedError
