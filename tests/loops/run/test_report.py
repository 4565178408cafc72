"""A mode's last words: a table on stdout, and JSON that is whole or not there."""

import json
import os

import pytest

from loops.run import report

RESULTS = {
    "top1": 0.75,
    "top1_error": 0.25,
    "top1_low": 0.5,
    "top1_high": 0.875,
    "top5": 1.0,
    "top5_error": 0.0,
    "top5_low": 0.9,
    "top5_high": 1.0,
    "nll": 0.693147,
    "num_examples": 40,
    "split": "val",
    "crops": 10,
}


def test_summary(capsys):
    report.summary("run, step 3", report.evaluation_rows(RESULTS))
    captured = capsys.readouterr()
    assert captured.err == ""
    title, *rows = captured.out.splitlines()
    assert title == "run, step 3"
    assert len({len(row) - len(row.lstrip()) for row in rows}) == 1
    text = "\n".join(" ".join(row.split()) for row in rows)
    assert "top-1 accuracy 75.00% (95 % interval 50.00% to 87.50%)" in text
    assert "top-5 accuracy 100.00% (95 % interval 90.00% to 100.00%)" in text
    assert "NLL 0.6931" in text
    assert "images 40 (val, 10 crops)" in text
    assert len(rows) == 4


def test_json_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    report.write_json(path, RESULTS)
    assert json.loads(path.read_text()) == RESULTS
    report.write_json(str(path), {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        report.write_json(path, RESULTS)
    assert json.loads(path.read_text()) == {"a": 1}
