"""Determines the workers of a training run from TF_CONFIG or Slurm."""

import json
import os

import tensorflow as tf

from input_pipeline.errors import UsageError
from input_pipeline.service import data_service
from loops.distribution import slurm

_TF_CONFIG_EXAMPLE = (
    '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
)


def make_resolver() -> tf.distribute.cluster_resolver.ClusterResolver:
    """Makes the resolver of the workers that TF_CONFIG or, without it, Slurm names.

    Raises:
      UsageError: no workers are named, or TF_CONFIG has no valid task or a host without a port.
    """
    if count_tf_config_hosts():
        _require_task()
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        spec = resolver.cluster_spec()
        for host in (host for kind in spec.jobs for host in spec.job_tasks(kind)):
            data_service.parse_address(host, "TF_CONFIG, host")
        return resolver
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return slurm.make_resolver()
    raise UsageError(
        "--strategy=multi_worker: neither TF_CONFIG nor Slurm (SLURM_NTASKS) names the workers"
    )


def count_tf_config_hosts() -> int:
    """Returns the number of hosts in TF_CONFIG.

    Raises:
      UsageError: TF_CONFIG is malformed.
    """
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        return sum(len(hosts) for hosts in json.loads(text).get("cluster", {}).values())
    except (ValueError, AttributeError, TypeError):
        raise UsageError(f"TF_CONFIG={text}: not of the form {_TF_CONFIG_EXAMPLE}") from None


def _require_task() -> None:
    """Raises UsageError if the task in TF_CONFIG is not one of its workers."""
    text = os.environ["TF_CONFIG"]
    tf_config = json.loads(text)
    tasks = [
        (kind, str(index))
        for kind in ("chief", "worker")
        for index in range(len(tf_config["cluster"].get(kind, ())))
    ]
    task = tf_config.get("task")
    if not isinstance(task, dict) or (task.get("type"), str(task.get("index"))) not in tasks:
        raise UsageError(
            f"TF_CONFIG={text}: its task {json.dumps(task)} is not one of its workers; set the task"
            ' on each worker, as in "task": {"type": "worker", "index": 0}'
        )
