"""The sidecar file of an export: hashes of its tensors, and the preprocessing of its net.

An import verifies the hashes, so that a damaged file is not used.
"""

import hashlib
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from input_pipeline.config import PREPROCESSING_FIELDS, DataConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.system import atomic_files, regular_files, typed_json

_PREPROCESSING_KEY = "trained_for"
# Errors that a missing or malformed file may raise.
_READ_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError)


def path_for(path: str | pathlib.Path) -> pathlib.Path:
    """Returns `PATH.sha256.json` for an exported file or folder."""
    path = pathlib.Path(path)
    return path.with_name(path.name + ".sha256.json")


def hash_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns the sha256 of each tensor's little-endian float32 bytes in hexadecimal, by name."""
    return {
        name: hashlib.sha256(np.asarray(value, "<f4").tobytes()).hexdigest()
        for name, value in tensors.items()
    }


def hash_files(path: str | pathlib.Path) -> dict[str, str]:
    """Returns the sha256 of a file by its name, or of each file in a folder by relative path."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return {path.name: atomic_files.sha256(path)}
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return {str(file.relative_to(path)): atomic_files.sha256(file) for file in files}


def verify(path: str | pathlib.Path, tensors: Mapping[str, np.ndarray]) -> str:
    """Compares tensors that were read from an export with the hashes in its sidecar.

    Args:
      path: the exported file or folder.
      tensors: the tensors by name.

    Returns:
      "verified", or "not verified" for a file without a sidecar.

    Raises:
      DataError: a tensor differs from the exported one, is missing, or was added.
      UsageError: the sidecar contains no hashes.
    """
    sidecar = path_for(path)
    if not os.path.lexists(sidecar):
        return "not verified"
    try:
        content = typed_json.convert(regular_files.read_json(sidecar), dict[str, Any], "it")
        expected = typed_json.convert(content.get("tensors"), dict[str, str], "tensors")
        names = set(expected)
    except (OSError, ValueError):
        raise UsageError(
            f"{sidecar}: not a file of hashes; remove it to continue without verification"
        ) from None
    actual = hash_tensors(tensors)
    if names != set(actual):
        name = sorted(map(str, names ^ set(actual)))[0]
        raise DataError(f"{path}: {name} is in only one of this file and {sidecar.name}")
    for name, digest in actual.items():
        if expected[name] != digest:
            raise DataError(f"{path}: {name} differs from the exported tensor")
    return "verified"


def describe_preprocessing(data: DataConfig, class_names: Sequence[str]) -> dict[str, Any]:
    """Returns the preprocessing and the classes to store in the sidecar.

    Args:
      data: DataConfig that the net was trained with.
      class_names: name of each class, by label.
    """
    return {
        **{name: getattr(data, name) for name in PREPROCESSING_FIELDS},
        "class_names": list(class_names),
    }


def read_preprocessing(
    path: str | pathlib.Path, num_classes: int
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Reads the preprocessing of an exported net from its sidecar.

    Args:
      path: path of the file of weights.
      num_classes: number of outputs of the classifier.

    Returns:
      (values of the preprocessing flags by name, class names by label). Both are empty, with a
      warning, if the sidecar is missing or not valid.
    """
    try:
        stored = regular_files.read_json(path_for(path))[_PREPROCESSING_KEY]
        class_names = tuple(stored["class_names"])
        mean, std = (tuple(map(float, stored[name])) for name in ("mean", "std"))
        values: dict[str, Any] = {"mean": mean, "std": std}
        values["image_size"] = int(stored["image_size"])
        values["crop_fraction"] = float(stored["crop_fraction"])
        values["interpolation"] = str(stored["interpolation"])
        # Exports of earlier versions do not have it.
        values["torchvision_rounding"] = stored.get("torchvision_rounding", False) is True
        class_names = typed_json.convert(class_names, tuple[str, ...], "class_names")
        if len(class_names) != num_classes:
            raise ValueError
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError
        if not all(map(math.isfinite, (*mean, *std, values["crop_fraction"]))):
            raise ValueError
    except _READ_ERRORS:
        logging.warning(
            "%s: no valid .sha256.json file with its preprocessing; using the defaults of image"
            " size, mean, std and crop: set --image_size and the others if they differ",
            path,
        )
        return {}, ()
    return values, class_names
