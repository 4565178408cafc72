"""Summaries and tables on stdout, and output files that are written atomically."""

import json
import os
import subprocess
import sys

import pytest

from loops.monitoring import console
from loops.runtime import output_files

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


def test_print_summary(capsys):
    console.print_summary("run, step 3", console.format_evaluation(RESULTS))
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


def test_weakest_classes_are_shown_with_what_they_are_taken_for():
    per_class = {
        "owl": {"num_examples": 7, "top1": 4 / 7, "predicted_as": {"owl": 4, "n01440764": 2}},
        "n01440764": {"num_examples": 3, "top1": 2 / 3, "predicted_as": {"n01440764": 2, "dog": 1}},
        "cat": {"num_examples": 10, "top1": 0.1, "predicted_as": {"owl": 9, "cat": 1}},
        "dog": {"num_examples": 8, "top1": 1.0, "predicted_as": {"dog": 8}},
    }
    per_class["ape"] = {"num_examples": 0, "top1": None, "predicted_as": {}}
    rows = console.format_evaluation(RESULTS | {"per_class": per_class})
    start = [name for name, _ in rows].index("weakest")
    assert rows[start : start + 3] == [
        ("weakest", "10.00% cat, 9 of 10 images as owl"),
        ("", "57.14% owl, 2 of 7 images as tench"),
        ("", "66.67% tench, 1 of 3 images as dog"),
    ]
    assert rows[start + 3][0] == "images"
    del per_class["cat"]  # three classes are the whole table
    assert "weakest" not in dict(console.format_evaluation(RESULTS | {"per_class": per_class}))


def test_json_is_replaced_atomically(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    output_files.write_json(path, RESULTS)
    assert json.loads(path.read_text()) == RESULTS
    output_files.write_json(str(path), {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}

    def raise_disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", raise_disk_full)
    with pytest.raises(OSError, match="No space"):
        output_files.write_json(path, RESULTS)
    assert json.loads(path.read_text()) == {"a": 1}


METRICS = {"nll": 0.5, "brier": 0.25, "ece": 0.0625, "top1": 0.75}


def test_comparison_table(capsys):
    results = METRICS | {"crops": 10, "center_crop": METRICS | {"top1": 0.5}}
    results["members"] = [METRICS | {"model": "a", "top5": 1.0}, METRICS | {"model": "bb"}]
    rows = console.format_comparison(results)
    console.print_table(console.comparison_header(results), rows)
    header, *lines = capsys.readouterr().out.splitlines()
    assert [row[0] for row in rows] == ["a", "bb", "ensemble", "center crop"]
    assert header.split() == ["top-1", "top-5", "NLL", "Brier", "ECE"]
    assert lines[0].split() == ["a", "75.00%", "100.00%", "0.5000", "0.2500", "6.25%"]
    assert lines[3].split()[:3] == ["center", "crop", "50.00%"]
    assert len({len(line) for line in [header, *lines]}) == 1


def test_format_paired_tests():
    pair = {"a": "x", "b": "y", "difference": -0.012, "difference_low": -0.03, "p_value": 0.04321}
    pair |= {"difference_high": 0.005, "test": "exact", "only_a": 3, "only_b": 9}
    (line,) = console.format_paired_tests({"paired": [pair]})
    assert line.strip() == (
        "x against y: -1.20% top-1 (95 % interval -3.00% to +0.50%), p = 0.043"
        " (McNemar, exact: 3 against 9)"
    )
    assert console.format_paired_tests({}) == []


def test_symbolic_link_is_followed(tmp_path):
    target = tmp_path / "elsewhere.json"
    link = tmp_path / "link.json"
    link.symlink_to(target)
    output_files.write_json(link, {"a": 1})
    assert link.is_symlink() and json.loads(target.read_text()) == {"a": 1}


@pytest.mark.parametrize("to", ["a pipe", "the end of a file"])
def test_json_to_stdout_keeps_order_and_earlier_output(tmp_path, to):
    """`--json=/dev/stdout | jq` must work, and `>> log.txt` must keep the content of the file."""
    code = (
        "from loops.monitoring import console\n"
        "from loops.runtime import output_files\n"
        "console.print_lines(['before'])\n"
        "output_files.write_flag_output('--json', '/dev/stdout', {'a': 1})\n"
        "console.print_lines(['after'])\n"
    )
    log = tmp_path / "log.txt"
    log.write_text("the log\n")
    with log.open("ab") as file:
        stdout = subprocess.PIPE if to == "a pipe" else file
        process = subprocess.run([sys.executable, "-c", code], stdout=stdout, check=True)
    output = process.stdout if to == "a pipe" else log.read_bytes().removeprefix(b"the log\n")
    assert output.decode() == 'before\n{\n "a": 1\n}\nafter\n'


def test_broken_pipe_is_not_a_usage_error(tmp_path):
    def write(path, content):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        output_files.write_flag_output("--json", tmp_path / "x", {}, write)


def test_pipe_is_written_to_and_not_replaced(tmp_path):
    """The same holds for devices such as /dev/null, which root could replace."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    output_files.write_json(pipe, {"a": 1})
    assert json.loads(os.read(reader, 1000)) == {"a": 1}
    os.close(reader)
    assert pipe.is_fifo()


def test_names_cannot_control_the_terminal_or_begin_lines(capsys):
    console.print_summary("a\x1b]0;t\x07", [("b\n", "c\u202e"), ("é", "\x9b1m")])
    assert capsys.readouterr().out.splitlines() == [
        "a\\x1b]0;t\\x07",
        "  b\\n  c\\u202e",
        "  é   \\x9b1m",
    ]
