"""Names a folder for TensorFlow, which reads some paths as patterns."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def plain_folder(folder: pathlib.Path | str) -> Iterator[str]:
    """Yields a path of an existing folder that contains no character of a pattern.

    TensorFlow reads the paths of checkpoints and SavedModels as patterns, so that it does not find
    the files in a folder such as `lr[0.1]`. An open descriptor names such a folder (Linux).
    """
    if not set("[]*?{}\\") & set(str(folder)):
        yield str(folder)
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
