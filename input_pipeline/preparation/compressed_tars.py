"""Unpacks compressed tar files for `--mode=prepare`, because they allow no random access.

Each file is read once, from front to end. What it contains goes into the unfinished data set, where
it is read like any other layout, and is removed at the end.
"""

import gzip
import os
import pathlib
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from absl import logging

from input_pipeline.errors import DataError
from input_pipeline.preparation.prepare import explain_disk_errors, require_new_folder
from input_pipeline.sources import image_folders, layouts, manifest, tar_files
from input_pipeline.system import atomic_files, folder_lock, regular_files

_FOLDER = "unpacked"
_DONE = ".done-"
_LOG_SECONDS = 10.0
_BLOCK_BYTES = 2**20
_MAX_MARK_BYTES = 2**31
# Besides images: class tar files, and tables of labels.
_EXTENSIONS = (".tar", ".csv", ".txt")


def unpack(archives: Sequence[pathlib.Path], out: str | os.PathLike[str]) -> pathlib.Path:
    """Unpacks archives below the folder of a prepared data set, except those that already are.

    Args:
      archives: see `layouts.find_compressed`.
      out: folder of the prepared data set.

    Returns:
      The folder of the unpacked data set.

    Raises:
      UsageError: the folder contains a prepared data set, another process writes into it, or
        writing failed.
      DataError: an archive cannot be read, is damaged, or leads out of the folder.
    """
    folder = pathlib.Path(out, manifest.UNFINISHED, _FOLDER)
    with folder_lock.acquire(out, f"--out={out}"), explain_disk_errors(pathlib.Path(out)):
        if not folder.exists():
            require_new_folder(pathlib.Path(out))
        for parent in (folder.parent, folder):
            atomic_files.make_folder(parent)
        finished = {path for path in archives if _read_mark(path, folder) is not None}
        _remove_others(folder, finished)
        for path in archives:
            if path in finished:
                continue
            # Hugging Face's archives are parts of one split. Others may contain equal names.
            stem = path.name.partition(".")[0] if len(archives) > 1 else ""
            _unpack(path, folder, layouts.split_of_compressed(path.name) or stem)
    inner = image_folders.list_subfolders(folder)
    # Most archives contain one folder with everything.
    is_wrapped = len(inner) == 1 and layouts.recognize(folder) is None
    return folder / inner[0] if is_wrapped else folder


def _mark_path(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    return folder / f"{_DONE}{path.name}"


def _describe(path: pathlib.Path) -> bytes:
    """Returns what tells an archive from a newer one of the same name."""
    status = path.stat()
    return b"%d %d" % (status.st_size, status.st_mtime_ns)


def _read_mark(path: pathlib.Path, folder: pathlib.Path) -> set[bytes] | None:
    """Returns the names of the files of an archive; None if it is not unpacked to its end."""
    try:
        mark = regular_files.read_bytes(_mark_path(path, folder), _MAX_MARK_BYTES)
    except FileNotFoundError:
        return None
    description, *names = mark.split(b"\0")
    return set(names) if description == _describe(path) else None


def _remove_others(folder: pathlib.Path, finished: Iterable[pathlib.Path]) -> None:
    """Removes what a killed run has left, and the files of archives that were replaced."""
    kept = {os.fsencode(_mark_path(path, folder).name) for path in finished}
    kept.update(*(_read_mark(path, folder) or () for path in finished))
    for parent, folders, names in os.walk(os.fsencode(folder)):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in names + links:
            path = os.path.join(parent, name)
            if os.path.relpath(path, os.fsencode(folder)) not in kept or name in links:
                os.unlink(path)


def _unpack(path: pathlib.Path, folder: pathlib.Path, inner: str) -> None:
    """Unpacks an archive, and then writes its mark: what it is, and the names of its files."""
    description = _describe(path)
    logging.info("unpacking %s into %s, which is removed at the end", path, folder)
    tar_name = f"{path.name.partition('.')[0]}.tar"
    try:
        with regular_files.open_regular(path) as packed, gzip.open(packed) as file:
            if tar_name in layouts.ILSVRC_TARS.values():
                names = [tar_name]
                with atomic_files.replacing(folder / tar_name) as target:
                    shutil.copyfileobj(file, target, _BLOCK_BYTES)
            else:
                names = [os.path.join(inner, n) for n in _unpack_files(file, path, folder / inner)]
            while file.read(_BLOCK_BYTES):  # to the end, where the checksum is
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, ValueError) as error:
        raise DataError(f"{path}: is not a complete tar file ({error}); copy it again") from None
    os.sync()  # a power cut must not leave the mark without the files
    mark = b"\0".join([description, *map(os.fsencode, names)])
    atomic_files.write_bytes(_mark_path(path, folder), mark)


def _unpack_files(file: gzip.GzipFile, path: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Writes the images, class tar files and tables of a tar file below a folder.

    Returns:
      Their paths, relative to the folder.

    Raises:
      DataError: another archive has written a file of the same name.
    """
    names, links = [], []
    reader = tar_files.ForwardReader(file, sys.maxsize)
    with tarfile.open(fileobj=reader, mode="r:") as tar:  # type: ignore[call-overload]
        for member in tar_files.iter_files(tar, str(path)):
            name = pathlib.PurePosixPath(member.name)
            if not (name.suffix in _EXTENSIONS or image_folders.is_image_name(name.name)):
                continue
            if name.is_absolute() or ".." in name.parts:
                raise DataError(f"{path}: {member.name} leads out of the folder; remove it")
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise DataError(f"{path}: {member.name} is also in another archive; remove one")
            names.append(str(name))
            if member.target:  # whose file may come later
                links.append(member)
                continue
            file.seek(member.offset)
            with open(target, "xb") as unpacked:
                _copy(file, unpacked, member.size)
            logging.log_every_n_seconds(
                logging.INFO, "unpacking %s: %d files", _LOG_SECONDS, path, len(names)
            )
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("its end is missing")
    target_of_link = {os.path.normpath(link.name): link.target for link in links}
    for link in links:
        found = folder / tar_files.find_target(link, target_of_link, str(path))
        if not found.is_relative_to(folder) or ".." in found.parts or not found.is_file():
            raise tar_files.missing_target(link, str(path))
        shutil.copyfile(found, folder / link.name)
    return names


def _copy(file: gzip.GzipFile, target: BinaryIO, size: int) -> None:
    while size:
        data = file.read(min(size, _BLOCK_BYTES))
        if not data:
            raise EOFError("it is cut")
        target.write(data)
        size -= len(data)
