"""Refusals of the figures for notebooks; `tests/test_notebook.py` executes the notebooks."""

import json

import pytest

from input_pipeline.errors import UsageError
from loops.monitoring import metric_writer
from loops.tools import notebook


@pytest.mark.parametrize("draw", [notebook.curves, notebook.mistakes, notebook.filters])
def test_a_run_that_is_not_there_is_named(draw, tmp_path):
    with pytest.raises(UsageError, match="nothing"):
        draw(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("results", "message"),
    [({}, "--mode=eval --ckpt="), ({"mistakes": []}, "has no mistakes")],
)
def test_run_without_mistakes_says_why(results, message, tmp_path, monkeypatch):
    monkeypatch.setattr(notebook.run_folder, "find_checkpoint", lambda run: (tmp_path, None))
    (tmp_path / "eval-00000010-val-1.json").write_text(json.dumps(results))
    with pytest.raises(UsageError, match=message):
        notebook.mistakes("RUN")


def test_lines_of_a_run_that_still_writes(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"split": "train", "step": 1}\n{"split": "tr')
    assert metric_writer.read_lines(tmp_path) == [{"split": "train", "step": 1}]
