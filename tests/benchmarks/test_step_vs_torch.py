"""Tests of the comparison with torch: our side, the timing, and the message without torch."""

import json
import sys
import time

import pytest

from benchmarks import harness, step_vs_torch
from benchmarks.workloads import torch_workloads
from loops.distribution import strategies
from tests.loops.tiny_nets import two_convolutions


def test_our_evaluation_reports_multiply_adds(one_device, monkeypatch):
    monkeypatch.setattr(strategies, "make_strategy", lambda config: one_device)
    with two_convolutions():
        run, multiply_adds = torch_workloads.build_ours("eval", 32, 2, "float32")
    run(2)
    assert multiply_adds == 16 * 16 * 8 * 27 + 8 * 8 * 16 * 72 + 16 * 1000


def test_timing_excludes_warm_up(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    durations = iter([9.0, 5.0, 5.0, 1.0, 4.0, 2.0])

    def run(steps):
        now[0] += next(durations)

    figures = torch_workloads.measure(run, 8, 3)
    assert figures["first_step_seconds"] == 9.0 and figures["seconds"] == [1.0, 4.0, 2.0]
    assert figures["images_per_second"] == 4.0


@pytest.fixture
def main(monkeypatch, tmp_path):
    """Returns a function that runs the comparison with fake sides and returns its JSON."""

    def run(sides, versions):
        monkeypatch.setattr(step_vs_torch, "find_peer_versions", lambda python: versions)
        monkeypatch.setattr(
            harness, "run_child", lambda module, words, python: next(sides[words[0][7:]])
        )
        path = tmp_path / "out.json"
        words = ["--works=train", "--dtypes=float32", "--pairs=2", f"--json={path}"]
        monkeypatch.setattr(sys, "argv", ["step_vs_torch", *words])
        step_vs_torch.main()
        return json.loads(path.read_text())

    return run


def make_results(*rates, multiply_adds=100):
    return iter([{"images_per_second": r, "multiply_adds": multiply_adds} for r in rates])


def test_report_has_a_ratio_per_pair(main):
    sides = {"ours": make_results(8.0, 9.0), "torch": make_results(4.0, 3.0)}
    report = main(sides, ({"torch": "2"}, ""))
    (result,) = report["results"]
    assert result["ratios"] == [2.0, 3.0] and result["ratio"] == 2.5 and result["wanted"] == 1.3
    assert result["medians"] == {"ours": 8.5, "torch": 3.5}
    assert report["versions"]["torch"] == "2" and "skipped" not in report


def test_different_multiply_adds_are_an_error(main):
    sides = {"ours": make_results(8.0), "torch": make_results(4.0, multiply_adds=99)}
    with pytest.raises(SystemExit, match="not the same net"):
        main(sides, ({"torch": "2"}, ""))


def test_missing_torch_is_reported_as_skipped(main, capsys):
    report = main({}, ({}, "No module named 'timm'"))
    assert report["results"] == [] and report["skipped"] == {"torch": "No module named 'timm'"}
    assert "requirements/peers.in" in capsys.readouterr().out


def test_missing_interpreter_is_reported():
    versions, reason = step_vs_torch.find_peer_versions("/nowhere/python")
    assert versions == {} and "No such file" in reason
