"""Tests of `make bench` with stubs: what runs, what is up to date, and the page."""

import json
import pathlib
import subprocess
import sys
import time

import pytest

from benchmarks import harness, run_all
from benchmarks.speed_page import comparisons, result_rows
from benchmarks.speed_page.comparisons import TORCH_PYTHON, Comparison
from benchmarks.speed_page.result_rows import Row

STUB = """
import json, pathlib, sys, time
out = pathlib.Path(sys.argv[-1].removeprefix("--json="))
runs = pathlib.Path(__file__).with_suffix(".runs")
runs.write_text((runs.read_text() if runs.exists() else "") + sys.argv[1] + "\\n")
out.write_text(json.dumps({"ours": 3.0, "versions": {"keras": "1"}, "said": sys.executable}))
"""


def make_rows(report):
    return [Row("speed", report["ours"], "peer", 2.0, report["ours"] / 2, 1.2)]


@pytest.fixture
def main(tmp_path, monkeypatch):
    """Returns a function that runs `make bench` with stubs and returns (runs so far, page)."""
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    monkeypatch.setattr(run_all, "hash_code", lambda: "code-1")

    def run(available, *words):
        argv = ["run_all", f"--folder={tmp_path / 'kept'}", f"--out={tmp_path / 'R.md'}", *words]
        monkeypatch.setattr(sys, "argv", argv)
        run_all.main(available)
        runs = tmp_path / "stub.runs"
        names = runs.read_text().split() if runs.exists() else []
        return names, (tmp_path / "R.md").read_text()

    run.stub = str(stub)
    return run


def test_commit_ignores_changes_of_markdown(tmp_path):
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


def test_up_to_date_results_are_not_run_again(main, monkeypatch, tmp_path):
    stubs = [Comparison(name, (main.stub, name), 1, make_rows) for name in ("a", "b")]
    names, page = main(stubs, "--only=a")
    assert names == ["a"] and "`b` has not run" in page
    assert "| speed | 3 | peer: 2 | 1.50 | 1.2 | yes |" in page
    assert main(stubs)[0] == ["a", "b"]
    assert main(stubs)[0] == ["a", "b"]
    assert main(stubs, "--again=b")[0] == ["a", "b", "b"]
    (tmp_path / "kept" / "a.json").write_text("{")  # incomplete
    assert main(stubs)[0] == ["a", "b", "b", "a"]
    monkeypatch.setattr(run_all, "hash_code", lambda: "code-2")
    names, page = main(stubs)
    assert names[-2:] == ["a", "b"] and page.count("| speed |") == 2
    assert "- versions: keras 1" in page and str(tmp_path) not in page.split("## Commands")[0]
    assert json.loads((tmp_path / "kept" / "a.json").read_text())["report"]["said"] == TORCH_PYTHON


def test_failures_and_timeouts_are_reported_and_run_again(main, tmp_path):
    sleeps = "import time; time.sleep(60)"
    stubs = [
        Comparison("fails", ("-c", "raise SystemExit('no such peer')"), 1, make_rows),
        Comparison("sleeps", ("-c", sleeps), 0.5 / 60, make_rows),
        Comparison("lacks", (f"{comparisons.IMAGES}-no/x", "a"), 1, make_rows),
        Comparison("table", ("-c", "print('| a |\\nelse')"), 1, None),
    ]
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REAL_IMAGES_DIR", raising=False)
        _, page = main(stubs)
    assert time.monotonic() - started < 30
    assert "`fails`: failed (no such peer)" in page
    assert "`sleeps`: over its budget" in page
    assert "`lacks`: skipped ($REAL_IMAGES_DIR is not set)" in page
    assert "## `table`\n\n| a |\n" in page and "\nelse" not in page
    identity = {"code": "code-1", "machine": {}}
    for name in ("fails", "sleeps", "lacks"):
        result = json.loads((tmp_path / "kept" / f"{name}.json").read_text())
        assert not run_all.is_up_to_date(result, {**identity, "machine": result["machine"]})


def test_incomplete_report_is_an_error_only_after_success(main):
    """Otherwise a bug in `result_rows` would silently drop rows."""
    fail = "; raise SystemExit('stopped')"
    code = "import sys, pathlib; pathlib.Path(sys.argv[-1][7:]).write_text('{}')"
    _, page = main([Comparison("x", ("-c", code + fail), 1, make_rows)])
    assert "`x`: failed (stopped)" in page
    with pytest.raises(KeyError, match="ours"):
        main([Comparison("x", ("-c", code), 1, make_rows)])


def test_skipped_peer_is_listed_and_run_again(main, tmp_path):
    code = "import sys, pathlib; pathlib.Path(sys.argv[-1][7:]).write_text('%s')"
    report = '{"results": [], "skipped": {"torch": "no module"}}'
    stubs = [Comparison("x", ("-c", code % report), 1, result_rows.step_vs_torch)]
    _, page = main(stubs)
    assert "`x`: torch is skipped, no module" in page and "No comparison has been made yet" in page
    result = json.loads((tmp_path / "kept" / "x.json").read_text())
    assert not run_all.is_up_to_date(result, result)


def test_missed_target_is_marked(main):
    slow = Comparison("x", (main.stub, "x"), 1, lambda r: [Row("speed", 1.0, "p", 2.0, 0.5, 1.2)])
    assert "| 0.50 | 1.2 | **no** |" in main([slow])[1]


def test_all_comparisons_name_existing_files():
    root = pathlib.Path(run_all.__file__).resolve().parents[1]
    names = [comparison.name for comparison in comparisons.ALL]
    assert len(names) == len(set(names))
    for comparison in comparisons.ALL:
        words = [w for w in comparison.words if w != TORCH_PYTHON]
        place = words[0] if words[0] != "-m" else words[1].replace(".", "/") + ".py"
        assert (root / place).is_file(), comparison.name
        assert comparison.make_rows is not None or comparison.name == "model_table"


def test_all_benchmarks_are_in_the_list():
    """A module with `__main__` is a benchmark."""
    folder = pathlib.Path(run_all.__file__).parent
    with_main = {f.stem for f in folder.glob("*.py") if "__main__" in f.read_text()}
    listed = {word for c in comparisons.ALL for word in c.words}
    # These take too long for `make bench`, or are not comparisons.
    separate = {"run_all", "fit_baseline", "gpu_check", "memory_table", "plain_batch_norm"}
    separate |= {"early_statistics", "growth", "input_layouts"}
    assert [m for m in with_main - separate if f"benchmarks.{m}" not in listed] == []


def test_training_step_rows_have_speed_and_memory():
    side = {"images_per_second": 20.0, "peak_memory_mb": 2000.0}
    keras = {"images_per_second": 10.0, "peak_memory_mb": 3000.0}
    result = {"medians": {"ours": side, "keras": keras}, "median_ratio": 1.9}
    speed, memory = result_rows.step_vs_keras({"results": {"float32": result}})
    assert (speed.ours, speed.theirs, speed.ratio, speed.target) == (20.0, 10.0, 1.9, 1.3)
    assert (memory.ratio, memory.target) == (1.5, None)


def test_code_hash_depends_on_python_files_only(tmp_path):
    (tmp_path / "nets").mkdir()
    file = tmp_path / "nets" / "a.py"
    hashes = []
    for text in ("x = 1", "x = 2", "x = 1"):
        file.write_text(text)
        (tmp_path / "nets" / "notes.md").write_text(text * 2)
        hashes.append(run_all.hash_code(tmp_path))
    assert hashes[0] == hashes[2] != hashes[1]


def test_page_formats_small_and_large_values(main):
    rows = [Row(f"q{v}", v, "p", v, None) for v in (0.00001, 0.0, 3.14159, 25549352.0)]
    _, page = main([Comparison("x", (main.stub, "x"), 1, lambda report: rows)])
    cells = [line.split(" | ")[1] for line in page.splitlines() if " | p: " in line]
    assert cells == ["1.0e-05", "0", "3.14", "25549352"]
    assert harness.describe_machine()["cores"] >= 1
