"""The comparison of start-ups: a first pair is left out, the medians are of the others."""

import json
import sys

from benchmarks import harness, start_up
from benchmarks.speed_page import result_rows


def test_the_first_pair_only_warms_the_disks_cache(monkeypatch, tmp_path):
    seconds = {"ours": iter([50.0, 4.0, 5.0, 6.0]), "keras": iter([99.0, 8.0, 20.0, 18.0])}

    def child(module, words):
        taken = next(seconds[words[0].removeprefix("--side=")])
        return {name: taken for name in (*start_up._PHASES, "cpu_seconds")}

    monkeypatch.setattr(harness, "run_child", child)
    path = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["start_up", "--pairs=3", f"--json={path}"])
    start_up.main()
    report = json.loads(path.read_text())
    assert report["results"]["ratios"] == [2.0, 4.0, 3.0] and report["results"]["ratio"] == 3.0
    (row,) = result_rows.start_up(report)
    assert (row.ours, row.theirs, row.ratio, row.wanted) == (5.0, 18.0, 3.0, 2.0)
