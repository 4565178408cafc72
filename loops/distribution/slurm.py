"""Determines the workers of a Slurm job step and the GPUs of each task."""

import collections
import itertools
import os
import re
import shutil
import subprocess

from input_pipeline.errors import UsageError
from input_pipeline.text import is_number

_FIRST_PORT = 8888
_START = "start the program with srun, as in srun --ntasks=2 python main.py"
# Slurm's names for numbering the tasks node by node, which is its default.
_BLOCK = ("", "*", "unknown", "block")

# The GPUs that an earlier call in this process has left to this task.
_own_gpus: str | None = None


def is_present() -> bool:
    """Returns whether this process belongs to a Slurm job."""
    return any(name in os.environ for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_NTASKS"))


def find_workers() -> tuple[list[str], int]:
    """Finds the workers of this job step, one per task.

    Only the variables of the step count. Those of the job, such as SLURM_NTASKS, are also set in
    the shells of salloc and sbatch, which are single processes.

    Returns:
      (HOST:PORT of every worker, number of this worker).

    Raises:
      UsageError: this is no step of several tasks, or its variables cannot be used.
    """
    tasks = _read_number("SLURM_STEP_NUM_TASKS")
    number = _read_number("SLURM_PROCID")
    if tasks < 2:
        raise UsageError(f"SLURM_STEP_NUM_TASKS={tasks}: the step has no several tasks; {_START}")
    if number >= tasks:
        raise UsageError(f"SLURM_PROCID={number}: is not one of the {tasks} tasks of the step")
    nodes, counts = _read_nodes(), _read_task_counts()
    if len(nodes) != len(counts) or sum(counts) != tasks:
        raise UsageError(
            f"SLURM_STEP_TASKS_PER_NODE={_read('SLURM_STEP_TASKS_PER_NODE')}: does not give"
            f" {tasks} tasks on the {len(nodes)} nodes of the step; {_START}"
        )
    order = _order_tasks(counts)
    node = os.environ.get("SLURM_NODEID", str(order[number]))
    if node != str(order[number]):
        raise UsageError(
            f"SLURM_NODEID={node}: task {number} was expected on node {order[number]}; add"
            " --distribution=block to srun"
        )
    placed: collections.Counter[str] = collections.Counter()
    hosts = []
    for name in (nodes[index] for index in order):
        hosts.append(f"{name}:{_FIRST_PORT + placed[name]}")
        placed[name] += 1
    return hosts, number


def restrict_visible_gpus() -> None:
    """Restricts this task to its share of the GPUs that all tasks of its node see.

    Call this before TensorFlow initializes the GPUs. Does nothing if Slurm has already assigned
    them: if GPUs per task were requested, or if there are fewer visible GPUs than tasks.
    """
    global _own_gpus
    counts, node = _read_task_counts(), _read_number("SLURM_NODEID", "0")
    num_tasks = counts[node] if node < len(counts) else 1
    gpus = _list_visible_gpus()
    is_own = _own_gpus is not None and os.environ.get("CUDA_VISIBLE_DEVICES") == _own_gpus
    if is_own or num_tasks == 1 or len(gpus) < num_tasks or "SLURM_GPUS_PER_TASK" in os.environ:
        return
    share = len(gpus) // num_tasks
    first = _read_number("SLURM_LOCALID") * share
    os.environ["CUDA_VISIBLE_DEVICES"] = _own_gpus = ",".join(gpus[first : first + share])


def _read(name: str, default: str = "") -> str:
    """Returns a variable of the step; raises UsageError if it is missing or empty."""
    value = os.environ.get(name, default).strip()
    if not value:
        raise UsageError(f"{name} is not set, so this is no task of a Slurm step; {_START}")
    return value


def _read_number(name: str, default: str = "") -> int:
    value = _read(name, default)
    if not (is_number(value) and len(value) < 10):
        raise UsageError(f"{name}={value}: is not a number; {_START}")
    return int(value)


def _read_nodes() -> list[str]:
    """Expands a list such as `n[1-2,5],m[01-03]-x`; a later bracket varies faster.

    Raises:
      UsageError: the list has another form.
    """
    text, nodes = _read("SLURM_STEP_NODELIST"), []
    for part in re.split(r",(?![^\[]*\])", text):
        pieces = re.findall(r"\[[\d,-]+\]|[^\[\],\s]+", part)
        if not part or "".join(pieces) != part:
            raise UsageError(f"SLURM_STEP_NODELIST={text}: is not a list of nodes")
        choices = [_expand_bracket(piece, text) for piece in pieces]
        nodes += ["".join(names) for names in itertools.product(*choices)]
    return nodes


def _expand_bracket(piece: str, text: str) -> list[str]:
    """Returns the texts that a piece of a node's name stands for; numbers keep their width."""
    if not piece.startswith("["):
        return [piece]
    numbers = []
    for part in piece[1:-1].split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part, re.ASCII)
        if not match or int(match[1]) > int(match[2] or match[1]):
            raise UsageError(f"SLURM_STEP_NODELIST={text}: has a bad range, {part}")
        last = int(match[2] or match[1])
        numbers += [str(n).zfill(len(match[1])) for n in range(int(match[1]), last + 1)]
    return numbers


def _read_task_counts() -> list[int]:
    """Expands the number of tasks of each node, such as `2(x3),1`.

    Raises:
      UsageError: the text has another form.
    """
    text, counts = _read("SLURM_STEP_TASKS_PER_NODE"), []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,6})(?:\(x(\d{1,6})\))?", part, re.ASCII)
        if not match:
            raise UsageError(f"SLURM_STEP_TASKS_PER_NODE={text}: is not of the form 2(x3),1")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _order_tasks(counts: list[int]) -> list[int]:
    """Returns the node of every task.

    Args:
      counts: number of tasks of each node.

    Raises:
      UsageError: the tasks are distributed in a way that the variables do not describe.
    """
    text = os.environ.get("SLURM_DISTRIBUTION", "")
    distribution = re.split("[:,]", text)[0].lower()
    by_node = [(turn, node) for node, count in enumerate(counts) for turn in range(count)]
    if distribution == "cyclic":
        return [node for _, node in sorted(by_node)]
    if distribution in _BLOCK:
        return [node for _, node in by_node]
    raise UsageError(f"SLURM_DISTRIBUTION={text}: add --distribution=block to srun")


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
