"""What is in a folder of images."""

import os

from input_pipeline.decoding import decode
from input_pipeline.errors import DataError


def list_subfolders(path):
    """Names of the folders in a folder, sorted; hidden ones left out.

    Raises:
      DataError: a link leads nowhere. It may have been a folder, and a class that is left out
        gives other classes its label.
    """
    entries = [e for e in os.scandir(path) if not e.name.startswith(".")]
    for entry in entries:
        lost = entry.is_symlink() and not os.path.exists(entry.path)
        if lost and not is_image_name(entry.name):
            raise DataError(f"{entry.path}: a link that leads nowhere; mend or remove it")
    return sorted(e.name for e in entries if _is_folder(e))


def list_files_and_folders(path):
    """(names of all that is no folder, names of the folders), both sorted, hidden folders left out.

    A link to nowhere is a missing file.
    """
    files, folders = [], []
    for entry in os.scandir(path):
        if not _is_folder(entry):
            files.append(entry.name)
        elif not entry.name.startswith("."):
            folders.append(entry.name)
    return sorted(files), sorted(folders)


def list_images(path):
    """Names of the image files in a folder, sorted."""
    files, _ = list_files_and_folders(path)
    return [name for name in files if is_image_name(name)]


def is_image_name(name):
    """Whether a file's name says that it is an image. macOS leaves `._name` files beside some."""
    return name.lower().endswith(decode.EXTENSIONS) and not name.startswith("._")


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself is as missing as one that leads nowhere
        return False
