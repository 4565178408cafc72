"""Reads logits from a file, in place of a pass over the images.

`logits_writer` documents the format. Files are not trusted: headers are checked before any array
is read, nothing is unpickled or decompressed, and memory is bounded by the size of the file.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from input_pipeline.errors import UsageError
from input_pipeline.system import npy_files
from loops.config import local_paths
from loops.metrics import classification, logits_writer

_IMAGES_AT_ONCE = 256
_METADATA_KEYS = ("class_names", "dataset", "split", "fingerprint")


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """One model's logits in a file.

    Attributes:
      facts: name of the model under `model`, and for the report `step` and `image_size`.
      views: V.
      probabilities: function from a number of views (V, or 1 for the center crop) to float64
        [N, C].
    """

    facts: dict[str, Any]
    views: int
    probabilities: Callable[[int], np.ndarray]


class LogitsFile:
    """A file of logits whose headers have been checked.

    Attributes:
      labels: int32 [N].
      names: N file names.
      facts: dict with class_names, dataset, split and fingerprint.
      models: list of StoredModel.

    Raises:
      UsageError: the file is not such a file. The message contains the reason.
    """

    labels: np.ndarray
    names: list[str]
    facts: dict[str, Any]
    models: list[StoredModel]

    def __init__(self, path: str | pathlib.Path):
        self._path = pathlib.Path(path)
        if not self._path.is_file():
            raise UsageError(f"--logits={path}: there is no such file")
        with self._convert_errors():
            self._read_metadata()

    def _read_metadata(self) -> None:
        with zipfile.ZipFile(self._path) as archive:
            meta = json.loads(
                npy_files.read_zipped(archive, "meta", np.uint8, 1).tobytes().decode()
            )
            self.labels = npy_files.read_zipped(archive, "labels", np.int32, 1)
            names = npy_files.read_zipped(archive, "names", np.bytes_, 1)
            if meta["format"] != logits_writer.FORMAT:
                raise ValueError(f"unknown format {meta['format']!r}")
            self.facts = {name: meta[name] for name in _METADATA_KEYS}
            class_names = self.facts["class_names"]
            is_list = isinstance(class_names, list)
            if not is_list or not all(isinstance(name, str) for name in class_names):
                raise ValueError("class_names is not a list of names")
            if not all(isinstance(self.facts[name], str) for name in _METADATA_KEYS[1:]):
                raise ValueError("dataset, split and fingerprint are not all text")
            total = len(self.labels)
            if not total or len(names) != total:
                raise ValueError(f"{total} labels and {len(names)} names")
            if self.labels.min() < 0 or self.labels.max() >= len(class_names):
                raise ValueError(f"a label is out of range for {len(class_names)} classes")
            self.names = [os.fsdecode(name) for name in names.tolist()]
            if not isinstance(meta["models"], list) or not meta["models"]:
                raise ValueError("no models")
            self.models = [
                self._read_model(archive, model, i) for i, model in enumerate(meta["models"])
            ]

    def _read_model(self, archive: zipfile.ZipFile, metadata: Any, number: int) -> StoredModel:
        if not isinstance(metadata, dict) or not isinstance(metadata.get("model"), str):
            raise ValueError(f"model {number} has no name")
        if not all(type(metadata.get(name)) is int for name in ("step", "image_size")):
            raise ValueError(f"model {number} has no step or no image_size")
        with npy_files.open_zipped(archive, f"logits_{number}", np.float32, 3) as opened:
            total, views, num_classes = opened.shape
        if total != len(self.labels) or num_classes != len(self.facts["class_names"]):
            raise ValueError(
                f"logits_{number} has shape {opened.shape}, which does not match the labels"
            )
        if views not in (1, 10):
            raise ValueError(f"logits_{number} has {views} views, not 1 or 10")
        return StoredModel(metadata, views, lambda crops: self._read_probabilities(number, crops))

    def _read_probabilities(self, number: int, crops: int) -> np.ndarray:
        with self._convert_errors(), zipfile.ZipFile(self._path) as archive:
            with npy_files.open_zipped(archive, f"logits_{number}", np.float32, 3) as (
                file,
                shape,
                dtype,
            ):
                probs = np.empty((shape[0], shape[2]))
                for start in range(0, shape[0], _IMAGES_AT_ONCE):
                    count = min(_IMAGES_AT_ONCE, shape[0] - start)
                    logits = npy_files.read_data(file, (count, *shape[1:]), dtype)
                    if not np.isfinite(logits).all():
                        raise ValueError(f"logits_{number} are not all finite")
                    probs[start : start + count] = mean_softmax_of_crops(logits, crops)
                file.read(1)  # zipfile compares the checksum at the end of the entry
        return probs

    @contextlib.contextmanager
    def _convert_errors(self) -> Iterator[None]:
        """Turns every error that a broken file raises into a UsageError of one line.

        The zip and npy readers raise many types (struct.error, TokenError, MemoryError, ...). All
        of them mean that the file is broken.
        """
        try:
            yield
        except KeyError as error:
            reason = f"{error.args[0]} is missing"
        except Exception as error:
            reason = str(error) or repr(error)
        else:
            return
        reason = " ".join(reason.split())[:200]
        raise UsageError(f"--logits={self._path}: not a file of --save_logits: {reason}")


def mean_softmax_of_crops(logits: np.ndarray, crops: int) -> np.ndarray:
    """Returns probabilities of all views or of the center crop: [N, V, C] to float64 [N, C].

    Args:
      logits: float32 [N, V, C].
      crops: V, or 1 for the center crop.
    """
    if crops != logits.shape[1]:
        center = classification.CENTER_CROP_INDEX
        logits = logits[:, center : center + 1]
    return classification.mean_softmax(logits)


def read_all(paths: str) -> list[LogitsFile]:
    """Reads files of logits of the same images.

    Args:
      paths: file names, separated by commas.

    Returns:
      list of LogitsFile.

    Raises:
      UsageError: a file is not valid, or the files are of different images or classes.
    """
    names = local_paths.split(paths)
    files = [LogitsFile(path) for path in names]
    first = files[0]
    for path, file in zip(names, files, strict=True):
        for name in _METADATA_KEYS:
            if file.facts[name] != first.facts[name]:
                expected, actual = (str(f.facts[name])[:60] for f in (first, file))
                raise UsageError(
                    f"--logits={path}: has {name} {actual}; the first file has {expected}"
                )
        if not np.array_equal(file.labels, first.labels) or file.names != first.names:
            raise UsageError(f"--logits={path}: its labels are not those of the first file")
    return files
