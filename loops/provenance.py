"""What weights are used to, written beside an export and read back by an import."""

import json
import math

from absl import logging

from loops import tensor_hashes

_KEY = "trained_for"
_PREPROCESSING = ("image_size", "mean", "std", "crop_fraction", "interpolation")

# What a file that is missing, or holds anything at all, can lead to.
_NO_USE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def facts(data, class_names):
    """What stands in the file beside an export.

    Args:
      data: DataConfig that the net was trained with.
      class_names: by label.
    """
    return {**{n: getattr(data, n) for n in _PREPROCESSING}, "class_names": list(class_names)}


def read(path, num_classes):
    """What an exported file was trained for.

    Args:
      path: of the file of weights.
      num_classes: that its head has.

    Returns:
      (dict of preprocessing by the names of flags and fields, class names by label); both are
      empty, which the log says, where nothing of use stands beside the file.
    """
    try:
        known = json.loads(tensor_hashes.path_beside(path).read_text(encoding="utf-8"))[_KEY]
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
    except _NO_USE:
        logging.warning(
            "%s: nothing beside it says what it was trained for; image size, mean, std and crops"
            " are defaults: give --image_size and the others where they differ",
            path,
        )
        return {}, ()
    return values, names
