"""Freed memory stays with the process: large blocks are not mapped again."""

import subprocess
import sys

_PROGRAM = """
import resource
import sys
import numpy as np
from loops.runtime import malloc
if sys.argv[1] == "keep":
    assert malloc.keep_freed_memory()
for _ in range(20):
    np.ones(2**23, np.float32)  # 32 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def _count_page_faults(mode):
    command = [sys.executable, "-c", _PROGRAM, mode]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_kept_memory_causes_no_page_faults():
    # 32 MiB are 8,192 pages. They fault 20 times without the setting, once or twice with it.
    assert _count_page_faults("keep") < _count_page_faults("plain") / 3
