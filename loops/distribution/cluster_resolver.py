"""Who the workers of a training are: what TF_CONFIG or Slurm says."""

import json
import os

import tensorflow as tf

from input_pipeline.errors import UsageError
from input_pipeline.service import data_service
from loops.distribution import slurm

_TF_CONFIG_EXAMPLE = (
    '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
)


def make_resolver():
    """The workers that TF_CONFIG names, or else Slurm: a tf.distribute ClusterResolver.

    Raises:
      UsageError: neither names any, or TF_CONFIG not which of them this is, or a host's port.
    """
    if count_tf_config_hosts():
        _require_task()
        found = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        spec = found.cluster_spec()
        for host in (host for kind in spec.jobs for host in spec.job_tasks(kind)):
            data_service.parse_address(host, "TF_CONFIG, host")
        return found
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return slurm.make_resolver()
    raise UsageError(
        "--strategy=multi_worker: neither TF_CONFIG nor Slurm (SLURM_NTASKS) names the workers"
    )


def count_tf_config_hosts():
    """How many hosts TF_CONFIG names.

    Raises:
      UsageError: it cannot be read.
    """
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        return sum(len(hosts) for hosts in json.loads(text).get("cluster", {}).values())
    except (ValueError, AttributeError, TypeError):
        raise UsageError(f"TF_CONFIG={text}: not of the form {_TF_CONFIG_EXAMPLE}") from None


def _require_task():
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
