"""How TensorFlow is loaded: with its fast kernels, without its notices, once and for all."""

import contextlib
import gc
import os
import platform
import sys


def enable_onednn():
    """Asks for oneDNN's kernels on every x86 processor; to be called before TensorFlow is loaded.

    TensorFlow takes them by itself only where the processor has AVX512-VNNI or AVX-VNNI. Without
    them a step of ResNetV2-50 took twice as long on a processor that has AVX2 alone. A
    TF_ENABLE_ONEDNN_OPTS that is set stays.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@contextlib.contextmanager
def gc_paused_and_frozen():
    """What is imported inside is never garbage, and Python's collector is told so.

    It would look through hundreds of thousands of objects of TensorFlow and Keras while they are
    made and at every full collection: an eighth of the import, and a third of a second while a
    step is traced.
    Nothing is done where TensorFlow is loaded already, amid what may be garbage one day.
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


def load_tensorflow():
    """Imports TensorFlow without the notices that its C++ side prints as it loads.

    They come before any logging level is heard, so the file descriptor itself is turned away;
    errors are exceptions and still arrive. Setting TF_CPP_MIN_LOG_LEVEL shows all.
    """
    enable_onednn()
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
