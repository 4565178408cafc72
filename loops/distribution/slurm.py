"""Determines the workers of a Slurm job step and the GPUs of each task."""

import os
import shutil
import subprocess

import tensorflow as tf

_FIRST_PORT = 8888


def make_resolver() -> tf.distribute.cluster_resolver.ClusterResolver:
    """Makes the resolver of a job step with one worker per task.

    Tasks are numbered node by node, which is Slurm's default. Call this before TensorFlow
    initializes the GPUs: if the tasks of a node see the same GPUs, each task takes its share.
    """
    num_tasks = int(os.environ["SLURM_NTASKS"])
    # Explicit GPU counts prevent TensorFlow from counting GPUs, which fails if there are none or
    # if Slurm has already assigned them. The counts have no effect with auto_set_gpu=False.
    slurm_resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        gpus_per_node=num_tasks, gpus_per_task=1, auto_set_gpu=False
    )
    # The private attribute is in task order. The public cluster_spec sorts n10 before n2.
    tasks_per_node = slurm_resolver._task_configuration
    hosts = [
        f"{node}:{_FIRST_PORT + k}" for node, count in tasks_per_node.items() for k in range(count)
    ]
    node = int(os.environ.get("SLURM_NODEID", "0"))
    _restrict_visible_gpus(list(tasks_per_node.values())[node])
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": hosts}),
        task_type="worker",
        task_id=int(os.environ["SLURM_PROCID"]),
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        rpc_layer="grpc",
    )


def _restrict_visible_gpus(num_tasks: int) -> None:
    """Restricts this task to its share of the GPUs that all tasks of its node see.

    Does nothing if Slurm has already assigned them: if GPUs per task were requested, or if there
    are fewer visible GPUs than tasks.

    Args:
      num_tasks: number of tasks on this node.
    """
    gpus = _list_visible_gpus()
    if num_tasks == 1 or len(gpus) < num_tasks or "SLURM_GPUS_PER_TASK" in os.environ:
        return
    share = len(gpus) // num_tasks
    first = int(os.environ["SLURM_LOCALID"]) * share
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[first : first + share])


def _list_visible_gpus() -> list[str]:
    """Lists the indices or names of the GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    listing = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    gpus = [line for line in listing.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(gpus))]
