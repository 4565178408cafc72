"""All comparisons in one command: what runs, what is known, and the page, with stubs in between."""

import json
import pathlib
import subprocess
import sys
import time

import pytest

from benchmarks import harness, run_all
from benchmarks.speed_page import comparison_page, comparisons, result_rows
from benchmarks.speed_page.comparisons import TORCH_PYTHON, Comparison
from benchmarks.speed_page.result_rows import Row

STUB = """
import json, pathlib, sys, time
out = pathlib.Path(sys.argv[-1].removeprefix("--json="))
runs = pathlib.Path(__file__).with_suffix(".runs")
runs.write_text((runs.read_text() if runs.exists() else "") + sys.argv[1] + "\\n")
out.write_text(json.dumps({"ours": 3.0, "versions": {"keras": "1"}, "said": sys.executable}))
"""


def rows_of(report):
    return [Row("speed", report["ours"], "peer", 2.0, report["ours"] / 2, 1.2)]


@pytest.fixture
def main(tmp_path, monkeypatch):
    """Returns the function that runs `make bench` with stubs: it returns (runs so far, page)."""
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    monkeypatch.setattr(run_all, "hash_code", lambda: "code-1")

    def run(every, *words):
        argv = ["run_all", f"--folder={tmp_path / 'kept'}", f"--out={tmp_path / 'R.md'}", *words]
        monkeypatch.setattr(sys, "argv", argv)
        run_all.main(every)
        runs = tmp_path / "stub.runs"
        done = runs.read_text().split() if runs.exists() else []
        return done, (tmp_path / "R.md").read_text()

    run.stub = str(stub)
    return run


def test_the_page_that_is_written_is_no_change_of_the_code(tmp_path):
    assert run_all.describe_commit(tmp_path) == ""
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "PAGE.md").write_text("1")
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "."), (*author, "commit", "-q", "-m", "first")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    name = run_all.describe_commit(tmp_path)
    assert len(name) >= 4 and "+" not in name
    (tmp_path / "PAGE.md").write_text("2")
    assert run_all.describe_commit(tmp_path) == name
    (tmp_path / "code.py").write_text("2")
    assert run_all.describe_commit(tmp_path) == f"{name}+"


def test_what_is_known_is_not_run_again(main, monkeypatch, tmp_path):
    every = [Comparison(name, (main.stub, name), 1, rows_of) for name in ("a", "b")]
    done, page = main(every, "--only=a")
    assert done == ["a"] and "`b` has not run" in page
    assert "| speed | 3 | peer: 2 | 1.50 | 1.2 | yes |" in page
    assert main(every)[0] == ["a", "b"]
    assert main(every)[0] == ["a", "b"]
    assert main(every, "--again=b")[0] == ["a", "b", "b"]
    (tmp_path / "kept" / "a.json").write_text("{")  # cut short
    assert main(every)[0] == ["a", "b", "b", "a"]
    monkeypatch.setattr(run_all, "hash_code", lambda: "code-2")
    done, page = main(every)
    assert done[-2:] == ["a", "b"] and page.count("| speed |") == 2
    assert "- versions: keras 1" in page and str(tmp_path) not in page.split("## Commands")[0]
    assert json.loads((tmp_path / "kept" / "a.json").read_text())["report"]["said"] == TORCH_PYTHON


def test_what_fails_or_takes_too_long_is_said_and_run_again(main, tmp_path):
    sleeps = "import time; time.sleep(60)"
    every = [
        Comparison("fails", ("-c", "raise SystemExit('no such peer')"), 1, rows_of),
        Comparison("sleeps", ("-c", sleeps), 0.5 / 60, rows_of),
        Comparison("lacks", (f"{comparisons.IMAGES}-no/x", "a"), 1, rows_of),
        Comparison("table", ("-c", "print('| a |\\nelse')"), 1, None),
    ]
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REAL_IMAGES_DIR", raising=False)
        _, page = main(every)
    assert time.monotonic() - started < 30
    assert "`fails`: failed (no such peer)" in page
    assert "`sleeps`: over its budget" in page
    assert "`lacks`: skipped ($REAL_IMAGES_DIR is not set)" in page
    assert "## `table`\n\n| a |\n" in page and "\nelse" not in page
    identity = {"code": "code-1", "machine": {}}
    for name in ("fails", "sleeps", "lacks"):
        kept = json.loads((tmp_path / "kept" / f"{name}.json").read_text())
        assert not run_all.is_up_to_date(kept, {**identity, "machine": kept["machine"]})


def test_a_report_that_lacks_what_a_row_needs(main):
    """A mistake of ours where the benchmark ended well, or its rows would go unnoticed."""
    cut = "; raise SystemExit('stopped')"
    code = "import sys, pathlib; pathlib.Path(sys.argv[-1][7:]).write_text('{}')"
    _, page = main([Comparison("x", ("-c", code + cut), 1, rows_of)])
    assert "`x`: failed (stopped)" in page
    with pytest.raises(KeyError, match="ours"):
        main([Comparison("x", ("-c", code), 1, rows_of)])


def test_a_skipped_peer_is_named_and_asked_for_again(main, tmp_path):
    code = "import sys, pathlib; pathlib.Path(sys.argv[-1][7:]).write_text('%s')"
    report = '{"results": [], "skipped": {"torch": "no module"}}'
    every = [Comparison("x", ("-c", code % report), 1, result_rows.step_vs_torch)]
    _, page = main(every)
    assert "`x`: torch is skipped, no module" in page and "No comparison has been made yet" in page
    kept = json.loads((tmp_path / "kept" / "x.json").read_text())
    assert not run_all.is_up_to_date(kept, kept)


def test_a_goal_that_is_missed_shows(main):
    slow = Comparison("x", (main.stub, "x"), 1, lambda r: [Row("speed", 1.0, "p", 2.0, 0.5, 1.2)])
    assert "| 0.50 | 1.2 | **no** |" in main([slow])[1]


def test_every_comparison_can_be_run():
    root = pathlib.Path(run_all.__file__).resolve().parents[1]
    names = [comparison.name for comparison in comparisons.ALL]
    assert len(names) == len(set(names))
    for comparison in comparisons.ALL:
        words = [w for w in comparison.words if w != TORCH_PYTHON]
        place = words[0] if words[0] != "-m" else words[1].replace(".", "/") + ".py"
        assert (root / place).is_file(), comparison.name
        assert comparison.rows is not None or comparison.name == "model_table"


def test_every_benchmark_is_listed():
    """A module with a command line of its own is a benchmark; the other files serve them."""
    folder = pathlib.Path(run_all.__file__).parent
    with_main = {f.stem for f in folder.glob("*.py") if "__main__" in f.read_text()}
    listed = {word for c in comparisons.ALL for word in c.words}
    # Too long for a table that is made again and again, or no comparison.
    alone = {"run_all", "results", "fit_baseline", "gpu_check", "memory_table", "plain_batch_norm"}
    assert [m for m in with_main - alone if f"benchmarks.{m}" not in listed] == []


def test_rows_of_a_training_step():
    side = {"images_per_second": 20.0, "peak_memory_mb": 2000.0}
    keras = {"images_per_second": 10.0, "peak_memory_mb": 3000.0}
    result = {"medians": {"ours": side, "keras": keras}, "median_ratio": 1.9}
    speed, memory = result_rows.step_vs_keras({"results": {"float32": result}})
    assert (speed.ours, speed.theirs, speed.ratio, speed.wanted) == (20.0, 10.0, 1.9, 1.3)
    assert (memory.ratio, memory.wanted) == (1.5, None)


def test_the_code_is_told_apart(tmp_path):
    (tmp_path / "nets").mkdir()
    file = tmp_path / "nets" / "a.py"
    seen = []
    for text in ("x = 1", "x = 2", "x = 1"):
        file.write_text(text)
        (tmp_path / "nets" / "notes.md").write_text(text * 2)
        seen.append(run_all.hash_code(tmp_path))
    assert seen[0] == seen[2] != seen[1]


def test_the_page_shows_small_figures():
    assert [comparison_page._format_figure(v) for v in (0.00001, 0.0, 3.14159, 25549352.0)] == [
        *("1.0e-05", "0", "3.14", "25549352"),
    ]
    assert harness.describe_machine()["cores"] >= 1
