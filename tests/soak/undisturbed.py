"""One long-lived process, whose memory and file descriptors are watched."""

import os
import statistics
import time

_SECONDS_BETWEEN_SAMPLES = 1.0


def run(training, steps):
    """Trains without any disturbance; returns facts for the report.

    Args:
      training: Training.
      steps: how many.
    """
    process = training.start("train", f"--steps={steps}")
    samples = []
    while process.poll() is None:
        time.sleep(_SECONDS_BETWEEN_SAMPLES)
        try:
            sample = (_resident(process.pid), _descriptors(process.pid))
        except OSError:
            break  # it has just ended
        # After its first evaluation and save, when all is loaded and traced, and before its last
        # save, upon which it closes what a leak would have left open.
        if 0 < training.step() < steps:
            samples.append(sample)
    facts = {"undisturbed_exit_code": process.wait(timeout=60), "samples": len(samples)}
    if process.returncode:
        facts["undisturbed_log"] = training.last_words()
    return facts | growth(samples)


def growth(samples):
    """Growth of memory and descriptors over a process's life.

    Args:
      samples: list of (resident bytes, open descriptors), in the order of time.

    Returns:
      dict: `memory_growth`, of the median of the last quarter over that of the second (the first
      one is warm-up: caches and event files come into being in it), as a share;
      `descriptors_growth`, of the fewest of these quarters: files are opened and closed all the
      time, and what is left open stays.
    """
    quarter = len(samples) // 4
    if not quarter:
        return {"memory_growth": None, "descriptors_growth": None}  # too short to tell
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    memory = [statistics.median(bytes_ for bytes_, _ in part) for part in (second, last)]
    descriptors = [min(count for _, count in part) for part in (second, last)]
    return {
        "memory_bytes": memory[1],
        "memory_growth": memory[1] / memory[0] - 1,
        "descriptors": descriptors[1],
        "descriptors_growth": descriptors[1] - descriptors[0],
    }


def _resident(pid):
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))
