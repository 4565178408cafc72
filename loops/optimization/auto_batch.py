"""`--auto_batch`: into how many micro-batches a batch must be cut to fit into memory.

Trials are processes of their own: on a GPU one that runs out of memory must not take the training
with it, and on a CPU the system would end it without a word.
"""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys

from absl import logging

from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import UsageError
from input_pipeline.system import available_memory
from input_pipeline.text import pluralize
from loops.config import config_json
from loops.distribution import strategies

# The share of what is available that training may take; the rest is for data and evaluation.
_MEMORY_FRACTION = 0.8
# Images per replica in the trials that memory is extrapolated from.
_TRIAL_SIZES = (2, 6)


class OutOfMemoryError(Exception):
    """A trial ran out of memory."""


def choose_accumulate(config):
    """Replaces `--auto_batch` by the smallest `--accumulate` that fits, and says so.

    Args:
      config: resolved Config.

    Returns:
      Config.

    Raises:
      UsageError: not even one image at a time fits, or there are several workers.
    """
    if not config.optimization.auto_batch:
        return config
    if strategies.is_multi_worker(config.distribution):
        raise UsageError("--auto_batch: not with several workers; give --accumulate")
    multiple = 2 if batch_augment.is_mixing(config.data) else 1
    try:
        parts, of_replica = _find_micro_batches(config, multiple)
    except OutOfMemoryError:
        raise UsageError(
            f"--auto_batch: memory is too small for even {pluralize(multiple, 'image')}; take a"
            f" smaller --model, --image_size={config.data.image_size} or --mixed_precision"
        ) from None
    logging.info(
        "--auto_batch: --accumulate=%d, micro-batches of %d images", parts, of_replica // parts
    )
    return config.replace(accumulate=parts)


def _find_micro_batches(config, multiple):
    """The smallest number of parts that fits, and the images of a replica.

    Raises:
      DoesNotFit: none does.
    """
    try:
        first = _run_trial(config, _TRIAL_SIZES[0])
    except OutOfMemoryError:
        if multiple > 1:
            raise
        of_replica = _get_per_replica_batch_size(config, _run_trial(config, 1))
        return of_replica, of_replica
    of_replica = _get_per_replica_batch_size(config, first)
    if first["gpu"]:
        parts = try_micro_batches(of_replica, lambda size: _run_trial(config, size), multiple)
    else:
        parts = _find_micro_batches_on_cpu(config, first["peak_bytes"], of_replica, multiple)
    if parts is None:
        raise OutOfMemoryError
    return parts, of_replica


def _get_per_replica_batch_size(config, trial):
    """Images of a replica; UsageError where they could not be trained on, however they are cut."""
    of_replica = strategies.divide_batch(config.data.batch_size, trial["replicas"])
    batch_augment.require_even_batch(config.data, of_replica)
    return of_replica


def _find_micro_batches_on_cpu(config, peak_of_small, of_replica, multiple):
    """The smallest number of parts by the memory of two trials, or None."""
    available = available_memory.available_bytes()
    if available is None:
        raise UsageError("--auto_batch: this system does not tell its memory; give --accumulate")
    small, larger = _TRIAL_SIZES
    try:
        peaks = [peak_of_small, _run_trial(config, larger)["peak_bytes"]]
    except OutOfMemoryError:
        every = list_micro_batch_counts(of_replica, multiple)
        return next((n for n in every if of_replica // n <= small), None)
    return estimate_micro_batches(
        of_replica, _TRIAL_SIZES, peaks, _MEMORY_FRACTION * available, multiple
    )


def list_micro_batch_counts(images, multiple=1):
    """Into how many equal parts images can be cut, each a multiple of some number; ascending."""
    parts = (d for d in range(1, images + 1) if images % d == 0)
    return [d for d in parts if images // d % multiple == 0]


def estimate_micro_batches(images, sizes, peaks, limit, multiple=1):
    """Extrapolates peak memory, which grows with the images of a micro-batch along a line.

    Args:
      images: of a replica in one step.
      sizes: two numbers of images per replica that were tried.
      peaks: peak memory in bytes with each, of all replicas together.
      limit: bytes that may be used.
      multiple: what the images of a part must be a multiple of; mixing takes pairs.

    Returns:
      the smallest number of equal parts of the images that fits, or None.
    """
    per_image = max(0.0, (peaks[1] - peaks[0]) / (sizes[1] - sizes[0]))
    fixed = peaks[0] - per_image * sizes[0]
    fit = math.inf if not per_image else (limit - fixed) / per_image
    logging.info("--auto_batch: %.2f GB and %.3f GB per image", fixed / 1e9, per_image / 1e9)
    return next(
        (parts for parts in list_micro_batch_counts(images, multiple) if images // parts <= fit),
        None,
    )


def try_micro_batches(images, trial, multiple=1):
    """Tries ever smaller micro-batches; `trial` raises DoesNotFit. Returns as above."""
    for parts in list_micro_batch_counts(images, multiple):
        try:
            trial(images // parts)
        except OutOfMemoryError:
            continue
        return parts
    return None


def _run_trial(config, size):
    """Does two steps of two micro-batches of `size` images per replica in a process of its own.

    Returns:
      dict: peak_bytes, replicas, gpu.
    """
    # The paths of the config are seen from this folder, so the trial has to be in it, too.
    places = [str(pathlib.Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    command = [sys.executable, "-m", "loops.tools.auto_batch_trial", str(size)]
    text = json.dumps(config_json.to_json(config))
    done = subprocess.run(command, env=environment, input=text, capture_output=True, text=True)
    if done.returncode:
        if done.returncode == -signal.SIGKILL:  # so the system ends who takes too much
            raise OutOfMemoryError
        if "ResourceExhausted" in done.stderr or "out of memory" in done.stderr.lower():
            raise OutOfMemoryError
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        reason = lines[-1].rpartition("Error: ")[2][:200]
        raise UsageError(f"--auto_batch: a trial with {size} images failed: {reason}")
    return json.loads(done.stdout.splitlines()[-1])
