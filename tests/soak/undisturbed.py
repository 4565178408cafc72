"""Runs one long training process and measures its memory and file descriptors."""

import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

from tests.soak.training import Training

_SECONDS_BETWEEN_SAMPLES = 1.0


def run(training: Training, steps: int) -> dict[str, Any]:
    """Runs a training of this many steps without disturbance; returns entries of the report."""
    process = training.start("train", f"--steps={steps}")
    samples = []
    while process.poll() is None:
        time.sleep(_SECONDS_BETWEEN_SAMPLES)
        try:
            sample = (get_resident_bytes(process.pid), count_open_files(process.pid))
        except OSError:
            break  # the process has just ended
        # Only between the first save, when everything is loaded and traced, and the last one,
        # because the process then closes the files that a leak would have left open.
        if 0 < training.find_step() < steps:
            samples.append(sample)
    report = {"undisturbed_exit_code": process.wait(timeout=60), "samples": len(samples)}
    if process.returncode:
        report["undisturbed_log"] = training.read_last_log_lines()
    return report | compute_growth(samples)


def compute_growth(samples: Sequence[tuple[float, int]]) -> dict[str, float | None]:
    """Computes how much memory and file descriptors have grown.

    The first quarter of the samples is warm-up, because caches fill and event files are opened.

    Args:
      samples: (resident bytes, open files), in the order of time.

    Returns:
      `memory_growth`: relative growth of the median from the second quarter to the last one.
      `descriptors_growth`: growth of the minimum between these quarters, because files are opened
      and closed all the time and only leaked ones stay. Both are None for too few samples.
      `memory_bytes` and `descriptors`: the values of the last quarter.
    """
    quarter = len(samples) // 4
    if not quarter:
        return {"memory_growth": None, "descriptors_growth": None}
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    memory = [statistics.median(bytes_ for bytes_, _ in part) for part in (second, last)]
    descriptors = [min(count for _, count in part) for part in (second, last)]
    return {
        "memory_bytes": memory[1],
        "memory_growth": memory[1] / memory[0] - 1,
        "descriptors": descriptors[1],
        "descriptors_growth": descriptors[1] - descriptors[0],
    }


def get_resident_bytes(pid: int) -> int:
    """Returns the resident memory of a process."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def count_open_files(pid: int) -> int:
    """Returns the number of open file descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))
