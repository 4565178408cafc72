"""What several workers must agree on: their Python sides decide alike or wait for each other."""

import functools
import os
import time

import numpy as np
import tensorflow as tf

from input_pipeline.errors import UsageError
from input_pipeline.sample_order import ReplicaSlice

# So long a network's file system may hide what another machine has just made.
_FOLDER_TIMEOUT_SECONDS = 60.0


class Workers:
    """The processes of a training, and agreement among them.

    Args:
      strategy: tf.distribute.Strategy.

    Attributes:
      number: how many there are.
      is_chief: whether this one writes the run folder.
    """

    def __init__(self, strategy):
        number, self.num_workers = _get_index_and_count(strategy)
        self.is_chief = number == 0
        self._all_reduce_max = tf.function(
            lambda values: strategy.run(_all_reduce_max, args=(values,)), autograph=False
        )
        self._strategy = strategy

    def all_reduce_max(self, *values):
        """The largest of every worker's values; all workers must call this together.

        Args:
          values: floats that float64 holds exactly.

        Returns:
          list of floats, equal on all workers.
        """
        if self.num_workers == 1:
            return [float(value) for value in values]
        result = self._all_reduce_max(tf.constant(values, tf.float64))
        return self._strategy.experimental_local_results(result)[0].numpy().tolist()

    def require_equal(self, value, what):
        """Returns a value that must be the same on all workers.

        Raises:
          UsageError: it is not.
        """
        high, low = self.all_reduce_max(value, -value)
        if high != -low:
            raise UsageError(
                f"--checkpoint_dir: workers differ in {what}, from {-low:g} to {high:g}; all of"
                " them must see one folder, and what another has just written there"
            )
        return value

    def wait_for_folder(self, path):
        """Waits until the chief has come this far, and until a folder of his is seen by all.

        Args:
          path: of the folder.

        Raises:
          UsageError: on all workers, where one does not see it.
        """
        self.all_reduce_max(0)
        deadline = time.monotonic() + _FOLDER_TIMEOUT_SECONDS
        while not os.path.isdir(path) and time.monotonic() < deadline:
            time.sleep(1.0)
        if self.all_reduce_max(float(not os.path.isdir(path)))[0]:
            raise UsageError(
                f"--checkpoint_dir: not every worker sees {path}, which worker 0 has made; all of"
                " them need one folder that they share"
            )


def _all_reduce_max(values):
    """All workers' values side by side: collectives gather, but know no maximum."""
    context = tf.distribute.get_replica_context()
    return tf.reduce_max(context.all_gather(values[None], axis=0), axis=0)


def _get_index_and_count(strategy):
    """(which worker this is, how many there are); the chief is number 0."""
    resolver = strategy.cluster_resolver
    tasks = resolver.cluster_spec().as_dict() if resolver is not None else {}
    if not tasks:
        return 0, 1
    places = [(kind, i) for kind in ("chief", "worker") for i in range(len(tasks.get(kind, ())))]
    return places.index((resolver.task_type, resolver.task_id)), len(places)


def get_replica_slice(strategy: "tf.distribute.Strategy") -> ReplicaSlice:
    """Returns the replicas that this worker feeds."""
    number, workers = _get_index_and_count(strategy)
    local = strategy.num_replicas_in_sync // workers
    return ReplicaSlice(number * local, local, strategy.num_replicas_in_sync)


def gather(strategy, batch):
    """The replicas' tensors of all workers, joined in the order in which images were dealt.

    Args:
      strategy: tf.distribute.Strategy.
      batch: dict of per-replica tensors [B, ...].

    Returns:
      dict of numpy arrays [replicas * B, ...], the same on every worker.
    """
    local = strategy.experimental_local_results
    if _get_index_and_count(strategy)[1] == 1:
        return {k: np.concatenate([t.numpy() for t in local(v)]) for k, v in batch.items()}
    joined = {k: local(v)[0].numpy() for k, v in _make_gather(strategy)(batch).items()}
    return {k: v.astype(local(batch[k])[0].dtype.as_numpy_dtype) for k, v in joined.items()}


@functools.lru_cache(maxsize=1)
def _make_gather(strategy):
    """A function that is traced once for a batch; `strategy.gather` is traced at every call."""

    def on_replica(batch):
        # Collectives take numbers only, and only of a known device: a copy has one.
        numbers = {k: tf.cast(v, tf.int32) if v.dtype == tf.bool else v for k, v in batch.items()}
        copies = {name: tf.identity(value) for name, value in numbers.items()}
        return tf.distribute.get_replica_context().all_gather(copies, axis=0)

    return tf.function(lambda batch: strategy.run(on_replica, args=(batch,)), autograph=False)
