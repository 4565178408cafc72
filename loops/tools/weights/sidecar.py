"""A file beside an export with the sha256 of each tensor, so that a flipped bit is not believed."""

import hashlib
import json
import math
import pathlib

import numpy as np
from absl import logging

from input_pipeline.errors import DataError, UsageError


def path_for(path):
    """`PATH.sha256.json` of an exported file or folder."""
    path = pathlib.Path(path)
    return path.with_name(path.name + ".sha256.json")


def hash_tensors(tensors):
    """sha256 of each tensor's little-endian float32 bytes.

    Args:
      tensors: dict from name to array.

    Returns:
      dict from name to hexadecimal text.
    """
    return {
        name: hashlib.sha256(np.asarray(value, "<f4").tobytes()).hexdigest()
        for name, value in tensors.items()
    }


def hash_files(path):
    """sha256 of a file, or of each file of a folder by its path in there."""
    path = pathlib.Path(path)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    found = {}
    for file in files:
        name = str(file.relative_to(path)) if path.is_dir() else file.name
        with open(file, "rb") as opened:
            found[name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found


def verify(path, tensors):
    """Compares what was read back with the hashes beside a file.

    Args:
      path: the exported file or folder.
      tensors: dict from name to array, as read.

    Returns:
      "verified", or "not verified" for a file from elsewhere, which has no hashes.

    Raises:
      DataError: a tensor is not the one that was exported.
      UsageError: the file beside it holds no hashes.
    """
    beside = path_for(path)
    if not beside.exists():
        return "not verified"
    try:
        expected = json.loads(beside.read_text(encoding="utf-8"))["tensors"]
        names = set(expected)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{beside}: not a file of hashes; remove it to go on unverified") from None
    found = hash_tensors(tensors)
    if names != set(found):
        odd = sorted(map(str, names ^ set(found)))[0]
        raise DataError(f"{path}: {odd} is not both in it and in {beside.name}")
    for name, digest in found.items():
        if expected[name] != digest:
            raise DataError(f"{path}: {name} is not the tensor that was exported")
    return "verified"


_PREPROCESSING_KEY = "trained_for"


_PREPROCESSING_FIELDS = ("image_size", "mean", "std", "crop_fraction", "interpolation")


# What a file that is missing, or holds anything at all, can lead to.
_READ_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


def describe_preprocessing(data, class_names):
    """What stands in the file beside an export.

    Args:
      data: DataConfig that the net was trained with.
      class_names: by label.
    """
    return {
        **{n: getattr(data, n) for n in _PREPROCESSING_FIELDS},
        "class_names": list(class_names),
    }


def read_preprocessing(path, num_classes):
    """What an exported file was trained for.

    Args:
      path: of the file of weights.
      num_classes: that its head has.

    Returns:
      (dict of preprocessing by the names of flags and fields, class names by label); both are
      empty, which the log says, where nothing of use stands beside the file.
    """
    try:
        known = json.loads(path_for(path).read_text(encoding="utf-8"))[_PREPROCESSING_KEY]
        names = tuple(known["class_names"])
        mean, std = (tuple(map(float, known[name])) for name in ("mean", "std"))
        values = {"mean": mean, "std": std, "image_size": int(known["image_size"])}
        values["crop_fraction"] = float(known["crop_fraction"])
        values["interpolation"] = str(known["interpolation"])
        if len(names) != num_classes or not all(isinstance(name, str) for name in names):
            raise ValueError
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError
        if not all(map(math.isfinite, (*mean, *std, values["crop_fraction"]))):
            raise ValueError
    except _READ_ERRORS:
        logging.warning(
            "%s: nothing beside it says what it was trained for; image size, mean, std and crops"
            " are defaults: give --image_size and the others where they differ",
            path,
        )
        return {}, ()
    return values, names
