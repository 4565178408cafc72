"""`--auto_batch`: chooses the number of micro-batches so that a training step fits into memory.

Memory is measured in trials. Each trial is a separate process: on a GPU, an out-of-memory error
must not end the training; on a CPU, the system would kill it without a message.
"""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from absl import logging

from input_pipeline import user_code
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import UsageError
from input_pipeline.system import available_memory
from input_pipeline.text import pluralize
from loops.config import config_json
from loops.config.config import Config
from loops.distribution import strategies

# The fraction of the available memory for training. The rest is for data and evaluation.
_MEMORY_FRACTION = 0.8
# Images per replica in the two trials that memory is extrapolated from.
_TRIAL_SIZES = (2, 6)


class OutOfMemoryError(Exception):
    """A trial ran out of memory."""


class _Split(NamedTuple):
    """How a replica's batch is split: number of micro-batches, and images of the whole batch."""

    micro_batches: int
    per_replica: int


def choose_accumulate(config: Config) -> Config:
    """Replaces `--auto_batch` by the smallest `--accumulate` that fits, and logs it.

    Args:
      config: resolved config.

    Raises:
      UsageError: one image at a time does not fit, or there are several workers.
    """
    if not config.optimization.auto_batch:
        return config
    if strategies.is_multi_worker(config.distribution):
        raise UsageError("--auto_batch: not with several workers; set --accumulate instead")
    multiple = 2 if batch_augment.is_mixing(config.data) else 1  # mixing needs pairs
    try:
        micro_batches, per_replica = _find_split(config, multiple)
    except OutOfMemoryError:
        raise UsageError(
            f"--auto_batch: memory is too small for even {pluralize(multiple, 'image')}; use a"
            f" smaller --model, a smaller --image_size than {config.data.image_size}, or"
            " --mixed_precision"
        ) from None
    logging.info(
        "--auto_batch: --accumulate=%d, micro-batches of %d images",
        micro_batches,
        per_replica // micro_batches,
    )
    return config.replace(accumulate=micro_batches)


def _find_split(config: Config, multiple: int) -> _Split:
    """Finds the smallest number of micro-batches that fits.

    Args:
      config: resolved config.
      multiple: the size of a micro-batch must be a multiple of this.

    Raises:
      OutOfMemoryError: no number of micro-batches fits.
    """
    try:
        trial = run_trial(config, _TRIAL_SIZES[0])
    except OutOfMemoryError:
        if multiple > 1:
            raise
        per_replica = _get_per_replica_batch_size(config, run_trial(config, 1))
        return _Split(per_replica, per_replica)
    per_replica = _get_per_replica_batch_size(config, trial)
    if trial["gpu"]:
        micro_batches = try_micro_batches(
            per_replica, lambda size: run_trial(config, size), multiple
        )
    else:
        micro_batches = _find_micro_batches_on_cpu(
            config, trial["peak_bytes"], per_replica, multiple
        )
    if micro_batches is None:
        raise OutOfMemoryError
    return _Split(micro_batches, per_replica)


def _get_per_replica_batch_size(config: Config, trial: dict) -> int:
    """Returns the images per replica.

    Raises:
      UsageError: the replicas cannot train on this batch size, however it is split.
    """
    per_replica = strategies.divide_batch(config.data.batch_size, trial["replicas"])
    batch_augment.require_even_batch(config.data, per_replica)
    return per_replica


def _find_micro_batches_on_cpu(
    config: Config, small_peak_bytes: int, per_replica: int, multiple: int
) -> int | None:
    """Estimates the smallest number of micro-batches from the memory of two trials."""
    available = available_memory.available_bytes()
    if available is None:
        raise UsageError(
            "--auto_batch: the available memory cannot be determined; set --accumulate instead"
        )
    small, large = _TRIAL_SIZES
    try:
        peaks = [small_peak_bytes, run_trial(config, large)["peak_bytes"]]
    except OutOfMemoryError:
        counts = list_micro_batch_counts(per_replica, multiple)
        return next((count for count in counts if per_replica // count <= small), None)
    return estimate_micro_batches(
        per_replica, _TRIAL_SIZES, peaks, _MEMORY_FRACTION * available, multiple
    )


def list_micro_batch_counts(images: int, multiple: int = 1) -> list[int]:
    """Lists the numbers of equal parts that images can be split into, in ascending order.

    Args:
      images: number of images.
      multiple: the size of a part must be a multiple of this.
    """
    divisors = (d for d in range(1, images + 1) if images % d == 0)
    return [d for d in divisors if images // d % multiple == 0]


def estimate_micro_batches(
    images: int, sizes: Sequence[int], peaks: Sequence[int], limit: float, multiple: int = 1
) -> int | None:
    """Estimates the micro-batches that fit. Peak memory is linear in the micro-batch size.

    Args:
      images: images per replica in one step.
      sizes: images per replica in each of two trials.
      peaks: peak memory of each trial in bytes, over all replicas.
      limit: memory that may be used, in bytes.
      multiple: the size of a micro-batch must be a multiple of this.

    Returns:
      the smallest number of micro-batches that fits, or None.
    """
    per_image = max(0.0, (peaks[1] - peaks[0]) / (sizes[1] - sizes[0]))
    fixed = peaks[0] - per_image * sizes[0]
    max_size = math.inf if not per_image else (limit - fixed) / per_image
    logging.info("--auto_batch: %.2f GB and %.3f GB per image", fixed / 1e9, per_image / 1e9)
    counts = list_micro_batch_counts(images, multiple)
    return next((count for count in counts if images // count <= max_size), None)


def try_micro_batches(
    images: int, trial: Callable[[int], dict | None], multiple: int = 1
) -> int | None:
    """Tries smaller and smaller micro-batches until one fits.

    Args:
      images: images per replica in one step.
      trial: tries a micro-batch size; raises OutOfMemoryError if it does not fit.
      multiple: the size of a micro-batch must be a multiple of this.

    Returns:
      the smallest number of micro-batches that fits, or None.
    """
    for count in list_micro_batch_counts(images, multiple):
        try:
            trial(images // count)
        except OutOfMemoryError:
            continue
        return count
    return None


def run_trial(config: Config, size: int) -> dict:
    """Runs two training steps in a separate process.

    Args:
      config: resolved config.
      size: images per replica in each of the two micro-batches of a step.

    Returns:
      dict: peak_bytes, replicas, gpu.

    Raises:
      OutOfMemoryError: the trial ran out of memory.
      UsageError: the trial failed for another reason.
    """
    # The trial runs in the current folder, because the paths of the config may be relative to it.
    # -P: modules in that folder must not take the place of ours.
    paths = [str(pathlib.Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-P", "-m", "loops.tools.auto_batch_trial", str(size)]
    code = user_code.to_json(config.leaves().values())
    text = json.dumps({"config": config_json.to_json(config), "code": code})
    process = subprocess.run(command, env=environment, input=text, capture_output=True, text=True)
    if process.returncode:
        if process.returncode == -signal.SIGKILL:  # by the system's out-of-memory killer
            raise OutOfMemoryError
        if "ResourceExhausted" in process.stderr or "out of memory" in process.stderr.lower():
            raise OutOfMemoryError
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        reason = lines[-1].rpartition("Error: ")[2][:200]
        raise UsageError(f"--auto_batch: a trial with {size} images failed: {reason}")
    return json.loads(process.stdout.splitlines()[-1])
