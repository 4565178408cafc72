"""Agreement between the worker processes of a training run."""

import functools
import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline.errors import UsageError, UserError
from input_pipeline.sample_order import ReplicaSlice
from loops.distribution import rendezvous

# Network file systems may take this long to show a new folder.
_FOLDER_TIMEOUT_SECONDS = 60.0


class Workers:
    """The worker processes of a training run.

    Args:
      strategy: the strategy over all workers.

    Attributes:
      num_workers: number of workers.
      is_chief: whether this worker writes the run folder.
    """

    def __init__(self, strategy: "tf.distribute.Strategy") -> None:
        index, self.num_workers = _get_index_and_count(strategy)
        self.is_chief = index == 0
        self._all_reduce_max = tf.function(
            lambda values: strategy.run(_all_reduce_max, args=(values,)), autograph=False
        )
        self._strategy = strategy

    def all_reduce_max(self, *values: float) -> list[float]:
        """Returns the maximum of each value over all workers; all must call this together.

        Args:
          values: numbers that float64 represents exactly.
        """
        if self.num_workers == 1:
            return [float(value) for value in values]
        result = self._all_reduce_max(tf.constant(values, tf.float64))
        return self._strategy.experimental_local_results(result)[0].numpy().tolist()

    def agree(self, work: Callable[[], None], describe: Callable[[], Mapping[str, str]]) -> None:
        """Does work that may fail on one worker only, then compares its facts on all workers.

        Args:
          work: what each worker does.
          describe: returns what must be equal on all workers after it, by name.

        Raises:
          UserError: the work failed, on all workers with the same exit code.
          UsageError: a fact differs, on all workers.
        """
        if self.num_workers == 1:
            work()
            return
        facts, error = {}, None
        try:
            work()
            facts = dict(describe())
        except UserError as failure:
            error = failure
        report = {"facts": facts, "error": str(error or ""), "code": error and error.exit_code}
        reports = dict(enumerate(self._gather_json(report)))
        if error:
            raise error
        for number, other in reports.items():
            if other["error"]:
                failed = UserError(f"worker {number} has ended: {other['error']}")
                failed.exit_code = other["code"]
                raise failed
        everyone = {number: other["facts"] for number, other in reports.items()}
        if difference := rendezvous.describe_differences(everyone):
            raise UsageError(difference)

    def _gather_json(self, value: Any) -> list[Any]:
        """Returns the values of all workers, by number."""
        data = json.dumps(value).encode()
        length = int(self.all_reduce_max(len(data))[0])
        padded = tf.constant(list(data.ljust(length)), tf.int32)[None]
        lines = gather(self._strategy, {"json": padded})["json"].astype(np.uint8)
        per_worker = len(lines) // self.num_workers
        return [json.loads(bytes(line)) for line in lines[::per_worker]]

    def wait_for_folder(self, path: pathlib.Path | str) -> None:
        """Waits until the chief has created a folder and every worker sees it.

        Raises:
          UsageError: a worker does not see the folder; raised on all workers.
        """
        self.all_reduce_max(0)
        deadline = time.monotonic() + _FOLDER_TIMEOUT_SECONDS
        while not os.path.isdir(path) and time.monotonic() < deadline:
            time.sleep(1.0)
        if self.all_reduce_max(float(not os.path.isdir(path)))[0]:
            raise UsageError(
                f"--checkpoint_dir: not every worker sees {path}, which worker 0 has created; all"
                " workers need one shared folder"
            )


def _all_reduce_max(values: tf.Tensor) -> tf.Tensor:
    """Gathers the values and takes their maximum, because collectives can only sum and gather."""
    context = tf.distribute.get_replica_context()
    return tf.reduce_max(context.all_gather(values[None], axis=0), axis=0)


def _get_index_and_count(strategy: "tf.distribute.Strategy") -> tuple[int, int]:
    """Returns (index of this worker, number of workers); the chief has index 0."""
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec().as_dict() if resolver is not None else {}
    if not cluster:
        return 0, 1
    tasks = [(kind, i) for kind in ("chief", "worker") for i in range(len(cluster.get(kind, ())))]
    return tasks.index((resolver.task_type, resolver.task_id)), len(tasks)


def get_replica_slice(strategy: "tf.distribute.Strategy") -> ReplicaSlice:
    """Returns the replicas that this worker feeds."""
    number, workers = _get_index_and_count(strategy)
    local = strategy.num_replicas_in_sync // workers
    return ReplicaSlice(number * local, local, strategy.num_replicas_in_sync)


def gather(
    strategy: "tf.distribute.Strategy", batch: Mapping[str, tf.Tensor]
) -> dict[str, np.ndarray]:
    """Concatenates the tensors of all replicas and workers in the order of the images.

    Args:
      strategy: the strategy over all workers.
      batch: per-replica tensors [B, ...] by name.

    Returns:
      arrays [replicas * B, ...] by name, the same on every worker.
    """
    local_results = strategy.experimental_local_results
    if _get_index_and_count(strategy)[1] == 1:
        return {k: np.concatenate([t.numpy() for t in local_results(v)]) for k, v in batch.items()}
    gathered = {k: local_results(v)[0].numpy() for k, v in _make_gather(strategy)(batch).items()}
    dtypes = {k: local_results(v)[0].dtype.as_numpy_dtype for k, v in batch.items()}
    return {k: v.astype(dtypes[k]) for k, v in gathered.items()}


@functools.lru_cache(maxsize=1)
def _make_gather(
    strategy: "tf.distribute.Strategy",
) -> Callable[[Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]]:
    """Makes a gather function that traces once, unlike `strategy.gather`, which always traces."""

    def on_replica(batch: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        # Collectives need numbers with a known device, which a copy has.
        numbers = {k: tf.cast(v, tf.int32) if v.dtype == tf.bool else v for k, v in batch.items()}
        copies = {name: tf.identity(value) for name, value in numbers.items()}
        return tf.distribute.get_replica_context().all_gather(copies, axis=0)

    return tf.function(lambda batch: strategy.run(on_replica, args=(batch,)), autograph=False)
