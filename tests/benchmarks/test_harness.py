"""The command lines of benchmarks."""

import pathlib

import pytest

from benchmarks import harness


def parse(*words):
    parser = harness.BenchmarkParser("A benchmark.")
    parser.add_flag("--data_dir", "")
    parser.add_flag("--out", pathlib.Path("page.md"), "page to write")
    return parser.parse_args(words)


def test_paths_on_the_command_line_are_expanded(monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/home/me")
    args = parse("--data_dir=~/photos", "--out=~/page.md")
    assert (args.data_dir, args.out) == ("/home/me/photos", pathlib.Path("/home/me/page.md"))
    assert (parse().data_dir, parse().out, parse().json) == ("", pathlib.Path("page.md"), "")
    with pytest.raises(SystemExit) as caught:
        parse("--json=gs://bucket/results.json")
    assert caught.value.code == 2
    assert "is not a local path" in capsys.readouterr().err
