"""What is in a folder of images."""

import os

from input_pipeline import decode


def subfolders(path):
    """Names of the folders in a folder, sorted; hidden ones left out."""
    return sorted(e.name for e in os.scandir(path) if _is_folder(e) and not e.name.startswith("."))


def file_names(path):
    """Names of all that is no folder, sorted; a link to nowhere is a missing file."""
    return sorted(e.name for e in os.scandir(path) if not _is_folder(e))


def image_names(path):
    """Names of the image files in a folder, sorted."""
    return [name for name in file_names(path) if is_image_name(name)]


def is_image_name(name):
    """Whether a file's name says that it is an image. macOS leaves `._name` files beside some."""
    return name.lower().endswith(decode.EXTENSIONS) and not name.startswith("._")


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself is as missing as one that leads nowhere
        return False
