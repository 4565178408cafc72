"""Reads weight files from untrusted sources.

The header of a file is checked before any tensor is read. Nothing is decompressed, no link is
followed, no other file is opened, and no more memory is allocated than the size of the file.
Pickles are rejected without reading them, because opening a pickle can run code.
"""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import h5py
import numpy as np
import safetensors

from input_pipeline.errors import UsageError
from input_pipeline.system import atomic_files, regular_files

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_PICKLE_MAGICS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# Where the weights of torchvision's files are as safetensors: timm has converted them.
_TORCHVISION_FILES = {
    "resnet18-f37072fd": "timm/resnet18.tv_in1k",
    "resnet34-b627a593": "timm/resnet34.tv_in1k",
    "resnet50-0676ba61": "timm/resnet50.tv_in1k",
    "resnet50-11ad3fa6": "timm/resnet50.tv2_in1k",
    "resnet101-63fe2227": "timm/resnet101.tv_in1k",
    "resnet101-cd907fc2": "timm/resnet101.tv2_in1k",
    "resnet152-394f9c45": "timm/resnet152.tv_in1k",
    "resnet152-f82ba261": "timm/resnet152.tv2_in1k",
}
# Errors that the two libraries raise for a broken file.
_READ_ERRORS = (
    *(safetensors.SafetensorError, OSError, KeyError, RuntimeError, TypeError, ValueError),
    *(MemoryError, OverflowError, AttributeError),
)
# Largest depth of nested groups. Keras files have four levels.
_MAX_DEPTH = 8


class _Contents(NamedTuple):
    """What a file contains: shapes and dtypes by name, and a function that reads a tensor."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    read: Callable[[str], np.ndarray]


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """An open weight file.

    Attributes:
      path: path of the file.
      where: flag and value, for messages.
      sha256: hash of its bytes in hexadecimal.
      shapes: shape of each tensor, by name.
      dtypes: dtype of each tensor, by name: "float32", "float16", or the name in the file.
      read: function from a name to an array of that shape.
    """

    path: str
    where: str
    sha256: str
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    read: Callable[[str], np.ndarray]


@contextlib.contextmanager
def open_file(path: str, form: str, where: str = "") -> Iterator[WeightFile]:
    """Opens a weight file.

    Args:
      path: path of the file.
      form: "safetensors" or "h5".
      where: flag and value, for messages; `--weights` and the path by default.

    Yields:
      WeightFile.

    Raises:
      UsageError: the file does not exist or is not a valid file of this format.
    """
    where = where or f"--weights={path}"
    _check_magic(path, form, where)
    readers = {"safetensors": _open_safetensors, "h5": _open_h5}
    with contextlib.ExitStack() as stack:
        try:
            contents = readers[form](path, stack)
        except _READ_ERRORS as error:
            reason = " ".join(str(error).split())[:120]
            raise UsageError(f"{where}: not a valid {form} file: {reason}") from None
        yield WeightFile(path, where, atomic_files.sha256(path), *contents)


def read_tensor(file: WeightFile, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Reads a tensor as float32.

    Call `require_shape` for all tensors first.

    Args:
      file: the weight file.
      name: name of the tensor.
      shape: shape of the result.

    Raises:
      UsageError: the tensor cannot be read, or a value is not finite.
    """
    try:
        values = np.asarray(file.read(name), np.float32).reshape(shape)
    except _READ_ERRORS as error:
        raise UsageError(f"{file.where}: {name} cannot be read: {error}") from None
    if not np.isfinite(values).all():
        raise UsageError(f"{file.where}: {name} has non-finite values")
    return values


def require_shape(file: WeightFile, name: str, shapes: Collection[tuple[int, ...]]) -> None:
    """Checks that a tensor is float32 or float16 and has one of the given shapes.

    Raises:
      UsageError: it does not. The message contains the tensor's name and the shapes.
    """
    if file.dtypes[name] not in ("float32", "float16"):
        raise UsageError(f"{file.where}: {name} is {file.dtypes[name]}, not float32 or float16")
    if file.shapes[name] not in shapes:
        raise UsageError(
            f"{file.where}: {name} has shape {file.shapes[name]}, but the net needs"
            f" {' or '.join(map(str, shapes))}"
        )


def _check_magic(path: str, form: str, where: str) -> None:
    """Checks the first bytes, for a better error message than that of the library."""
    if not pathlib.Path(path).is_file():
        raise UsageError(
            f"{where}: there is no such file; a repository is named as in"
            " timm/resnet50.a1_in1k or hf_hub:OWNER/NAME"
        )
    try:
        with regular_files.open_regular(path) as file:
            magic = file.read(8)
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}") from None
    if magic.startswith(_PICKLE_MAGICS):
        raise UsageError(
            f"{where}: a pickle or zip archive, which can run code when it is opened;"
            f" {_suggest_safetensors(path)}"
        )
    if magic == _HDF5_MAGIC and form != "h5":
        raise UsageError(f"{where}: an HDF5 file; import it with --source=h5")
    if magic != _HDF5_MAGIC and form == "h5":
        raise UsageError(f"{where}: not an HDF5 file, which --source=h5 requires")


def _suggest_safetensors(path: str) -> str:
    """Returns where the weights of a pickle are as safetensors, or how to convert it."""
    repository = _TORCHVISION_FILES.get(pathlib.Path(path).stem)
    if repository:
        return f"--weights={repository} has the same weights without a pickle"
    return (
        "load it with torch.load(..., weights_only=True) and save it with"
        " safetensors.torch.save_file, or take published weights as in --weights=timm/NAME"
    )


def _open_safetensors(path: str, stack: contextlib.ExitStack) -> _Contents:
    # The library compares the header with the size of the file when it opens the file.
    file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    shapes = {name: tuple(s.get_shape()) for name, s in slices.items()}
    numpy_names = {"F32": "float32", "F16": "float16"}
    dtypes = {name: numpy_names.get(s.get_dtype(), s.get_dtype()) for name, s in slices.items()}
    return _Contents(shapes, dtypes, file.get_tensor)


def _open_h5(path: str, stack: contextlib.ExitStack) -> _Contents:
    """Opens a `.weights.h5` of Keras and names its tensors `layer/0`, `layer/1`, ...

    Each group `vars` has the name of its layer as an attribute, and datasets `0`, `1`, ...
    """
    file = stack.enter_context(h5py.File(path, "r"))
    file_size = pathlib.Path(path).stat().st_size
    tensors = {}
    for group, datasets in _walk_groups(file):
        for key, dataset in datasets.items():
            layer = group.attrs.get("name")
            if not isinstance(layer, str):
                raise ValueError(f"{dataset.name} does not belong to a layer")
            if f"{layer}/{key}" in tensors:
                raise ValueError(f"{layer}/{key} is a duplicate")
            _require_contiguous(dataset, file_size)
            tensors[f"{layer}/{key}"] = dataset
    shapes = {name: dataset.shape for name, dataset in tensors.items()}
    dtypes = {name: dataset.dtype.name for name, dataset in tensors.items()}
    return _Contents(shapes, dtypes, lambda name: tensors[name][()])


def _walk_groups(
    group: h5py.Group, depth: int = 0
) -> Iterator[tuple[h5py.Group, dict[str, h5py.Dataset]]]:
    """Yields each group with its datasets by name.

    Raises:
      ValueError: an item is a soft or external link, or groups are nested too deeply.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"groups are nested more than {_MAX_DEPTH} levels deep")
    datasets = {}
    for key in group:
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise ValueError(f"{group.name}/{key} is a link")
        item = group[key]
        if isinstance(item, h5py.Group):
            yield from _walk_groups(item, depth + 1)
        elif isinstance(item, h5py.Dataset):
            datasets[key] = item
        else:
            raise ValueError(f"{group.name}/{key} is neither a group nor a dataset")
    yield group, datasets


def _require_contiguous(dataset: h5py.Dataset, file_size: int) -> None:
    """Checks that the bytes of a dataset lie in the file without any encoding."""
    properties = dataset.id.get_create_plist()
    is_contiguous = properties.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
    if not is_contiguous or properties.get_nfilters() or properties.get_external_count():
        raise ValueError(f"{dataset.name} is compressed, virtual or stored elsewhere")
    size = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
    if dataset.shape is None or dataset.id.get_storage_size() != size or size > file_size:
        raise ValueError(f"{dataset.name} claims {size} bytes, but the file contains fewer")
