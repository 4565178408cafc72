"""Which image files `--image` names."""

import glob
import os
import pathlib
import sys

from input_pipeline.decoding import decode
from input_pipeline.errors import UsageError
from input_pipeline.sources import image_folders


def find(text):
    """The image files that `--image` names.

    A folder stands for all files in it and below it with an image's extension, a glob (`*`, `?`,
    `[...]`, `**`) for what it matches. A name that exists is never taken for a glob or a list.

    Args:
      text: paths separated by commas; `-` reads one path a line from stdin.

    Returns:
      list of str.

    Raises:
      UsageError: nothing is named, or there is no such file, or no image in a folder.
    """
    if not text:
        raise UsageError("--image is missing: name files or folders, separated by commas")
    if text == "-":
        return _expand_lines(map(os.fsdecode, sys.stdin.buffer))  # names need not be UTF-8
    names = [text] if os.path.exists(text) else text.split(",")
    return [path for name in names for path in _expand_name(name, f"--image={name}")]


def _expand_lines(lines):
    """The files that lines name, each a path of its own: commas and spaces belong to it."""
    paths = []
    for number, line in enumerate(lines, 1):
        if name := line.rstrip("\r\n"):
            paths += _expand_name(name, f"--image=-, line {number}: {name}")
    if not paths:
        raise UsageError("--image=-: stdin names no file; send one path a line")
    return paths


def _expand_name(name, what):
    if os.path.isdir(name):
        if found := [str(p) for p in _list_files(name) if _is_image(p)]:
            return found
        raise UsageError(f"{what}: no image in this folder ({', '.join(decode.EXTENSIONS)})")
    if os.path.isfile(name):
        return [name]
    if glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))
        files = [path for path in matches if _is_image(pathlib.Path(path))]
        below = [path for m in matches if os.path.isdir(m) for path in _list_files(m)]
        found = [*files, *(str(path) for path in sorted(below) if _is_image(path))]
        if found:
            return list(dict.fromkeys(found))  # `**` names a file by each folder above it
        raise UsageError(f"{what}: no image matches ({', '.join(decode.EXTENSIONS)})")
    raise UsageError(f"{what}: there is no such file or folder")


def _list_files(folder):
    """All files below a folder, sorted, also behind links to folders.

    Each folder once: by its own name, or by that of the first link to it.
    """
    names = {os.path.realpath(here): here for here, *_ in os.walk(folder, followlinks=False)}
    found = []
    for here, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        if names.setdefault(os.path.realpath(here), here) != here:
            folders.clear()
            continue
        found += [pathlib.Path(here, file) for file in files]
    return sorted(found)


def _is_image(path):
    return image_folders.is_image_name(path.name) and path.is_file()


def replace_non_utf8(path):
    """A path as text that every terminal and file can take: odd bytes become a mark."""
    return os.fsencode(path).decode("utf-8", "replace")
