"""Lists the contents of image folders."""

import os

from input_pipeline.decoding import decode
from input_pipeline.errors import DataError

# Folders that systems make: of ext4, Windows and macOS. Those of NAS devices begin with @ or #.
_SYSTEM_FOLDERS = ("lost+found", "system volume information", "__macosx")


def list_subfolders(path: str | os.PathLike[str]) -> list[str]:
    """Returns the sorted names of the folders in a folder, without hidden and system folders.

    Raises:
      DataError: a symbolic link is broken. It may have pointed to a class folder, and a missing
        class would shift the labels of the other classes.
    """
    entries = [e for e in os.scandir(path) if not is_system_folder(e.name)]
    for entry in entries:
        is_broken = entry.is_symlink() and not os.path.exists(entry.path)
        if is_broken and not is_image_name(entry.name):
            raise DataError(f"{entry.path}: is a broken symbolic link; fix or remove it")
    return sorted(e.name for e in entries if _is_folder(e))


def list_files_and_folders(path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Returns the sorted names of a folder's files and of its folders, without hidden folders.

    A broken symbolic link counts as a file: reading it fails, so the missing image is reported.
    """
    files, folders = [], []
    for entry in os.scandir(path):
        if not _is_folder(entry):
            files.append(entry.name)
        elif not is_system_folder(entry.name):
            folders.append(entry.name)
    return sorted(files), sorted(folders)


def list_images(path: str | os.PathLike[str]) -> list[str]:
    """Returns the sorted names of the image files in a folder."""
    files, _ = list_files_and_folders(path)
    return [name for name in files if is_image_name(name)]


def is_image_name(name: str) -> bool:
    """Returns whether a file has the extension of an image.

    macOS writes `._NAME` files that contain metadata. They do not count as images.
    """
    return name.lower().endswith(decode.EXTENSIONS) and not name.startswith("._")


def is_system_folder(name: str) -> bool:
    """Returns whether a folder is hidden or made by a system, so that it is never a class."""
    return name.startswith((".", "@", "#", "$")) or name.lower() in _SYSTEM_FOLDERS


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself counts as broken
        return False
