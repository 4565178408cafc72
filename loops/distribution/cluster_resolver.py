"""Who the workers of a training are: what TF_CONFIG or Slurm says."""

import json
import os

import tensorflow as tf

from input_pipeline.errors import UsageError
from input_pipeline.service import data_service
from loops.distribution import slurm

_TF_CONFIG = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'


def resolver():
    """The workers that TF_CONFIG names, or else Slurm: a tf.distribute ClusterResolver.

    Raises:
      UsageError: neither names any, or TF_CONFIG not which of them this is, or a host's port.
    """
    if hosts_of_tf_config():
        _require_a_task()
        found = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        spec = found.cluster_spec()
        for host in (host for kind in spec.jobs for host in spec.job_tasks(kind)):
            data_service.address(host, "TF_CONFIG, host")
        return found
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return slurm.resolver()
    raise UsageError(
        "--strategy=multi_worker: neither TF_CONFIG nor Slurm (SLURM_NTASKS) names the workers"
    )


def hosts_of_tf_config():
    """How many hosts TF_CONFIG names.

    Raises:
      UsageError: it cannot be read.
    """
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        return sum(len(hosts) for hosts in json.loads(text).get("cluster", {}).values())
    except (ValueError, AttributeError, TypeError):
        raise UsageError(f"TF_CONFIG={text}: not of the form {_TF_CONFIG}") from None


def _require_a_task():
    """Raises UsageError where TF_CONFIG does not say which of its workers this process is."""
    text = os.environ["TF_CONFIG"]
    known = json.loads(text)
    places = [
        (kind, str(index))
        for kind in ("chief", "worker")
        for index in range(len(known["cluster"].get(kind, ())))
    ]
    task = known.get("task")
    if not isinstance(task, dict) or (task.get("type"), str(task.get("index"))) not in places:
        raise UsageError(
            f"TF_CONFIG={text}: its task is {json.dumps(task)}, which is none of its workers; set"
            ' it on each of them, as in "task": {"type": "worker", "index": 0}'
        )
