"""The comparison with torch: our side, the clock, and what is said where torch is missing."""

import json
import sys
import time

import pytest

from benchmarks import harness, step_vs_torch
from benchmarks.workloads import torch_workloads
from loops.distribution import strategies
from tests.loops.tiny_nets import two_convolutions


def test_our_evaluation_counts_the_nets_multiply_adds(one_device, monkeypatch):
    monkeypatch.setattr(strategies, "make_strategy", lambda config: one_device)
    with two_convolutions():
        run, multiply_adds = torch_workloads.build_ours("eval", 32, 2, "float32")
    run(2)
    assert multiply_adds == 16 * 16 * 8 * 27 + 8 * 8 * 16 * 72 + 16 * 1000


def test_the_clock_leaves_out_what_warms_up(monkeypatch):
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
    """Returns the function that runs the comparison with sides made up: it returns its JSON."""

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


def results(*rates, multiply_adds=100):
    return iter([{"images_per_second": r, "multiply_adds": multiply_adds} for r in rates])


def test_ratios_are_of_pairs(main):
    sides = {"ours": results(8.0, 9.0), "torch": results(4.0, 3.0)}
    report = main(sides, ({"torch": "2"}, ""))
    (result,) = report["results"]
    assert result["ratios"] == [2.0, 3.0] and result["ratio"] == 2.5 and result["wanted"] == 1.3
    assert result["medians"] == {"ours": 8.5, "torch": 3.5}
    assert report["versions"]["torch"] == "2" and "skipped" not in report


def test_another_net_is_no_comparison(main):
    sides = {"ours": results(8.0), "torch": results(4.0, multiply_adds=99)}
    with pytest.raises(SystemExit, match="not the same net"):
        main(sides, ({"torch": "2"}, ""))


def test_without_torch_it_is_skipped_with_the_reason(main, capsys):
    report = main({}, ({}, "No module named 'timm'"))
    assert report["results"] == [] and report["skipped"] == {"torch": "No module named 'timm'"}
    assert "requirements/peers.in" in capsys.readouterr().out


def test_an_interpreter_that_is_not_there():
    versions, reason = step_vs_torch.find_peer_versions("/nowhere/python")
    assert versions == {} and "No such file" in reason
