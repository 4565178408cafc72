"""Facts of the machine, and what is said where two machines differ."""

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
def test_the_processor(tmp_path, text, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert environment.detect_cpu(path) == expected


def test_without_cpuinfo(tmp_path):
    model, features = environment.detect_cpu(tmp_path / "nowhere")
    assert model and features == []


def test_facts(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    found = environment.describe_machine()
    assert found["threads"] == len(os.sched_getaffinity(0))
    assert found["TF_ENABLE_ONEDNN_OPTS"] == "0" and "XLA_FLAGS" not in found
    assert set(found["cpu_features"].split()) <= set(
        pathlib.Path("/proc/cpuinfo").read_text().split()
    )


def test_differences():
    was = {"cpu": "A", "threads": 2, "gpus": "", "keras": "3.15"}
    now = {"cpu": "A", "threads": 4, "gpus": "", "XLA_FLAGS": "--x"}
    assert environment.list_differences(was, was) == []
    assert environment.list_differences(was, now) == [
        "XLA_FLAGS was none, here --x",
        "keras was 3.15, here none",
        "threads was 2, here 4",
    ]
