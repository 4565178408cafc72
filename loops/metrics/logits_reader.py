"""Reads logits from disk, in place of a pass over the images.

See `logits_writer` for what is in a file. Whoever hands us one may mean harm: headers are checked
before anything is read, nothing is unpickled or inflated, memory is bounded by the file's size.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import zipfile

import numpy as np
from numpy.lib import format as npy

from input_pipeline.errors import UsageError
from loops.metrics import classification, logits_writer

_IMAGES_AT_ONCE = 256
_METADATA_KEYS = ("class_names", "dataset", "split", "fingerprint")


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """One model's logits in a file.

    Attributes:
      facts: dict: `model`, what it is called, and `step`, `image_size`, for the report.
      views: V.
      probabilities: function from a number of views (V, or 1 for the centre) to float64 [N, C].
    """

    facts: dict
    views: int
    probabilities: object


class LogitsFile:
    """A file of logits, its headers checked.

    Attributes:
      labels: int32 [N].
      names: N file names.
      facts: dict: class_names, dataset, split, fingerprint.
      members: list of Member.

    Raises:
      UsageError: not such a file; the message says why.
    """

    def __init__(self, path):
        self._path = pathlib.Path(path)
        if not self._path.is_file():
            raise UsageError(f"--logits={path}: there is no such file")
        with self._convert_errors():
            self._read_metadata()

    def _read_metadata(self):
        with zipfile.ZipFile(self._path) as archive:
            meta = json.loads(self._read_array(archive, "meta", np.uint8, 1).tobytes().decode())
            self.labels = self._read_array(archive, "labels", np.int32, 1)
            names = self._read_array(archive, "names", np.bytes_, 1)
            if meta["format"] != logits_writer.FORMAT:
                raise ValueError(f"format {meta['format']!r} is not known here")
            self.facts = {name: meta[name] for name in _METADATA_KEYS}
            classes = self.facts["class_names"]
            if not all(isinstance(name, str) for name in classes) or not isinstance(classes, list):
                raise ValueError("class_names is not a list of names")
            if not all(isinstance(self.facts[name], str) for name in _METADATA_KEYS[1:]):
                raise ValueError("dataset, split and fingerprint are not all text")
            total = len(self.labels)
            if not total or len(names) != total:
                raise ValueError(f"{total} labels and {len(names)} names")
            if self.labels.min() < 0 or self.labels.max() >= len(classes):
                raise ValueError(f"a label is not below the number of classes, {len(classes)}")
            self.names = [os.fsdecode(name) for name in names.tolist()]
            if not isinstance(meta["models"], list) or not meta["models"]:
                raise ValueError("no models")
            self.members = [self._read_model(archive, m, i) for i, m in enumerate(meta["models"])]

    def _read_model(self, archive, facts, number):
        if not isinstance(facts, dict) or not isinstance(facts.get("model"), str):
            raise ValueError(f"model {number} has no name")
        if not all(type(facts.get(name)) is int for name in ("step", "image_size")):
            raise ValueError(f"model {number} has no step or no image_size")
        with _open_array(archive, f"logits_{number}", np.float32, 3) as (_, shape, _):
            total, views, classes = shape
        if total != len(self.labels) or classes != len(self.facts["class_names"]):
            raise ValueError(f"logits_{number} has shape {shape}, of other images or classes")
        if views not in (1, 10):
            raise ValueError(f"logits_{number} has {views} views, not 1 or 10")
        return StoredModel(facts, views, lambda crops: self._read_probabilities(number, crops))

    def _read_probabilities(self, number, crops):
        with self._convert_errors(), zipfile.ZipFile(self._path) as archive:
            with _open_array(archive, f"logits_{number}", np.float32, 3) as (file, shape, dtype):
                found = np.empty((shape[0], shape[2]))
                for start in range(0, shape[0], _IMAGES_AT_ONCE):
                    count = min(_IMAGES_AT_ONCE, shape[0] - start)
                    logits = _read_exactly(file, (count, *shape[1:]), dtype)
                    if not np.isfinite(logits).all():
                        raise ValueError(f"logits_{number} are not all finite")
                    found[start : start + count] = mean_softmax_of_crops(logits, crops)
                file.read(1)  # at the end, where the checksum is compared
        return found

    def _read_array(self, archive, name, kind, rank):
        with _open_array(archive, name, kind, rank) as (file, shape, dtype):
            array = _read_exactly(file, shape, dtype)
            file.read(1)
        return array

    @contextlib.contextmanager
    def _convert_errors(self):
        """Turns whatever a broken file raises into one line.

        Readers of zip and npy raise what they please (struct.error, TokenError, MemoryError), and
        each of them means the same here.
        """
        try:
            yield
        except KeyError as error:
            reason = f"it lacks {error.args[0]}"
        except Exception as error:
            reason = str(error) or repr(error)
        else:
            return
        reason = " ".join(reason.split())[:200]
        raise UsageError(f"--logits={self._path}: not a file of --save_logits: {reason}")


def mean_softmax_of_crops(logits, crops):
    """Probabilities of all views, or of the centre crop alone: [N, V, C] to float64 [N, C]."""
    if crops != logits.shape[1]:
        center = classification.CENTER_CROP_INDEX
        logits = logits[:, center : center + 1]
    return classification.mean_softmax(logits)


@contextlib.contextmanager
def _open_array(archive, name, kind, rank):
    """Opens an array of a zip file behind its header; yields (file, shape, dtype).

    The entry must be exactly as long as its header says, and stored as it is: so nothing can
    grow beyond the size of the file.
    """
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise ValueError(f"{name} is compressed; save it with numpy.savez")
    with archive.open(info) as file:
        version = npy.read_magic(file)
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{name} has the npy version {version}")
        shape, fortran, dtype = readers[version](file)
        fits = dtype.kind == "S" if kind is np.bytes_ else dtype == np.dtype(kind)
        if not fits or fortran or len(shape) != rank:
            raise ValueError(f"{name} is {dtype} of shape {shape}")
        if min(shape) < 0 or info.file_size != file.tell() + math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} has {info.file_size} bytes, which are not those of {shape}")
        yield file, shape, dtype


def _read_exactly(file, shape, dtype):
    length = math.prod(shape) * dtype.itemsize
    data = file.read(length)
    if len(data) != length:
        raise ValueError("it ends too early")
    return np.frombuffer(data, dtype).reshape(shape)


def read_all(paths):
    """Reads files of logits of the same images.

    Args:
      paths: text with commas.

    Returns:
      list of LogitsFile.

    Raises:
      UsageError: one is not such a file, or they are of different images or classes.
    """
    files = [LogitsFile(path) for path in paths.split(",")]
    first = files[0]
    for path, file in zip(paths.split(","), files, strict=True):
        for name in _METADATA_KEYS:
            if file.facts[name] != first.facts[name]:
                was, found = (str(f.facts[name])[:60] for f in (first, file))
                raise UsageError(f"--logits={path}: has {name} {found}; the first file has {was}")
        if not np.array_equal(file.labels, first.labels) or file.names != first.names:
            raise UsageError(f"--logits={path}: its labels are not those of the first file")
    return files
