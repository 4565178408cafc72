"""TF_CONFIG and Slurm's variables, in the forms that launchers and people write."""

import json
import os

import pytest

from loops.distribution import cluster_resolver, slurm
from tests.command_line import refusal


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in [n for n in os.environ if n.startswith("SLURM_") or n == "TF_CONFIG"]:
        monkeypatch.delenv(name)


def set_tf_config(monkeypatch, cluster, **others):
    text = cluster if isinstance(cluster, str) else json.dumps({"cluster": cluster, **others})
    monkeypatch.setenv("TF_CONFIG", text)


def worker(index):
    return {"type": "worker", "index": index}


TWO = {"worker": ["a:1", "b:1"]}


@pytest.mark.parametrize(
    ("cluster", "task", "addresses", "number"),
    [
        (TWO, worker(1), ["a:1", "b:1"], 1),
        (TWO, worker("1"), ["a:1", "b:1"], 1),
        ({"worker": {"1": "b:1", "0": "a:1"}}, worker(0), ["a:1", "b:1"], 0),
        ({"worker": ["b:1"], "chief": ["a:1"]}, {"type": "chief", "index": 0}, ["a:1", "b:1"], 0),
        ({"worker": ["b:1"], "chief": ["a:1"]}, worker(0), ["a:1", "b:1"], 1),
        ({**TWO, "ps": ["c:1"], "evaluator": []}, worker(1), ["a:1", "b:1"], 1),
        ({"worker": ["[::1]:1", "n-1.x_y:65535"]}, worker(0), ["[::1]:1", "n-1.x_y:65535"], 0),
    ],
)
def test_tf_config(monkeypatch, cluster, task, addresses, number):
    set_tf_config(monkeypatch, cluster, task=task)
    found = cluster_resolver.find_cluster()
    assert (found.addresses, found.number) == (addresses, number)
    resolver = cluster_resolver.make_resolver(found)
    jobs = resolver.cluster_spec().as_dict()
    assert jobs[resolver.task_type][resolver.task_id] == addresses[number]
    assert sum(map(len, jobs.values())) == 2


@pytest.mark.parametrize(
    ("cluster", "others", "message"),
    [
        ("[" * 100_000, {}, "not of the form"),
        (json.dumps(json.dumps({"cluster": TWO})), {}, "not of the form"),
        ({"worker": "localhost:1"}, {}, "not of the form"),
        ({"worker": ["a:1", 7]}, {}, "not of the form"),
        ({"worker": {"0": "a:1", "2": "b:1"}}, {}, "not of the form"),
        ([TWO], {}, "not of the form"),
        ({"worker": []}, {}, "neither TF_CONFIG nor Slurm"),
        ({"workers": ["a:1", "b:1"]}, {}, 'there is no job "workers"; call it "worker"'),
        ({"chief": ["a:1", "b:1"]}, {}, "names several chiefs"),
        ({"worker": ["a:1", "a:1"]}, {"task": worker(0)}, "host=a:1: is named twice"),
        (TWO, {"rpc_layer": "grpc+verbs", "task": worker(0)}, 'the only rpc_layer is "grpc"'),
        (TWO, {}, "the task is missing"),
        (TWO, {"task": worker(2)}, "is not one of its workers"),
        (TWO, {"task": worker(-1)}, "is not one of its workers"),
        (TWO, {"task": worker("01")}, "is not one of its workers"),
        (TWO, {"task": worker(True)}, "is not one of its workers"),
        (TWO, {"task": {"type": ["worker"], "index": 0}}, "is not one of its workers"),
        (TWO, {"task": {"type": "evaluator", "index": 0}}, "is not one of its workers"),
        *[
            ({"worker": ["a:1", host]}, {"task": worker(0)}, f"host={host}: give HOST:PORT")
            for host in ("b", "b:", ":1", "b:0", "b:65536", "b:x", "b:²", "::1:5", "grpc://b:1")
        ],
        ({"worker": ["a:1", "b c:1"]}, {"task": worker(0)}, "host=b c:1: give HOST:PORT"),
    ],
)
def test_refused_tf_config(monkeypatch, cluster, others, message):
    set_tf_config(monkeypatch, cluster, **others)
    shown = refusal(cluster_resolver.find_cluster)
    assert message in shown and len(shown) < 600


def set_slurm(monkeypatch, tasks, nodes, per_node, number, **names):
    """Sets the variables of a task of a Slurm job step."""
    step = {"STEP_NUM_TASKS": str(tasks), "STEP_NODELIST": nodes, "STEP_TASKS_PER_NODE": per_node}
    for name, value in {"JOB_ID": "1", "PROCID": str(number), **step, **names}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


@pytest.mark.parametrize(
    ("nodes", "per_node", "expected"),
    [
        ("n[1-2]", "1(x2)", "n1:8888 n2:8888"),
        ("n1", "2", "n1:8888 n1:8889"),
        ("n[2,10]", "1(x2)", "n2:8888 n10:8888"),  # in task order
        ("n[1-2,5],m[01-03]-x", "1(x6)", "n1 n2 n5 m01-x m02-x m03-x"),
        ("r[0-1]n[08-10]", "1(x6)", "r0n08 r0n09 r0n10 r1n08 r1n09 r1n10"),
        ("a,b-1,c", "2(x2),1", "a:8888 a:8889 b-1:8888 b-1:8889 c:8888"),
        ("a,b,a", "1(x3)", "a:8888 b:8888 a:8889"),
    ],
)
def test_slurm_workers(monkeypatch, nodes, per_node, expected):
    addresses = [name if ":" in name else f"{name}:8888" for name in expected.split()]
    # Of the job, and therefore without meaning for the step.
    others = {"NTASKS": "64", "NODELIST": "x[1-9]", "JOB_NODELIST": "x[1-9]"}
    set_slurm(monkeypatch, len(addresses), nodes, per_node, 1, **others)
    found = cluster_resolver.find_cluster()
    assert (found.source, found.addresses, found.number) == ("Slurm", addresses, 1)


def test_slurm_tasks_in_turns(monkeypatch):
    """Slurm's manual, --distribution=cyclic: tasks go to the nodes in turn."""
    set_slurm(monkeypatch, 4, "a,b", "3,1", 2, DISTRIBUTION="cyclic:block", NODEID="0")
    assert slurm.find_workers()[0] == ["a:8888", "b:8888", "a:8889", "a:8890"]
    monkeypatch.setenv("SLURM_DISTRIBUTION", "block")
    assert slurm.find_workers()[0] == ["a:8888", "a:8889", "a:8890", "b:8888"]
    monkeypatch.setenv("SLURM_NODEID", "1")
    assert "add --distribution=block to srun" in refusal(slurm.find_workers)
    monkeypatch.setenv("SLURM_DISTRIBUTION", "plane")
    assert refusal(slurm.find_workers).startswith("SLURM_DISTRIBUTION=plane: add")


STEP = {"STEP_NUM_TASKS": "2", "STEP_NODELIST": "n[1-2]", "STEP_TASKS_PER_NODE": "1(x2)"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        # The shell of salloc; the script of sbatch; the interactive step of salloc.
        ({"NTASKS": "2", "JOB_NODELIST": "n[1-2]"}, "start the program with srun"),
        ({"NTASKS": "2", "PROCID": "0", "NODEID": "0"}, "start the program with srun"),
        ({**STEP, "PROCID": "0", "STEP_NUM_TASKS": "1", "NTASKS": "2"}, "with srun"),
        (STEP, "SLURM_PROCID is not set"),
        ({**STEP, "PROCID": "2"}, "SLURM_PROCID=2: is not one of the 2 tasks"),
        ({**STEP, "PROCID": "x"}, "SLURM_PROCID=x: is not a number"),
        ({**STEP, "PROCID": "0", "STEP_NUM_TASKS": "2(x3)"}, "is not a number"),
        ({**STEP, "PROCID": "0", "STEP_TASKS_PER_NODE": "two"}, "is not of the form 2(x3),1"),
        ({**STEP, "PROCID": "0", "STEP_TASKS_PER_NODE": "1(x3)"}, "does not give 2 tasks"),
        *[
            ({**STEP, "PROCID": "0", "STEP_NODELIST": nodes}, f"SLURM_STEP_NODELIST={nodes}: ")
            for nodes in ("n[1-2", "n[2-1]", "n[1-]", "n[a-b]", "n1,,n2", "n[]")
        ],
    ],
)
def test_refused_slurm(monkeypatch, names, message):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for name, value in names.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert message in refusal(cluster_resolver.find_cluster)


@pytest.mark.parametrize(
    ("visible", "tasks", "gpus_per_task", "expected"),
    [
        ("0,1,2,3", "4(x2)", None, "1"),
        ("4,5,6,7", "2(x4)", None, "6,7"),
        (None, "4(x2)", None, "1"),  # nvidia-smi lists four
        ("0,1,2,3", "1(x8)", None, "0,1,2,3"),
        ("0", "4(x2)", None, "0"),  # Slurm has bound one GPU to each task
        ("0,1,2,3", "4(x2)", "4", "0,1,2,3"),
        ("", "4(x2)", None, ""),
        ("-1", "4(x2)", None, "-1"),
    ],
)
def test_slurm_tasks_of_a_node_share_its_gpus(
    monkeypatch, tmp_path, visible, tasks, gpus_per_task, expected
):
    set_slurm(monkeypatch, 8, "n[1-8]", tasks, 5, LOCALID="1", NODEID="1")
    if gpus_per_task:
        monkeypatch.setenv("SLURM_GPUS_PER_TASK", gpus_per_task)
    # Set first in any case, so that monkeypatch restores the variable.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nfor n in 0 1 2 3; do echo GPU $n: A100; echo '  MIG'; done\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for _ in range(2):  # a second call takes no share of the share
        slurm.restrict_visible_gpus()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
