"""Ends the process with one line if a file that is mapped into memory is cut while it is read.

The system then sends SIGBUS to the thread that reads. A Python signal handler would never run,
because the thread repeats the failed instruction. The handler here is called by the system itself,
in that thread.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading

from input_pipeline.errors import DataError
from input_pipeline.text import escape_unprintable

_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_SA_SIGINFO = 4
_LIBC = ctypes.CDLL(None, use_errno=True)
_ADDRESS_OFFSET = 16  # of si_addr in siginfo_t, on 64-bit Linux


class _SigAction(ctypes.Structure):
    _fields_ = (
        ("handler", _HANDLER),
        ("mask", ctypes.c_ulong * (128 // ctypes.sizeof(ctypes.c_ulong))),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_paths: dict[str, str] = {}  # as they are named, by real path
_lock = threading.Lock()
_previous = _SigAction()  # what SIGBUS did before


def watch(path: str) -> None:
    """Ends the process with a DataError's exit code if reading the mapping of a file fails.

    Args:
      path: the file, which is or will be mapped into memory until the process ends.
    """
    with _lock:
        is_first = not _paths
        _paths[os.path.realpath(path)] = path
    if is_first and sys.platform == "linux":
        _LIBC.sigaction(signal.SIGBUS, ctypes.byref(_action), ctypes.byref(_previous))


def _handle_bus_error(_number: int, info: int, _context: int) -> None:
    # An exception must not leave this function: the instruction would be repeated forever.
    path = None
    with contextlib.suppress(Exception):
        address = ctypes.c_void_p.from_address(info + _ADDRESS_OFFSET).value or 0
        path = _paths.get(_find_mapped_file(address).removesuffix(" (deleted)"))
    if path is None:  # the instruction is repeated, and what handled SIGBUS before handles it
        _LIBC.sigaction(signal.SIGBUS, ctypes.byref(_previous), None)
        return
    try:
        line = escape_unprintable(f"error: {path}: was cut, or its disk failed; copy it again")
        os.write(2, f"{line}\n".encode())
    finally:
        os._exit(DataError.exit_code)


def _find_mapped_file(address: int) -> str:
    """Returns the real path of the file that is mapped at an address, or ""."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            columns = line.rstrip("\n").split(maxsplit=5)
            first, last = (int(number, 16) for number in columns[0].split("-"))
            if first <= address < last:
                return columns[5] if len(columns) == 6 else ""
    return ""


_action = _SigAction(handler=_HANDLER(_handle_bus_error), flags=_SA_SIGINFO)
