"""The script of results: skips what is done, goes on after a cut, and its page is true."""

import json
import time

import pytest

from benchmarks import results, results_page
from benchmarks.results_runs import TABLES, BestTwo, Fit, Run, Table
from flags import parse
from loops import validation

FLAGS = ("--dataset=folder", "--data_dir=$TINY", "--model=resnetv2_18", "--image_size=32")
FLAGS += ("--epochs=1", "--batch_size=8")


def one_run(name="a", flags=FLAGS):
    return Run(name=name, label=name, flags=flags, splits=("val",))


def test_every_command_is_a_valid_one(tmp_path):
    names = [row.name for table in TABLES for row in table.rows]
    assert len(set(names)) == len(names)
    for row in (row for table in TABLES for row in table.rows if isinstance(row, Run)):
        config, _ = parse([*results.command_of(row, tmp_path)[1:], "--data_dir="])
        validation.resolve(config)


@pytest.mark.faults
def test_trains_judges_and_skips(tiny_folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TINY", str(tiny_folder))
    table = Table(key="t", title="T", text="", rows=(one_run(), one_run("b"), BestTwo(**TWO)))
    monkeypatch.setattr(results_page, "TABLES", (table,))
    done = {}
    for row in table.rows:
        done[row.name] = results.result_of(row, tmp_path, done, lambda: 300.0)
    single = done["a"]["evaluations"]
    assert single["val-10"]["num_examples"] == single["val-1"]["num_examples"] == 11
    assert len(done["two"]["evaluations"]["val-10"]["models"]) == 2
    # 16 images at the speed of the log
    assert 0 < done["a"]["seconds"] < 60
    capfd.readouterr()
    again = {}
    for row in table.rows:
        again[row.name] = results.result_of(row, tmp_path, again, lambda: 300.0)
    assert again == done
    assert "$ python" not in capfd.readouterr().out

    other = one_run(flags=(*FLAGS, "--learning_rate=0.5"))
    with pytest.raises(SystemExit, match="--learning_rate"):
        results.require_agreement(other, tmp_path)


TWO = {"name": "two", "label": "average", "splits": ("val",)}
FACTS = {
    "command": "python -m benchmarks.results",
    "date": "2026-01-31T00:00:00",
    "machine": {"cpu": "C", "cores": 2},
    "versions": {"python": "3"},
}


@pytest.mark.faults
def test_a_training_out_of_time_saves_and_is_resumed(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TINY", str(tiny_folder))
    row = one_run(flags=(*FLAGS[:4], "--epochs=2000", "--batch_size=8"))
    began = time.monotonic()
    with pytest.raises(results.OutOfTime):
        results.execute(results.command_of(row, tmp_path), 25.0)
    assert time.monotonic() - began < 60
    assert not results.is_trained(row, tmp_path)
    assert list((tmp_path / "a").glob("step-*"))


def test_time_is_that_of_the_median_speed(tmp_path):
    lines = [{"split": "train", "speed/images_per_second": speed} for speed in (10.0, 50.0, 20.0)]
    lines.append({"split": "eval", "accuracy/top1": 1.0})
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert results.training_seconds(tmp_path, 1000) == 50.0


def test_a_command_that_fails_ends_the_script(tmp_path):
    row = Fit(name="f", label="f", flags=(f"--data_dir={tmp_path}",))
    with pytest.raises(SystemExit, match="exit code 2"):
        results.execute(results.command_of(row, tmp_path), 60.0)


def test_page(monkeypatch):
    def scores(top1, top5, low, high):
        return {"top1_error": top1, "top5_error": top5, "top1_low": low, "top1_high": high}

    table = Table(key="t", title="T", text="About.", rows=(one_run(), one_run("b")))
    monkeypatch.setattr(results_page, "TABLES", (table,))
    evaluations = {"val-1": scores(0.31, 0.1, 0.6, 0.75), "val-10": scores(0.25, 0.05, 0.7, 0.8)}
    evaluations["test-10"] = scores(0.5, 0.125, 0.4, 0.625)
    done = {"a": {"command": "python main.py", "seconds": 90.0, "evaluations": evaluations}}
    page = results_page.markdown({"t": done}, FACTS)
    row = "| a | 1.5 min | 31.0 (25.0 to 40.0) | 25.0 (20.0 to 30.0) | 5.0 |"
    row += " 50.0 (37.5 to 60.0) | 12.5 |"
    assert row in page.splitlines()
    assert "| b |" not in page and page.count("python main.py\n") == 1
