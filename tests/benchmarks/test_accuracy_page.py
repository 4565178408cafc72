"""Tests of the accuracy page: skipping, resuming, records and the rendered page."""

import json
import os
import pathlib
import shutil
import time
import types

import pytest

from benchmarks import harness
from benchmarks.accuracy_page import __main__ as script
from benchmarks.accuracy_page import execution, page, records
from benchmarks.accuracy_page.rows import BestTwo, Fit, Mean, Run, Table
from benchmarks.accuracy_page.tables import TABLES
from flags import parse
from loops.checkpointing import run_folder
from loops.config import resolve

FLAGS = ("--dataset=folder", "--data_dir=$TINY", "--model=resnetv2_18", "--image_size=32")
FLAGS += ("--epochs=1", "--batch_size=8")
VIEWS = ("val-1", "val-10")
TWO = BestTwo(name="two", label="average", views=VIEWS, row_names=("a", "b"))


def make_run(name="a", flags=FLAGS):
    return Run(name=name, label=name, flags=flags, views=VIEWS)


def test_all_commands_are_valid(tmp_path):
    rows = [row for table in TABLES for row in table.rows]
    assert len({row.name for row in rows}) == len(set(rows))
    assert not any(
        isinstance(row, Mean) for row in script.select_rows([table.key for table in TABLES])
    )
    for row in rows:
        if type(row) is Run:
            words = execution.make_training_command(row, tmp_path)[1:]
            resolve.resolve(parse([*words, "--data_dir=."]))
        if isinstance(row, (BestTwo, Mean)):
            assert set(row.row_names) < {other.name for other in rows}


@pytest.mark.faults
def test_rows_are_trained_evaluated_and_then_skipped(tiny_folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TINY", str(tiny_folder))
    monkeypatch.setenv("REAL_IMAGES_DIR", str(tmp_path))
    table = Table(key="t", title="T", text="", rows=(make_run(), make_run("b"), TWO))
    for module in (script, page):
        monkeypatch.setattr(module, "TABLES", (table,))
    places = {name: tmp_path / name for name in ("folder", "records", "page")}
    monkeypatch.setattr("sys.argv", ["results", *(f"--{n}={p}" for n, p in places.items())])
    script.main()
    stored = {
        row.name: json.loads((tmp_path / f"records/{row.name}.json").read_text())
        for row in table.rows
    }
    scores = stored["a"]["evaluations"]
    assert scores["val-10"]["num_examples"] == scores["val-1"]["num_examples"] == 11
    average = json.loads((tmp_path / "folder/two-val-10.json").read_text())
    assert len(average["models"]) == 2
    # 16 images at the logged speed.
    assert 0 < stored["a"]["seconds"] < 60
    page_text = (tmp_path / "page").read_text()
    assert "| average |" in page_text and "--ckpt=checkpoints/" in page_text
    capfd.readouterr()
    script.main()
    assert "$ python" not in capfd.readouterr().out
    assert (tmp_path / "page").read_text() == page_text

    other = make_run(flags=(*FLAGS, "--learning_rate=0.5"))
    with pytest.raises(SystemExit, match="--learning_rate"):
        execution.require_same_flags(other, tmp_path / "folder")


@pytest.mark.faults
def test_training_saves_a_checkpoint_at_the_time_limit(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TINY", str(tiny_folder))
    row = make_run(flags=(*FLAGS[:4], "--epochs=2000", "--batch_size=8"))
    started = time.monotonic()
    with pytest.raises(execution.OutOfTime):
        execution.execute(execution.make_training_command(row, tmp_path), 60.0)
    assert time.monotonic() - started < 95
    assert not execution.is_trained(row, tmp_path)
    assert list((tmp_path / "a").glob("step-*"))


def test_training_time_is_from_the_median_speed_of_each_epoch(tmp_path):
    """500 images at 20 per second, 500 at 10; the first line of a process has no speed."""
    speeds = [(0.1, None), (0.3, 10.0), (0.7, 50.0), (1.0, 20.0), (1.5, 10.0), (2.0, 10.0)]
    lines = [
        {"split": "train", "progress/epoch": epoch}
        | ({} if speed is None else {"speed/images_per_second": speed})
        for epoch, speed in speeds
    ]
    lines.append({"split": "eval", "accuracy/top1": 1.0})
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert execution.compute_training_seconds(tmp_path, 1000) == pytest.approx(75.0)


def test_evaluation_is_repeated_for_other_checkpoints(tmp_path, monkeypatch):
    """A run that was trained again, or another pair of runs, is evaluated again."""
    evaluated = []

    def execute(words, seconds):
        evaluated.append(words)
        runs = words[3].removeprefix("--ckpt=").split(",")
        path = pathlib.Path(words[-1].removeprefix("--json="))
        path.write_text(json.dumps({"models": [str(max(pathlib.Path(r).iterdir())) for r in runs]}))

    monkeypatch.setattr(execution, "execute", execute)

    def save_checkpoint(run, step, now):
        (tmp_path / run / f"step-{step:08d}").mkdir(parents=True)
        os.utime(tmp_path / run / f"step-{step:08d}", (now, now))

    def count_evaluations(*runs):
        before = len(evaluated)
        execution.evaluate("name", runs, ("val-1",), tmp_path, lambda: 60.0)
        return len(evaluated) - before

    for run in ("a", "b", "c"):
        save_checkpoint(run, 5, 1000.0)
    assert [count_evaluations("a", "b") for _ in range(2)] == [1, 0]
    assert [count_evaluations("a", "c") for _ in range(2)] == [1, 0]
    shutil.rmtree(tmp_path / "c")
    save_checkpoint("c", 5, time.time() + 60.0)
    assert count_evaluations("a", "c") == 1


@pytest.mark.parametrize(
    ("epochs", "step", "is_trained"),
    [(10, 24, False), (10, 25, True), (9, 22, False), (9, 23, True)],
)
def test_partly_trained_run_with_an_evaluation_is_not_finished(
    tmp_path, monkeypatch, epochs, step, is_trained
):
    """With ten images per epoch in batches of four, ten epochs are 25 steps, nine are 22.5."""
    assert not execution.is_trained(make_run(), tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/eval-00000024-val-10.json").write_text("{}")
    line = {"split": "train", "step": step, "progress/epoch": step / 2.5}
    (tmp_path / "a/metrics.jsonl").write_text(json.dumps(line) + "\n")
    config = parse(["x", f"--epochs={epochs}"])
    monkeypatch.setattr(
        run_folder, "read_record", lambda path: types.SimpleNamespace(config=config)
    )
    assert execution.is_trained(make_run(), tmp_path) is is_trained


def test_failing_command_ends_the_script(tmp_path):
    row = Fit(name="f", label="f", flags=(f"--data_dir={tmp_path}",))
    with pytest.raises(SystemExit, match="exit code 2"):
        execution.execute(execution.make_training_command(row, tmp_path), 60.0)


def make_scores(top1, top5, low, high):
    return {"top1": top1, "top5": top5, "top1_low": low, "top1_high": high}


def write_record(monkeypatch, tmp_path, name, command, top1=0.75, cpu="C"):
    """Writes a record of the machine `cpu` with the ten-crop accuracy `top1`."""
    monkeypatch.setattr(
        harness, "describe_machine", lambda: {"cpu": cpu, "cores": 2, "cpu_flags": []}
    )
    evaluations = {
        "val-1": make_scores(0.69, 0.9, 0.6, 0.75),
        "val-10": make_scores(top1, 0.95, 0.7, 0.8) | {"not stored": 1},
        "test-10": make_scores(0.5, 0.875, 0.4, 0.625),
    }
    return records.write(tmp_path, name, "Run", command, 90.04, evaluations, "c0ffee")


def test_page_shows_finished_rows_with_intervals(monkeypatch, tmp_path):
    table = Table(key="t", title="T", text="About.", rows=(make_run(), make_run("b")))
    monkeypatch.setattr(page, "TABLES", (table,))
    text = page.render({"a": write_record(monkeypatch, tmp_path, "a", "python main.py")})
    row = "| a | 1.5 min | 69.0 (60.0 to 75.0) | 75.0 (70.0 to 80.0) | 95.0 |"
    row += " 50.0 (40.0 to 62.5) | 87.5 | A |"
    lines = text.splitlines()
    assert row in lines
    assert any(line.startswith("- A: C, 2 cores, no bfloat16; python 3") for line in lines)
    assert "| b |" not in text and text.count("python main.py\n") == 1


def test_first_table_has_the_rows_that_count_with_their_commands(monkeypatch, tmp_path):
    mean = Mean(name="m", label="mean of 2", views=("val-1",), row_names=("a", "b"))
    table = Table(key="t", title="T", text="", rows=(make_run(), make_run("b"), mean))
    monkeypatch.setattr(page, "TABLES", (table,))
    monkeypatch.setattr(page, "HEADLINES", {"m": "val-1", "b": "test-10"})
    finished = {name: write_record(monkeypatch, tmp_path, name, f"run {name}") for name in "ab"}
    lines = page.render(finished).splitlines()
    first = lines.index("| data, length | run | top-1 | on | machine | command |")
    assert lines[first + 2 : first + 5] == [
        "| T | b | 50.0 (40.0 to 62.5) | test, ten crops | A | `run b` |",
        "| T | mean of 2 | 69.0 (69.0 to 69.0) | val, one crop | A | `run a` |",
        "",
    ]


def test_mean_row_shows_lowest_and_highest_accuracy(monkeypatch, tmp_path):
    mean = Mean(name="m", label="mean of 2", views=("val-10",), row_names=("a", "b"))
    columns = ("time", "val-10 top1", "val-10 top5", "machine")
    rows = (make_run(), make_run("b"), mean)
    monkeypatch.setattr(
        page, "TABLES", (Table(key="t", title="", text="", rows=rows, columns=columns),)
    )
    finished = {"a": write_record(monkeypatch, tmp_path, "a", "x", 0.7)}
    assert "mean of 2" not in page.render(finished)
    finished["b"] = write_record(monkeypatch, tmp_path, "b", "y", 0.8)
    text = page.render(finished)
    assert "| mean of 2 | 1.5 min | 75.0 (70.0 to 80.0) | 95.0 | A |" in text.splitlines()
    assert text.endswith("```sh\nx\ny\n```\n")
    # One of them has only a center-crop evaluation, no time, and another machine.
    finished["b"] = write_record(monkeypatch, tmp_path, "b", "y", 0.8, cpu="D")
    del finished["b"]["evaluations"]["val-10"]
    finished["b"]["seconds"] = None
    assert "| mean of 2 |  |  |  | A, B |" in page.render(finished).splitlines()


def test_record_of_another_command_is_an_error(monkeypatch, tmp_path):
    assert records.read(tmp_path, "a", "x") is None
    written = write_record(monkeypatch, tmp_path, "a", "x")
    assert records.read(tmp_path, "a", "x") == written
    assert "not stored" not in written["evaluations"]["val-10"]
    with pytest.raises(SystemExit, match=r"a.json: made with 'x', but the table has 'y'"):
        records.read(tmp_path, "a", "y")


def test_best_two_selects_by_val_accuracy(monkeypatch, tmp_path):
    row = BestTwo(name="two", label="", row_names=("a", "b", "c"))
    accuracies = {"a": 0.5, "b": 0.8, "c": 0.7}
    finished = {
        n: write_record(monkeypatch, tmp_path, n, "x", top1) for n, top1 in accuracies.items()
    }
    words = ["python", "main.py", "--mode=eval", "--ckpt=checkpoints/b,checkpoints/c"]
    assert execution.make_command(row, finished) == words
    assert script.read_record(tmp_path, row, {"a": finished["a"]}) is None


def test_results_page_matches_the_records():
    """RESULTS.md is generated from the records."""
    finished = {}
    for row in script.select_rows([table.key for table in TABLES]):
        if record := script.read_record(records.DEFAULT_FOLDER, row, finished):
            finished[row.name] = record
    assert script.PAGE.read_text() == page.render(finished)
