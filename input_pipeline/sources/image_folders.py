"""Lists the contents of image folders."""

import collections
import os
import pathlib
import stat
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import AnyStr, Generic, NamedTuple

from input_pipeline import datasets
from input_pipeline.decoding import decode
from input_pipeline.errors import DataError, UsageError
from input_pipeline.text import pluralize

# Folders that systems make: of ext4, Windows and macOS. Those of NAS devices begin with @ or #.
_SYSTEM_FOLDERS = ("lost+found", "system volume information", "__macosx")

# Formats of photographs that are not decoded: of phones, scanners and raw cameras.
_UNREAD_PICTURES = (
    *(".heic", ".heif", ".avif", ".tif", ".tiff", ".jp2", ".j2k", ".jxl", ".tga", ".psd"),
    *(".ppm", ".pgm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"),
)


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


class Entries(NamedTuple, Generic[AnyStr]):
    """Sorted names in a folder.

    Attributes:
      files: regular files. A broken link counts as one, so that the missing image is reported.
      folders: without hidden and system folders.
      irregular: pipes, devices and sockets. Opening them may wait or never end.
    """

    files: list[AnyStr]
    folders: list[AnyStr]
    irregular: list[AnyStr]


def scan(path: AnyStr | os.PathLike[AnyStr]) -> Entries[AnyStr]:
    """Lists a folder; links count as what they lead to."""
    entries: Entries[AnyStr] = Entries([], [], [])
    for entry in os.scandir(path):
        if _is_folder(entry):
            if not is_system_folder(entry.name):
                entries.folders.append(entry.name)
        elif entry.is_file(follow_symlinks=False) or not _is_irregular(entry.path):
            entries.files.append(entry.name)
        else:
            entries.irregular.append(entry.name)
    return Entries(*map(sorted, entries))


def list_files_and_folders(path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Returns the sorted names of a folder's files and of its folders, without hidden folders.

    Broken links, pipes and devices count as files: reading them fails, so they are reported.
    """
    files, folders, irregular = scan(path)
    return sorted(files + irregular), folders


def list_images(path: str | os.PathLike[str]) -> list[str]:
    """Returns the sorted names of the image files in a folder."""
    files, _ = list_files_and_folders(path)
    return [name for name in files if is_image_name(name)]


def require_no_images(root: str | os.PathLike[str]) -> None:
    """Raises UsageError if images lie in the folder itself, which therefore has no classes."""
    if list_images(root):
        raise UsageError(
            f"--data_dir={root}: has images, but no class folders; if it is one of several classes,"
            f" give --data_dir={pathlib.Path(root).absolute().parent}"
        )


def list_regular_images(path: str | os.PathLike[str]) -> list[str]:
    """Returns the sorted names of the image files in a folder, for TensorFlow to read.

    Raises:
      DataError: one is a pipe, device or socket, which TensorFlow would wait for.
    """
    entries = scan(path)
    if irregular := [name for name in entries.irregular if is_image_name(name)]:
        name = os.path.join(path, irregular[0])
        raise DataError(f"{name}: is a pipe, device or socket; remove it")
    return [name for name in entries.files if is_image_name(name)]


def require_known_classes(
    root: str | os.PathLike[str], names: Iterable[str], classes: Sequence[str]
) -> None:
    """Raises DataError if a name is not one of the classes."""
    unknown = sorted(set(names) - set(classes))
    if not unknown:
        return
    name = unknown[0]
    similar = [known for known in classes if _appearance(known) == _appearance(name)]
    if similar:
        advice = f"{name!a} looks like {similar[0]!a}: rename it"
    elif classes and any(tuple(classes) == datasets.load_wnids(name) for name in datasets.names()):
        advice = "other classes than the published ones are trained on with --dataset=folder"
    else:
        advice = "remove it, or add it to train and train again"
    raise DataError(
        f"{root}: {name} is not a known class ({len(unknown)} unknown, {len(classes)} known);"
        f" {advice}"
    )


def find_lookalikes(names: Iterable[str]) -> list[str]:
    """Describes the names that people take for the same.

    They differ in the form of their Unicode, in case, or in blanks.

    Returns:
      list of texts, each with the names of one group in ASCII.
    """
    groups = collections.defaultdict(list)
    for name in names:
        groups[_appearance(name)].append(ascii(name))
    return [" and ".join(group) for group in groups.values() if len(group) > 1]


def _appearance(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def is_image_name(name: str) -> bool:
    """Returns whether a file has the extension of an image.

    macOS writes `._NAME` files that contain metadata. They do not count as images.
    """
    return name.lower().endswith(decode.EXTENSIONS) and not name.startswith("._")


def count_other_files(names: Iterable[str]) -> dict[str, int]:
    """Counts the files without the extension of an image, by their extension in lower case.

    Hidden files are left out. "none" is no extension.
    """
    others = (name for name in names if not name.startswith(".") and not is_image_name(name))
    counts = collections.Counter(pathlib.PurePath(name).suffix.lower() for name in others)
    return {extension or "none": count for extension, count in counts.most_common()}


def pick_pictures(counts: Mapping[str, int]) -> dict[str, int]:
    """Returns the counts of `count_other_files` that are of pictures of other formats."""
    return {extension: n for extension, n in counts.items() if extension in _UNREAD_PICTURES}


def describe_other_files(counts: Mapping[str, int]) -> str:
    """Says that the files of `count_other_files` are not read, and to convert the pictures."""
    total, pictures = sum(counts.values()), pick_pictures(counts)
    verb, pronoun = ("is", "it") if total == 1 else ("are", "them")
    extensions = ", ".join(f"{count} {extension}" for extension, count in counts.items())
    text = f"{pluralize(total, 'file')} {verb} not read ({extensions})"
    if not pictures:
        return text
    which = pronoun if len(pictures) == len(counts) else " and ".join(pictures)
    return f"{text}: convert {which} to JPEG"


def is_system_folder(name: str | bytes) -> bool:
    """Returns whether a folder is hidden or made by a system, so that it is never a class."""
    name = os.fsdecode(name)
    return name.startswith((".", "@", "#", "$")) or name.lower() in _SYSTEM_FOLDERS


def _is_irregular(path: str | bytes) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:  # a broken link
        return False


def _is_folder(entry: "os.DirEntry[AnyStr]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself counts as broken
        return False
