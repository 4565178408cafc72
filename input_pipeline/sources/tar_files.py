"""Lists the images in tar files, and where their bytes are: class tars, nested tars, WebDataset."""

import gzip
import itertools
import os
import pathlib
import tarfile
from collections.abc import Iterator, Mapping
from io import FileIO
from typing import NamedTuple

from input_pipeline.errors import DataError
from input_pipeline.sources import image_folders
from input_pipeline.sources.packed_images import Entry
from input_pipeline.system import regular_files

_BLOCK_BYTES = 512
_MAX_HEADER_BYTES = 2**26  # of one with a long name or other facts
_MAX_CLASS_BYTES = 2**20
_MAX_LINKS = 40  # from one link to the next, as in Linux
# Keys of WebDataset's JSON files that give the class.
_NUMBER_KEYS = ("label", "cls", "target", "class_id")
_NAME_KEYS = ("wnid", "synset", "class_name")


class Member(NamedTuple):
    """A file in a tar file.

    Attributes:
      name: its path.
      offset, size: position of its bytes in the tar file, or in the file that contains the tar
        file.
      target: for a link, the path in the tar file that it leads to; else "".
    """

    name: str
    offset: int
    size: int
    target: str = ""


class ForwardReader:
    """A file for `tarfile`, which reads as many bytes as headers claim, wherever they claim.

    It returns no more than the file has, and refuses to go back, which would never end. A file with
    holes can be larger than the memory.
    """

    def __init__(self, file: FileIO | gzip.GzipFile, size: int) -> None:
        self._file = file
        self._size = size
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return self._file.read(max(0, min(size, self._size - self._file.tell())))

    def seek(self, position: int) -> None:
        # `tarfile` reads the last byte before a header again.
        if position < self._file.tell() - 1:
            raise tarfile.ReadError("a header leads back")
        self._file.seek(position)


def iter_files(tar: tarfile.TarFile, where: str) -> Iterator[Member]:
    """Yields the regular files and the links in a tar file that is opened with a ForwardReader.

    Raises:
      DataError: one is sparse, or claims an impossible size.
    """
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]  # would fill the memory
        if member.islnk():  # a further name of a file
            yield Member(member.name, 0, 0, os.path.normpath(member.linkname))
        elif member.issym():
            folder = os.path.dirname(member.name)
            target = os.path.normpath(os.path.join(folder, member.linkname))
            yield Member(member.name, 0, 0, target)
        if not member.isfile():
            continue
        is_image = image_folders.is_image_name(member.name)
        if member.issparse():
            raise DataError(
                f"{where}: {member.name} is sparse; unpack the tar file, and pack it without -S"
            )
        if member.size < 0 or (is_image and member.size > regular_files.MAX_IMAGE_BYTES):
            raise DataError(f"{where}: {member.name} claims {member.size} bytes; remove it")
        yield Member(member.name, member.offset_data, member.size)


def find_target(member: Member, target_of_link: Mapping[str, str], where: str) -> str:
    """Returns the path of the file that a link leads to, perhaps through other links.

    Args:
      member: the link.
      target_of_link: what each link leads to, by its normalized path.
      where: name of the tar file, for errors.

    Raises:
      DataError: links lead in a circle.
    """
    target = member.target
    for _ in range(_MAX_LINKS):
        if target not in target_of_link:
            return target
        target = target_of_link[target]
    raise DataError(f"{where}: {member.name} is a link that leads in a circle; remove it")


def missing_target(member: Member, where: str) -> DataError:
    """Returns the error for a link to a file that is not in the tar file."""
    return DataError(
        f"{where}: {member.name} is a link to {member.target}, which is not in the tar file; pack"
        " it with tar --dereference"
    )


def _resolve_links(members: list[Member], where: str, is_whole: bool) -> list[Member]:
    """Gives each link the position of its file, and leaves out links to folders and other places.

    Raises:
      DataError: the file of a hard link or of an image is missing; if all members are given.
    """
    targets = {os.path.normpath(m.name): m.target for m in members if m.target}
    if not targets:
        return members
    files = {os.path.normpath(m.name): m for m in members if not m.target}
    resolved = []
    for member in members:
        if not member.target:
            resolved.append(member)
        elif file := files.get(find_target(member, targets, where)):
            resolved.append(Member(member.name, file.offset, file.size))
        elif is_whole and image_folders.is_image_name(member.name):
            raise missing_target(member, where)
    return resolved


def list_members(
    path: pathlib.Path, start: int = 0, name: str = "", limit: int | None = None
) -> list[Member]:
    """Lists the files in a tar file, also by their links. Only the headers are read.

    Args:
      path: the tar file, or the file that contains it.
      start: byte at which the tar file begins.
      name: name of a contained tar file, for errors.
      limit: number of files after which to stop; None for all.

    Raises:
      DataError: the tar file is truncated or is not a tar file.
    """
    where = f"{path} ({name})" if name else str(path)
    try:
        with regular_files.open_regular(path) as buffered:
            file = buffered.raw  # after each header, the bytes of an image are skipped
            file.seek(start)
            # tarfile counts from the position of the file.
            reader = ForwardReader(file, os.fstat(file.fileno()).st_size)
            with tarfile.open(fileobj=reader, mode="r:") as tar:  # type: ignore[call-overload]
                members = list(itertools.islice(iter_files(tar, where), limit))
                file.seek(tar.offset)
                if limit is None and file.read(_BLOCK_BYTES) != bytes(_BLOCK_BYTES):
                    raise tarfile.ReadError("its end is missing")
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: is not a complete tar file ({error}); copy it again") from None
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror})") from None
    return _resolve_links(members, where, limit is None)


def list_images(path: pathlib.Path, class_name: str = "", start: int = 0) -> list[Entry]:
    """Returns the images in a tar file.

    Args:
      path: the tar file, or the file that contains it.
      class_name: name of the class of all images, or "".
      start: byte at which the tar file begins.
    """
    members = list_members(path, start, f"{class_name}.tar" if start else "")
    return [
        Entry(os.path.basename(member.name), class_name, -1, member.offset, member.size)
        for member in members
        if image_folders.is_image_name(os.path.basename(member.name))
    ]


def list_webdataset(path: pathlib.Path, limit: int | None = None) -> list[Entry]:
    """Returns the images of a WebDataset shard: KEY.jpg with its class in KEY.cls or KEY.json.

    Args:
      path: the tar file.
      limit: number of files after which to stop; None for all.

    Raises:
      DataError: the tar file is not complete, or an image has no class.
    """
    images: dict[str, Member] = {}
    labels: dict[str, Member] = {}
    for member in list_members(path, limit=limit):
        folder, name = os.path.split(member.name)
        if name.startswith("._"):  # of macOS, about the file without these characters
            continue
        key, _, extension = name.partition(".")
        key = os.path.join(folder, key)
        if image_folders.is_image_name(f"x.{extension}"):
            images[key] = member
        elif extension == "cls" or (extension == "json" and key not in labels):
            labels[key] = member
    entries = []
    with regular_files.open_regular(path) as file:
        for key, member in images.items():
            if key not in labels:
                if limit is not None:
                    continue
                raise DataError(f"{path}: {member.name} has neither {key}.cls nor {key}.json")
            file.seek(labels[key].offset)
            data = file.read(min(labels[key].size, _MAX_CLASS_BYTES))
            class_name, number = _parse_class(path, labels[key], data)
            name = os.path.basename(member.name)
            entries.append(Entry(name, class_name, number, member.offset, member.size))
    return entries


def _parse_class(path: pathlib.Path, member: Member, data: bytes) -> tuple[str, int]:
    """Returns the (name, number) of a class in a .cls or .json file."""
    try:
        if not member.name.endswith(".json"):
            return "", int(data)
        facts = regular_files.parse_json(data)
        name = next((facts[key] for key in _NAME_KEYS if isinstance(facts.get(key), str)), "")
        return name, next(int(facts[key]) for key in _NUMBER_KEYS if key in facts)
    except (ValueError, TypeError, AttributeError, StopIteration, OverflowError):
        raise DataError(f"{path}: {member.name} has no class number: {data[:80]!r}") from None
