"""Tests of the start-up benchmark: the first pair is discarded."""

import json
import sys

from benchmarks import harness, start_up
from benchmarks.speed_page import result_rows


def test_first_pair_is_discarded_as_warm_up(monkeypatch, tmp_path):
    seconds = {"ours": iter([50.0, 4.0, 5.0, 6.0]), "keras": iter([99.0, 8.0, 20.0, 18.0])}

    def run_child(module, words, python):
        value = next(seconds[words[0].removeprefix("--side=")])
        phases = ("import_seconds", "build_seconds", "first_step_seconds", "seconds")
        return {name: value for name in (*phases, "cpu_seconds")}

    monkeypatch.setattr(harness, "run_child", run_child)
    path = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["start_up", "--pairs=3", f"--json={path}"])
    start_up.main()
    report = json.loads(path.read_text())
    assert report["results"]["ratios"] == [2.0, 4.0, 3.0] and report["results"]["ratio"] == 3.0
    (row,) = result_rows.start_up(report)
    assert (row.ours, row.theirs, row.ratio, row.target) == (5.0, 18.0, 3.0, 2.0)
