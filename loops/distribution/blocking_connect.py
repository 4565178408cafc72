"""Works around a wait of TensorFlow in which Python stands still.

While TensorFlow connects the workers, which may wait forever for one that has just ended, its
Python binding holds the interpreter's lock: no thread runs and no signal is handled. Called through
ctypes, the same C function does not hold the lock. Without the function, the binding is used.
"""

import contextlib
import ctypes
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

_NAME = "TFE_EnableCollectiveOps"


@contextlib.contextmanager
def interpreter_unlocked() -> Iterator[None]:
    """Releases the interpreter's lock inside the context while TensorFlow connects workers."""
    folder = pathlib.Path(tf.sysconfig.get_lib())
    try:
        status_library = ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"))
        connect = getattr(ctypes.CDLL(str(folder / "libtensorflow_cc.so.2")), _NAME)
    except (OSError, AttributeError):
        yield
        return

    status_library.TF_NewStatus.restype = ctypes.c_void_p
    status_library.TF_GetCode.argtypes = status_library.TF_Message.argtypes = [ctypes.c_void_p]
    status_library.TF_Message.restype = ctypes.c_char_p
    connect.restype = None
    connect.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

    def connect_unlocked(handle: Any, server: bytes) -> None:
        status = status_library.TF_NewStatus()
        connect(get_pointer(handle, None), server, len(server), status)
        if code := status_library.TF_GetCode(status):
            message = status_library.TF_Message(status).decode(errors="replace")
            raise tf.errors.exception_type_from_error_code(code)(None, None, message)

    binding = getattr(context.pywrap_tfe, _NAME)
    setattr(context.pywrap_tfe, _NAME, connect_unlocked)
    try:
        yield
    finally:
        setattr(context.pywrap_tfe, _NAME, binding)
