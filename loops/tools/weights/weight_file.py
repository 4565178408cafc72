"""Weight files from elsewhere, read without trusting them.

What a file says about itself is checked before any tensor is read: nothing is unpacked, no link
is followed, no other file is opened, and nothing larger than the file is allocated. Pickles, which
run code when they are opened, are refused unread.
"""

import contextlib
import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Callable

import h5py
import numpy as np
import safetensors

from input_pipeline.errors import UsageError

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_PICKLE_MAGICS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# What the two libraries raise on a broken file.
_READ_ERRORS = (safetensors.SafetensorError, OSError, KeyError, RuntimeError, TypeError, ValueError)
# Groups within groups; ours have four levels.
_MAX_DEPTH = 8


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """An opened file.

    Attributes:
      path: of the file.
      sha256: of its bytes, in hexadecimal.
      shapes: shape of every tensor, by name.
      dtypes: "float32", "float16" or whatever else the file says, by name.
      read: function from a name to a numpy array of that shape.
    """

    path: str
    sha256: str
    shapes: dict
    dtypes: dict
    read: Callable


@contextlib.contextmanager
def open_file(path, form):
    """Opens a weight file.

    Args:
      path: str.
      form: "safetensors" or "h5".

    Yields:
      WeightFile.

    Raises:
      UsageError: no such file, or not a sound one of this form.
    """
    _check_magic(path, form)
    readers = {"safetensors": _open_safetensors, "h5": _open_h5}
    with contextlib.ExitStack() as stack:
        try:
            shapes, dtypes, read = readers[form](path, stack)
        except _READ_ERRORS as error:
            reason = " ".join(str(error).split())[:120]
            raise UsageError(f"--weights={path}: not a sound {form} file: {reason}") from None
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield WeightFile(path, digest, shapes, dtypes, read)


def read_tensor(file, name, shape):
    """Reads a tensor whose shape and dtype the file states as expected.

    Args:
      file: WeightFile.
      name: of the tensor.
      shape: to give it; call `require_shape` for all tensors first.

    Returns:
      float32 array.

    Raises:
      UsageError: a number that is not finite, or data that cannot be read.
    """
    try:
        values = np.asarray(file.read(name), np.float32).reshape(shape)
    except _READ_ERRORS as error:
        raise UsageError(f"--weights={file.path}: {name} cannot be read: {error}") from None
    if not np.isfinite(values).all():
        raise UsageError(f"--weights={file.path}: {name} holds numbers that are not finite")
    return values


def require_shape(file, name, shapes):
    """Refuses a tensor that is not float32 or float16, or has none of some shapes.

    Raises:
      UsageError: naming the tensor and both shapes.
    """
    if file.dtypes[name] not in ("float32", "float16"):
        raise UsageError(f"--weights={file.path}: {name} is {file.dtypes[name]}, not float32")
    if file.shapes[name] not in shapes:
        raise UsageError(
            f"--weights={file.path}: {name} has shape {file.shapes[name]}, this net needs"
            f" {' or '.join(map(str, shapes))}"
        )


def _check_magic(path, form):
    """Looks at the first bytes, so that a mistaken file gets a better answer than 'broken'."""
    if not path:
        raise UsageError("--weights is missing: name the file to import")
    if not pathlib.Path(path).is_file():
        raise UsageError(f"--weights={path}: there is no such file")
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise UsageError(f"--weights={path}: {error.strerror}") from None
    if start.startswith(_PICKLE_MAGICS):
        raise UsageError(
            f"--weights={path}: a pickle or zip archive, which may run code when it is opened;"
            " save it with safetensors.torch.save_file, from torch.load(..., weights_only=True)"
        )
    if start == _HDF5_MAGIC and form != "h5":
        raise UsageError(f"--weights={path}: an HDF5 file, which --source=h5 reads")
    if start != _HDF5_MAGIC and form == "h5":
        raise UsageError(f"--weights={path}: not an HDF5 file, which --source=h5 expects")


def _open_safetensors(path, stack):
    # The library compares its header with the size of the file before it hands out anything.
    file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    shapes = {name: tuple(s.get_shape()) for name, s in slices.items()}
    short = {"F32": "float32", "F16": "float16"}
    dtypes = {name: short.get(s.get_dtype(), s.get_dtype()) for name, s in slices.items()}
    return shapes, dtypes, file.get_tensor


def _open_h5(path, stack):
    """Keras's `.weights.h5`: each group `vars` names its layer and holds datasets 0, 1, ...

    Tensors are called `layer/0`, `layer/1` here.
    """
    file = stack.enter_context(h5py.File(path, "r"))
    size = pathlib.Path(path).stat().st_size
    found = {}
    for group, datasets in _walk_groups(file):
        for key, dataset in datasets.items():
            layer = group.attrs.get("name")
            if not isinstance(layer, str):
                raise ValueError(f"{dataset.name} does not belong to a layer")
            if f"{layer}/{key}" in found:
                raise ValueError(f"{layer}/{key} is there twice")
            _require_plain(dataset, size)
            found[f"{layer}/{key}"] = dataset
    shapes = {name: dataset.shape for name, dataset in found.items()}
    dtypes = {name: dataset.dtype.name for name, dataset in found.items()}
    return shapes, dtypes, lambda name: found[name][()]


def _walk_groups(group, depth=0):
    """Yields every group and its datasets by name; refuses all links but plain ones."""
    if depth > _MAX_DEPTH:
        raise ValueError("groups within groups without an end")
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


def _require_plain(dataset, file_size):
    """Refuses datasets whose bytes do not lie in the file just as they are."""
    created = dataset.id.get_create_plist()
    plain = created.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
    if not plain or created.get_nfilters() or created.get_external_count():
        raise ValueError(f"{dataset.name} is compressed, virtual or stored elsewhere")
    wanted = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
    if dataset.shape is None or dataset.id.get_storage_size() != wanted or wanted > file_size:
        raise ValueError(f"{dataset.name} says that it has {wanted} bytes, the file holds fewer")
