"""Freed memory stays with the process: big blocks are not mapped anew."""

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


def _page_faults(what):
    words = [sys.executable, "-c", _PROGRAM, what]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def test_kept_memory_is_not_faulted_in_again():
    # 32 MiB are 8,192 pages: 20 times without, once or twice with.
    assert _page_faults("keep") < _page_faults("plain") / 3
