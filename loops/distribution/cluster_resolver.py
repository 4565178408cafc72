"""Determines the workers of a training run from TF_CONFIG or Slurm."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.service import data_service
from loops.distribution import slurm

_TF_CONFIG_EXAMPLE = (
    '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
)
_TASK_ADVICE = 'set the task on each worker, as in "task": {"type": "worker", "index": 0}'
# The jobs of TF_CONFIG that train, in the order in which TensorFlow numbers their tasks.
_TRAINING_JOBS = ("chief", "worker")
_OTHER_JOBS = ("ps", "evaluator")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run, and which of them this process is.

    Attributes:
      source: what names the workers, for messages: "TF_CONFIG" or "Slurm".
      jobs: HOST:PORT of each task of the jobs "chief" and "worker".
      task_type: job of this process.
      task_id: its number in the job.
    """

    source: str
    jobs: Mapping[str, tuple[str, ...]]
    task_type: str
    task_id: int

    @property
    def addresses(self) -> list[str]:
        """HOST:PORT of every worker, by number; the chief has number 0."""
        return [address for job in _TRAINING_JOBS for address in self.jobs.get(job, ())]

    @property
    def number(self) -> int:
        """Number of this worker."""
        return self.task_id + (len(self.jobs.get("chief", ())) if self.task_type != "chief" else 0)


def make_resolver(cluster: Cluster) -> tf.distribute.cluster_resolver.ClusterResolver:
    """Makes TensorFlow's description of the workers."""
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({job: list(hosts) for job, hosts in cluster.jobs.items()}),
        task_type=cluster.task_type,
        task_id=cluster.task_id,
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        rpc_layer="grpc",
    )


def find_cluster() -> Cluster:
    """Finds the workers that TF_CONFIG or, without it, Slurm names.

    Raises:
      UsageError: no workers are named, or they are named in a way that cannot work.
    """
    jobs = _read_jobs()
    if any(jobs.values()):
        return _check_tf_config(jobs)
    if slurm.is_present():
        hosts, number = slurm.find_workers()
        return Cluster("Slurm", {"worker": tuple(hosts)}, "worker", number)
    raise UsageError(
        "--strategy=multi_worker: neither TF_CONFIG nor Slurm (SLURM_NTASKS) names the workers"
    )


def count_tf_config_hosts() -> int:
    """Returns the number of hosts in TF_CONFIG.

    Raises:
      UsageError: TF_CONFIG is malformed.
    """
    return sum(len(hosts) for hosts in _read_jobs().values())


def _read_tf_config() -> Any:
    """Returns the contents of TF_CONFIG; raises ValueError or RecursionError if it is not JSON."""
    return json.loads(os.environ.get("TF_CONFIG", "").strip() or "{}")


def _read_jobs() -> dict[str, tuple[str, ...]]:
    """Returns the hosts of each job in TF_CONFIG; raises UsageError if it is malformed."""
    try:
        cluster = _read_tf_config().get("cluster", {})
        return {job: _list_hosts(hosts) for job, hosts in cluster.items()}
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise UsageError(f"{_show()}: not of the form {_TF_CONFIG_EXAMPLE}") from None


def _show() -> str:
    """Returns TF_CONFIG on one line of at most 300 characters."""
    text = " ".join(os.environ["TF_CONFIG"].split())
    return f"TF_CONFIG={text if len(text) <= 300 else text[:300] + '...'}"


def _list_hosts(hosts: Any) -> tuple[str, ...]:
    """Returns the hosts of a job: a list, or a dict by index without gaps.

    Raises:
      ValueError, TypeError: the hosts have another form.
    """
    if isinstance(hosts, dict):
        hosts = [hosts[str(index)] for index in range(len(hosts))] if _is_dense(hosts) else None
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise TypeError("not a list of hosts")
    return tuple(hosts)


def _is_dense(hosts: Mapping[str, Any]) -> bool:
    return set(hosts) == {str(index) for index in range(len(hosts))}


def _check_tf_config(jobs: Mapping[str, tuple[str, ...]]) -> Cluster:
    """Returns the Cluster of a well-formed TF_CONFIG that names hosts.

    Raises:
      UsageError: a job, a host, the task or the protocol cannot be used.
    """
    tf_config = _read_tf_config()
    for job in jobs:
        if job not in _TRAINING_JOBS + _OTHER_JOBS:
            raise UsageError(f'{_show()}: there is no job {json.dumps(job)}; call it "worker"')
    if tf_config.get("rpc_layer") not in (None, "", "grpc"):
        raise UsageError(f'{_show()}: the only rpc_layer is "grpc"; leave it out')
    training = {job: jobs[job] for job in _TRAINING_JOBS if jobs.get(job)}
    if len(training.get("chief", ())) > 1:
        raise UsageError(f"{_show()}: names several chiefs; name one, and the others as workers")
    addresses = [address for hosts in training.values() for address in hosts]
    for address in addresses:
        data_service.parse_address(address, "TF_CONFIG, host")
        if addresses.count(address) > 1:
            raise UsageError(f"TF_CONFIG, host={address}: is named twice; give each worker its own")
    task = tf_config.get("task")
    if task is None:
        raise UsageError(f"{_show()}: the task is missing; {_TASK_ADVICE}")
    kind, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    hosts = training.get(kind, ()) if isinstance(kind, str) else ()
    numbers = {str(number): number for number in range(len(hosts))}
    # Programs that write TF_CONFIG give the index as a number or as text.
    if isinstance(index, bool) or not isinstance(index, (int, str)) or str(index) not in numbers:
        raise UsageError(
            f"{_show()}: its task {json.dumps(task)} is not one of its workers; {_TASK_ADVICE}"
        )
    for job in _OTHER_JOBS:
        if jobs.get(job):
            logging.warning("TF_CONFIG: the %s tasks take no part in training", job)
    return Cluster("TF_CONFIG", training, str(kind), numbers[str(index)])
