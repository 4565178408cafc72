"""Ends the process with one line if a file that is mapped into memory is cut while it is read.

The system then sends SIGBUS to the thread that reads. A Python signal handler would never run,
because the thread repeats the failed instruction. The handler here is called by the system itself,
in that thread.
"""

import ctypes
import os
import signal
import sys
import threading

from input_pipeline.errors import DataError
from input_pipeline.text import escape_unprintable

_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_SA_SIGINFO = 4
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


def watch(path: str) -> None:
    """Ends the process with a DataError's exit code if reading the mapping of a file fails.

    Args:
      path: the file, which is or will be mapped into memory until the process ends.
    """
    with _lock:
        is_first = not _paths
        _paths[os.path.realpath(path)] = path
    if is_first and sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.sigaction(signal.SIGBUS, ctypes.byref(_action), None)


def _handle_bus_error(_number: int, info: int, _context: int) -> None:
    address = ctypes.c_void_p.from_address(info + _ADDRESS_OFFSET).value or 0
    path = _paths.get(_find_mapped_file(address).removesuffix(" (deleted)"))
    if path is None:  # not ours: the instruction is repeated and ends the process
        ctypes.CDLL(None).signal(signal.SIGBUS, None)  # SIG_DFL
        return
    line = escape_unprintable(f"error: {path}: was cut, or its disk failed; copy it again")
    os.write(2, f"{line}\n".encode())
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
