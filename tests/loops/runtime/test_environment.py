"""Description of the machine and differences between two descriptions."""

import os
import pathlib

import pytest

from loops.runtime import environment

CPUINFO = """\
processor\t: 0
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu avx2 avx512_bf16 sse4_1 fma nonsense

processor\t: 1
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CPUINFO, ("Some CPU @ 2.00GHz", ["avx2", "avx512_bf16", "fma", "sse4_1"])),
        ("Features\t: fp asimd\n", (os.uname().machine, [])),
    ],
)
def test_detect_cpu(tmp_path, text, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert environment.detect_cpu(path) == expected


def test_detect_cpu_without_cpuinfo(tmp_path):
    model, features = environment.detect_cpu(tmp_path / "nowhere")
    assert model and features == []
    assert environment.read_cpuinfo(tmp_path / "nowhere") is None


def test_describe_machine(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    machine = environment.describe_machine()
    assert machine["threads"] == len(os.sched_getaffinity(0))
    assert machine["TF_ENABLE_ONEDNN_OPTS"] == "0" and "XLA_FLAGS" not in machine
    assert set(machine["cpu_features"].split()) <= set(
        pathlib.Path("/proc/cpuinfo").read_text().split()
    )


def test_list_differences():
    recorded = {"cpu": "A", "threads": 2, "gpus": "", "keras": "3.15"}
    now = {"cpu": "A", "threads": 4, "gpus": "", "XLA_FLAGS": "--x"}
    assert environment.list_differences(recorded, recorded) == []
    assert environment.list_differences(recorded, now) == [
        "XLA_FLAGS was none, here --x",
        "keras was 3.15, here none",
        "threads was 2, here 4",
    ]
