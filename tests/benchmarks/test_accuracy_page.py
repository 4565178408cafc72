"""The script of results: skips what is done, goes on after a cut, and its page is true."""

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
TWO = BestTwo(name="two", label="average", views=VIEWS, of=("a", "b"))


def one_run(name="a", flags=FLAGS):
    return Run(name=name, label=name, flags=flags, views=VIEWS)


def test_every_command_is_a_valid_one(tmp_path):
    rows = [row for table in TABLES for row in table.rows]
    assert len({row.name for row in rows}) == len(set(rows))
    assert not any(
        isinstance(row, Mean) for row in script.select_rows([table.key for table in TABLES])
    )
    for row in rows:
        if type(row) is Run:
            words = execution.make_training_command(row, tmp_path)[len(row.program) :]
            resolve.resolve(parse([*words, "--data_dir="]))
        if isinstance(row, (BestTwo, Mean)):
            assert set(row.of) < {other.name for other in rows}


@pytest.mark.faults
def test_trains_judges_and_skips(tiny_folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TINY", str(tiny_folder))
    monkeypatch.setenv("REAL_IMAGES_DIR", str(tmp_path))
    table = Table(key="t", title="T", text="", rows=(one_run(), one_run("b"), TWO))
    for module in (script, page):
        monkeypatch.setattr(module, "TABLES", (table,))
    places = {name: tmp_path / name for name in ("folder", "records", "page")}
    monkeypatch.setattr("sys.argv", ["results", *(f"--{n}={p}" for n, p in places.items())])
    script.main()
    found = {
        row.name: json.loads((tmp_path / f"records/{row.name}.json").read_text())
        for row in table.rows
    }
    scores = found["a"]["evaluations"]
    assert scores["val-10"]["num_examples"] == scores["val-1"]["num_examples"] == 11
    average = json.loads((tmp_path / "folder/two-val-10.json").read_text())
    assert len(average["models"]) == 2
    # 16 images at the speed of the log
    assert 0 < found["a"]["seconds"] < 60
    made = (tmp_path / "page").read_text()
    assert "| average |" in made and "--ckpt=checkpoints/" in made
    capfd.readouterr()
    script.main()
    assert "$ python" not in capfd.readouterr().out
    assert (tmp_path / "page").read_text() == made

    other = one_run(flags=(*FLAGS, "--learning_rate=0.5"))
    with pytest.raises(SystemExit, match="--learning_rate"):
        execution.require_same_flags(other, tmp_path / "folder")


@pytest.mark.faults
def test_a_training_out_of_time_saves_and_is_resumed(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TINY", str(tiny_folder))
    row = one_run(flags=(*FLAGS[:4], "--epochs=2000", "--batch_size=8"))
    began = time.monotonic()
    with pytest.raises(execution.OutOfTime):
        execution.execute(execution.make_training_command(row, tmp_path), 60.0)
    assert time.monotonic() - began < 95
    assert not execution.is_trained(row, tmp_path)
    assert list((tmp_path / "a").glob("step-*"))


def test_time_is_that_of_the_median_speeds_of_the_epochs(tmp_path):
    """500 images at 20 a second, 500 larger ones at 10; a process's first line has no speed."""
    speeds = [(0.1, None), (0.3, 10.0), (0.7, 50.0), (1.0, 20.0), (1.5, 10.0), (2.0, 10.0)]
    lines = [
        {"split": "train", "progress/epoch": epoch}
        | ({} if speed is None else {"speed/images_per_second": speed})
        for epoch, speed in speeds
    ]
    lines.append({"split": "eval", "accuracy/top1": 1.0})
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert execution.compute_training_seconds(tmp_path, 1000) == pytest.approx(75.0)


def test_results_are_those_of_the_checkpoints_that_are_there(tmp_path, monkeypatch):
    """A run that was trained again, or another pair of runs, is judged again."""
    judged = []

    def execute(words, seconds):
        judged.append(words)
        runs = words[3].removeprefix("--ckpt=").split(",")
        path = pathlib.Path(words[-1].removeprefix("--json="))
        path.write_text(json.dumps({"models": [str(max(pathlib.Path(r).iterdir())) for r in runs]}))

    monkeypatch.setattr(execution, "execute", execute)

    def trained(run, step, now):
        (tmp_path / run / f"step-{step:08d}").mkdir(parents=True)
        os.utime(tmp_path / run / f"step-{step:08d}", (now, now))

    def times_judged(*runs):
        before = len(judged)
        execution.evaluate("name", runs, ("val-1",), tmp_path, lambda: 60.0)
        return len(judged) - before

    for run in ("a", "b", "c"):
        trained(run, 5, 1000.0)
    assert [times_judged("a", "b") for _ in range(2)] == [1, 0]
    assert [times_judged("a", "c") for _ in range(2)] == [1, 0]
    shutil.rmtree(tmp_path / "c")
    trained("c", 5, time.time() + 60.0)
    assert times_judged("a", "c") == 1


@pytest.mark.parametrize(
    ("epochs", "step", "done"), [(10, 24, False), (10, 25, True), (9, 22, False), (9, 23, True)]
)
def test_an_evaluation_of_half_a_run_does_not_make_it_whole(
    tmp_path, monkeypatch, epochs, step, done
):
    """Ten images an epoch in batches of four: 25 steps are ten epochs, 22.5 are nine."""
    assert not execution.is_trained(one_run(), tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/eval-00000024-val-10.json").write_text("{}")
    line = {"split": "train", "step": step, "progress/epoch": step / 2.5}
    (tmp_path / "a/metrics.jsonl").write_text(json.dumps(line) + "\n")
    config = parse(["x", f"--epochs={epochs}"])
    monkeypatch.setattr(
        run_folder, "read_record", lambda path: types.SimpleNamespace(config=config)
    )
    assert execution.is_trained(one_run(), tmp_path) is done


def test_a_command_that_fails_ends_the_script(tmp_path):
    row = Fit(name="f", label="f", flags=(f"--data_dir={tmp_path}",))
    with pytest.raises(SystemExit, match="exit code 2"):
        execution.execute(execution.make_training_command(row, tmp_path), 60.0)


def scores(top1, top5, low, high):
    return {"top1_error": top1, "top5_error": top5, "top1_low": low, "top1_high": high}


def a_record(monkeypatch, tmp_path, name, command, top1=0.25, cpu="C"):
    """Written on the machine `cpu`, with the ten-crop accuracy 1 - top1."""
    monkeypatch.setattr(
        harness, "describe_machine", lambda: {"cpu": cpu, "cores": 2, "cpu_flags": []}
    )
    evaluations = {"val-1": scores(0.31, 0.1, 0.6, 0.75), "test-10": scores(0.5, 0.125, 0.4, 0.625)}
    evaluations["val-10"] = scores(top1, 0.05, 0.7, 0.8) | {"top1": 1 - top1, "not kept": 1}
    return records.write(tmp_path, name, "Run", command, 90.04, evaluations)


def test_page(monkeypatch, tmp_path):
    table = Table(key="t", title="T", text="About.", rows=(one_run(), one_run("b")))
    monkeypatch.setattr(page, "TABLES", (table,))
    made = page.render({"a": a_record(monkeypatch, tmp_path, "a", "python main.py")})
    row = "| a | 1.5 min | 31.0 (25.0 to 40.0) | 25.0 (20.0 to 30.0) | 5.0 |"
    row += " 50.0 (37.5 to 60.0) | 12.5 | A |"
    lines = made.splitlines()
    assert row in lines
    assert any(line.startswith("- A: C, 2 cores, no bfloat16; python 3") for line in lines)
    assert "| b |" not in made and made.count("python main.py\n") == 1


def test_a_mean_has_its_extremes(monkeypatch, tmp_path):
    mean = Mean(name="m", label="mean of 2", views=("val-10",), of=("a", "b"))
    columns = ("time", "val-10 top1", "val-10 top5", "machine")
    rows = (one_run(), one_run("b"), mean)
    monkeypatch.setattr(
        page, "TABLES", (Table(key="t", title="", text="", rows=rows, columns=columns),)
    )
    done = {"a": a_record(monkeypatch, tmp_path, "a", "x", 0.3)}
    assert "mean of 2" not in page.render(done)
    done["b"] = a_record(monkeypatch, tmp_path, "b", "y", 0.2)
    made = page.render(done)
    assert "| mean of 2 | 1.5 min | 25.0 (20.0 to 30.0) | 5.0 | A |" in made.splitlines()
    assert made.endswith("```sh\nx\ny\n```\n")
    # One of them was judged on the centre crop alone, not timed, and on another machine.
    done["b"] = a_record(monkeypatch, tmp_path, "b", "y", 0.2, cpu="D")
    del done["b"]["evaluations"]["val-10"]
    done["b"]["seconds"] = None
    assert "| mean of 2 |  |  |  | A, B |" in page.render(done).splitlines()


def test_a_record_is_of_its_command(monkeypatch, tmp_path):
    assert records.read(tmp_path, "a", "x") is None
    written = a_record(monkeypatch, tmp_path, "a", "x")
    assert records.read(tmp_path, "a", "x") == written
    assert "not kept" not in written["evaluations"]["val-10"]
    with pytest.raises(SystemExit, match=r"a.json: made by 'x', the table says 'y'"):
        records.read(tmp_path, "a", "y")


def test_the_two_best(monkeypatch, tmp_path):
    row = BestTwo(name="two", label="", of=("a", "b", "c"))
    errors = {"a": 0.5, "b": 0.2, "c": 0.3}
    done = {n: a_record(monkeypatch, tmp_path, n, "x", error) for n, error in errors.items()}
    words = ["python", "main.py", "--mode=eval", "--ckpt=checkpoints/b,checkpoints/c"]
    assert execution.make_command(row, done) == words
    assert script.read_record(tmp_path, row, {"a": done["a"]}) is None


def test_the_page_is_that_of_the_records():
    """RESULTS.md is made, not typed."""
    done = {}
    for row in script.select_rows([table.key for table in TABLES]):
        if record := script.read_record(records.DEFAULT_FOLDER, row, done):
            done[row.name] = record
    assert script.PAGE.read_text() == page.render(done)
