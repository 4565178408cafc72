"""Resolves `--image` to paths of image files."""

import glob
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping

from absl import logging

from input_pipeline.decoding import decode
from input_pipeline.errors import UsageError
from input_pipeline.sources import image_folders
from input_pipeline.system import regular_files
from input_pipeline.text import pluralize
from loops.config import local_paths


def find(text: str) -> list[str]:
    """Returns the image files that `--image` names.

    A folder stands for all files in and below it with an image extension, without those in hidden
    and system folders. A glob (`*`, `?`,
    `[...]`, `**`) stands for its matches. A name that exists is not split and not expanded.

    Args:
      text: paths separated by commas, or `-` to read one path per line from stdin.

    Raises:
      UsageError: the text is empty, a file does not exist, or a folder contains no image.
    """
    if not text:
        raise UsageError("--image is missing: name files or folders, separated by commas")
    if text == "-":
        if sys.stdin is None:
            raise UsageError("--image=-: stdin is closed; send one path per line")
        return _expand_lines(map(os.fsdecode, sys.stdin.buffer))  # names need not be UTF-8
    return [
        path for name in local_paths.split(text) for path in _expand_name(name, f"--image={name}")
    ]


def _expand_lines(lines: Iterable[str]) -> list[str]:
    """Returns the files that lines name. Each line is one path, with its commas and spaces."""
    paths = []
    for number, line in enumerate(lines, 1):
        if name := line.rstrip("\r\n"):
            paths += _expand_name(name, f"--image=-, line {number}: {name}")
    if not paths:
        raise UsageError("--image=-: stdin contains no path; send one path per line")
    return paths


def _expand_name(name: str, prefix: str) -> list[str]:
    """Returns the image files of one name; `prefix` begins error messages."""
    if os.path.isdir(name):
        files, what = _list_files(name), "the folder contains"
    elif os.path.isfile(name):
        if os.path.getsize(name) > regular_files.MAX_IMAGE_BYTES:
            raise UsageError(f"{prefix}: has {os.path.getsize(name)} bytes; it is not an image")
        return [name]
    elif glob.has_magic(name):
        matches = sorted(_find_matches(name))
        matched = [pathlib.Path(match) for match in matches if not os.path.isdir(match)]
        below = [path for m in matches if os.path.isdir(m) for path in _list_files(m)]
        # `**` matches a file and each of its folders.
        files, what = list(dict.fromkeys([*matched, *sorted(below)])), "matches"
    else:
        raise UsageError(f"{prefix}: there is no such file or folder")
    others = image_folders.count_other_files(path.name for path in files)
    if paths := [str(path) for path in files if _is_image(path)]:
        _warn_of_other_files(name, files, others)
        return paths
    pictures = image_folders.pick_pictures(others)
    more = f"; {image_folders.describe_other_files(pictures)}" if pictures else ""
    raise UsageError(f"{prefix}: {what} no image ({', '.join(decode.EXTENSIONS)}){more}")


def _find_matches(pattern: str) -> list[str]:
    """Returns the matches of a glob. Folders at its start that exist are no patterns: `a[1]/*`."""
    folder = os.path.dirname(pattern)
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return glob.glob(glob.escape(folder) + pattern[len(folder) :], recursive=True)


def _list_files(folder: str) -> list[pathlib.Path]:
    """Returns all files below a folder, sorted. Links to folders are followed.

    Files in hidden and system folders, such as the thumbnails of a NAS, are left out.
    Each folder is listed once: under its own name if it lies below `folder`, otherwise under the
    first link to it.
    """
    names = {os.path.realpath(parent): parent for parent, *_ in os.walk(folder, followlinks=False)}
    paths = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not image_folders.is_system_folder(name))
        if names.setdefault(os.path.realpath(parent), parent) != parent:
            folders.clear()
            continue
        paths += [pathlib.Path(parent, file) for file in files]
    return sorted(paths)


def _is_image(path: pathlib.Path) -> bool:
    if not image_folders.is_image_name(path.name) or not path.is_file():
        return False
    return path.stat().st_size <= regular_files.MAX_IMAGE_BYTES


def _warn_of_other_files(
    name: str, files: Iterable[pathlib.Path], others: Mapping[str, int]
) -> None:
    """Logs how many of the files are left out, such as the HEIC files of phones."""
    if others:
        logging.warning("%s: %s", name, image_folders.describe_other_files(others))
    named = [p for p in files if image_folders.is_image_name(p.name) and not _is_image(p)]
    if named:
        what = pluralize(len(named), "image")
        logging.warning("%s: %s left out, not readable, such as %s", name, what, named[0])


def replace_non_utf8(path: str | os.PathLike[str]) -> str:
    """Returns a path as valid text. Bytes that are not UTF-8 become replacement characters."""
    return os.fsencode(path).decode("utf-8", "replace")
