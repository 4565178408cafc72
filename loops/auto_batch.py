"""`--auto_batch`: into how many micro-batches a batch must be cut to fit into memory.

Trials are processes of their own: on a GPU one that runs out of memory must not take the training
with it, and on a CPU the system would end it without a word.
"""

import dataclasses
import json
import math
import pathlib
import subprocess
import sys

from absl import logging

from input_pipeline.errors import UsageError
from loops.config import replace

# The share of what is available that training may take; the rest is for data and evaluation.
_SHARE = 0.8
# Images per replica in the trials that memory is extrapolated from.
_TRIAL_SIZES = (2, 6)


class DoesNotFit(Exception):
    """A trial ran out of memory."""


def choose(config):
    """Replaces `--auto_batch` by the smallest `--accumulate` that fits, and says so.

    Args:
      config: resolved Config.

    Returns:
      Config.

    Raises:
      UsageError: not even one image at a time fits.
    """
    if not config.optimization.auto_batch:
        return config
    first = _trial(config, _TRIAL_SIZES[0])
    of_replica = config.data.batch_size // first["replicas"]
    if first["gpu"]:
        parts = smallest_that_runs(of_replica, lambda size: _trial(config, size))
    else:
        peaks = [first["peak_bytes"], _trial(config, _TRIAL_SIZES[1])["peak_bytes"]]
        available = _SHARE * _available_bytes()
        parts = smallest_that_fits(of_replica, _TRIAL_SIZES, peaks, available)
    if parts is None:
        raise UsageError(
            f"--auto_batch: not even one image at a time fits into memory; take a smaller --model,"
            f" --image_size={config.data.image_size} or --mixed_precision"
        )
    logging.info(
        "--auto_batch: --accumulate=%d, micro-batches of %d images", parts, of_replica // parts
    )
    return replace(config, {"accumulate": parts})


def divisors(number):
    """All divisors, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


def smallest_that_fits(images, sizes, peaks, limit):
    """Extrapolates peak memory, which grows with the images of a micro-batch along a line.

    Args:
      images: of a replica in one step.
      sizes: two numbers of images per replica that were tried.
      peaks: peak memory in bytes with each, of all replicas together.
      limit: bytes that may be used.

    Returns:
      the smallest number of equal parts of the images that fits, or None.
    """
    per_image = max(0.0, (peaks[1] - peaks[0]) / (sizes[1] - sizes[0]))
    fixed = peaks[0] - per_image * sizes[0]
    fit = math.inf if not per_image else (limit - fixed) / per_image
    logging.info("--auto_batch: %.2f GB and %.3f GB per image", fixed / 1e9, per_image / 1e9)
    return next((parts for parts in divisors(images) if images // parts <= fit), None)


def smallest_that_runs(images, trial):
    """Tries ever smaller micro-batches; `trial` raises DoesNotFit. Returns as above."""
    for parts in divisors(images):
        try:
            trial(images // parts)
        except DoesNotFit:
            continue
        return parts
    return None


def _trial(config, size):
    """Does two steps of two micro-batches of `size` images per replica in a process of its own.

    Returns:
      dict: peak_bytes, replicas, gpu.
    """
    root = pathlib.Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "loops.trial_step", str(size)]
    text = json.dumps(dataclasses.asdict(config))
    done = subprocess.run(command, cwd=root, input=text, capture_output=True, text=True)
    if done.returncode:
        if "ResourceExhausted" in done.stderr or "out of memory" in done.stderr.lower():
            raise DoesNotFit
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UsageError(f"--auto_batch: a trial with {size} images failed: {lines[-1][:200]}")
    return json.loads(done.stdout.splitlines()[-1])


def _available_bytes():
    """Memory that this process could still get: of the machine, and of its control group."""
    words = pathlib.Path("/proc/meminfo").read_text().split()
    available = int(words[words.index("MemAvailable:") + 1]) * 1024
    group = pathlib.Path("/sys/fs/cgroup")
    try:
        most = int((group / "memory.max").read_text())
        available = min(available, most - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no control groups, or "max"
        pass
    return available
