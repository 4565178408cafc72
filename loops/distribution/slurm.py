"""The workers of a Slurm job step: who they are, and which GPUs of a node are whose."""

import os
import shutil
import subprocess

import tensorflow as tf

_FIRST_PORT = 8888


def make_resolver():
    """The workers, one for each task of the job step: a tf.distribute ClusterResolver.

    Tasks are numbered node by node, as Slurm does by default. Call before TensorFlow looks at the
    GPUs: where the tasks of a node see the same ones, each is left its part of them.
    """
    most = int(os.environ["SLURM_NTASKS"])
    # It would count GPUs in ways that fail where there are none, or where Slurm has dealt them:
    # it is told of some, which it does not set.
    told = tf.distribute.cluster_resolver.SlurmClusterResolver(
        gpus_per_node=most, gpus_per_task=1, auto_set_gpu=False
    )
    # In the order of the tasks; its own cluster_spec sorts the nodes as text, n10 before n2.
    tasks_of = told._task_configuration
    hosts = [f"{node}:{_FIRST_PORT + k}" for node, count in tasks_of.items() for k in range(count)]
    node = int(os.environ.get("SLURM_NODEID", "0"))
    _take_own_gpus(list(tasks_of.values())[node])
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": hosts}),
        task_type="worker",
        task_id=int(os.environ["SLURM_PROCID"]),
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        rpc_layer="grpc",
    )


def _take_own_gpus(tasks):
    """Leaves this task its part of the GPUs that all tasks of its node see.

    Where they are fewer than the tasks, or Slurm was asked for some for each task, it has dealt
    them itself.
    """
    seen = _list_visible_gpus()
    if tasks == 1 or len(seen) < tasks or "SLURM_GPUS_PER_TASK" in os.environ:
        return
    share = len(seen) // tasks
    first = int(os.environ["SLURM_LOCALID"]) * share
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(seen[first : first + share])


def _list_visible_gpus():
    """Numbers or names of the GPUs that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu for gpu in given.split(",") if gpu not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    gpus = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(gpus))]
