"""Imports TensorFlow with its fast CPU kernels and without its startup messages."""

import contextlib
import gc
import os
import platform
import sys
from collections.abc import Iterator


def set_environment() -> None:
    """Sets the environment variables of TensorFlow and Keras; call it before they are imported.

    Keras must not take the settings of another project, such as KERAS_BACKEND and the data format
    in ~/.keras/keras.json. A home that cannot exist keeps it from reading or writing that file.

    By default TensorFlow uses oneDNN's kernels only on processors with AVX512-VNNI or AVX-VNNI.
    Without them, a step of ResNetV2-50 took twice as long on a processor with AVX2 only. An
    existing value of TF_ENABLE_ONEDNN_OPTS is kept.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["KERAS_HOME"] = os.path.join(os.devnull, "keras")
    os.environ.pop("KERAS_NNX_ENABLED", None)
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@contextlib.contextmanager
def gc_paused_and_frozen() -> Iterator[None]:
    """Pauses the garbage collector during imports and freezes what they allocate.

    Otherwise it scans hundreds of thousands of objects of TensorFlow and Keras, during the import
    and in every full collection. This would take an eighth of the import time, and a third of a
    second while a step is traced.

    Does nothing if TensorFlow is already imported, because objects created since then may become
    garbage.
    """
    if "tensorflow" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def load_tensorflow() -> None:
    """Imports TensorFlow without its startup messages and without packages that are not used.

    Errors are exceptions and are not affected. Set TF_CPP_MIN_LOG_LEVEL=0 to see all messages.
    """
    set_environment()
    if "tensorflow" in sys.modules:
        return
    with _unused_packages_hidden(), _startup_messages_hidden():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def _unused_packages_hidden() -> Iterator[None]:
    """Hides packages that Keras would import for parts of it that are not used here.

    Where they are installed, they take a fifth of the import time. Keras's scikit-learn wrappers do
    not work afterwards.
    """
    hidden = [name for name in ("IPython", "sklearn") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # an import of them fails
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def _startup_messages_hidden() -> Iterator[None]:
    """Hides the messages that TensorFlow's C++ code prints while it loads.

    They are printed before any log level applies, so the stderr file descriptor is redirected.
    """
    # Child processes of a notebook that has loaded TensorFlow inherit the value 2.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2") < "2":
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    stderr = os.dup(2)
    with open(os.devnull, "w") as devnull:
        os.dup2(devnull.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
