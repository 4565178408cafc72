"""How many cores this process may use."""

import os


def count():
    """Those of its affinity, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
