"""Runs all comparisons and writes their results to one page, benchmarks/RESULTS.md (`make bench`).

    python -m benchmarks.run_all [--only=step_vs_keras,...] [--again=all] [--torch_python=PYTHON]

The JSON of each comparison is stored in benchmarks/kept/. A comparison with a complete result of
this machine and this code is not run again unless `--again` names it.
"""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence

from benchmarks import harness
from benchmarks.speed_page import comparison_page, comparisons
from benchmarks.speed_page.comparisons import Comparison

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PACKAGES = ("benchmarks", "input_pipeline", "loops", "nets", "requirements")


def hash_code(root: pathlib.Path = _ROOT) -> str:
    """Returns a hash of all Python files and of the locked requirements."""
    paths = [*root.glob("*.py"), *(p for name in _PACKAGES for p in (root / name).rglob("*"))]
    digest = hashlib.sha256()
    for path in sorted(p for p in paths if p.suffix == ".py" or p.parent.name == "requirements"):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def describe_commit(root: pathlib.Path = _ROOT) -> str:
    """Returns the short name of the commit, or "" without git.

    A "+" is added if tracked files differ from the commit. Markdown files do not count, because
    this program writes one.
    """

    def git(*words: str) -> str:
        process = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
        return "" if process.returncode else process.stdout.strip()

    changes = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!*.md")
    return git("rev-parse", "--short", "HEAD") + "+" * bool(changes)


def fill_placeholders(words: Sequence[str], values: Mapping[str, str]) -> tuple[list[str], str]:
    """Replaces the placeholders of a command by this machine's values.

    Args:
      words: command of a Comparison.
      values: value of each placeholder, "" if this machine has none.

    Returns:
      (words, reason why there are none): one of them is empty.
    """
    for placeholder, value in values.items():
        if not value and any(placeholder in word for word in words):
            return [], f"{placeholder} is not set"
    filled = []
    for word in words:
        for placeholder, value in values.items():
            word = word.replace(placeholder, value)
        filled.append(word)
    return filled, ""


def run_comparison(
    comparison: Comparison,
    folder: pathlib.Path,
    values: Mapping[str, str],
    identity: Mapping[str, object],
) -> dict:
    """Runs a comparison and stores its result.

    Args:
      comparison: what to run.
      folder: folder of the results.
      values: see `fill_placeholders`.
      identity: code, commit and machine.

    Returns:
      A dict: the identity, `outcome` ("done", "over its budget", "failed", "skipped"), `said` (the
      end of the output), `date`, and `report` (the JSON, possibly partial, or None).
    """
    words, reason = fill_placeholders(comparison.words, values)
    result = {**identity, "outcome": "skipped", "said": reason, "report": None}
    if not reason:
        output = folder / f".{comparison.name}.json"
        output.unlink(missing_ok=True)
        takes_json = comparison.make_rows is not None
        # A command that starts with a placeholder names its interpreter.
        interpreter = [] if comparison.words[0] in values else [sys.executable]
        command = [*interpreter, *words, *([f"--json={output}"] if takes_json else [])]
        result |= _run_with_time_limit(command, 60 * comparison.minutes)
        result["said"] = _replace_paths(result["said"], values)
        if output.exists():
            result["report"] = json.loads(_replace_paths(output.read_text(), values))
            output.unlink()
    result["date"] = harness.utc_now()
    harness.write_json(folder / f"{comparison.name}.json", result)
    return result


def _replace_paths(text: str, values: Mapping[str, str]) -> str:
    """Replaces paths of this machine by placeholders, so that results read the same everywhere."""
    for placeholder, value in {**values, ".": str(_ROOT)}.items():
        text = text.replace(value, placeholder) if value else text
    return text


def _run_with_time_limit(command: Sequence[str], seconds: float) -> dict[str, str]:
    """Runs a command in a new process group, and kills the group when the time is over."""
    child = subprocess.Popen(
        command,
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = child.communicate(timeout=seconds)
        outcome = "failed" if child.returncode else "done"
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        output, _ = child.communicate()
        outcome = "over its budget"
    except BaseException:
        os.killpg(child.pid, 9)
        raise
    return {"outcome": outcome, "said": output[-20000:]}


def is_up_to_date(result: Mapping, identity: Mapping) -> bool:
    """Returns whether a stored result is complete and from this code and this machine.

    A result without one of its peers is not complete.
    """
    is_same = all(result.get(key) == identity[key] for key in ("code", "machine"))
    lacks_peers = (result.get("report") or {}).get("skipped")
    return is_same and result["outcome"] == "done" and not lacks_peers


def read_results(folder: pathlib.Path, selected: Sequence[Comparison]) -> dict[str, dict]:
    """Returns the stored results by name; a file that cannot be parsed counts as missing."""
    results = {}
    for comparison in selected:
        try:
            results[comparison.name] = json.loads((folder / f"{comparison.name}.json").read_text())
        except (OSError, ValueError):
            continue
    return results


def main(available: Sequence[Comparison] = comparisons.ALL) -> None:
    """Runs the comparisons without an up-to-date result; writes the page after each."""
    args = _parse_arguments(available)
    names = [comparison.name for comparison in available]
    only = args.only.split(",") if args.only else names
    again = names if args.again == "all" else args.again.split(",")
    images = os.environ.get("REAL_IMAGES_DIR", "")
    values = {comparisons.TORCH_PYTHON: args.torch_python, comparisons.IMAGES: images}
    machine = harness.describe_machine()
    machine.pop("load_before")
    identity = {"code": hash_code(), "commit": describe_commit(), "machine": machine}
    args.folder.mkdir(parents=True, exist_ok=True)
    for comparison in (c for c in available if c.name in only):
        result = read_results(args.folder, [comparison]).get(comparison.name)
        if result and is_up_to_date(result, identity) and comparison.name not in again:
            harness.echo(f"{comparison.name}: up to date, from {result['date']}")
            continue
        harness.echo(f"{comparison.name}: running for at most {comparison.minutes:g} minutes")
        result = run_comparison(comparison, args.folder, values, identity)
        harness.echo(f"{comparison.name}: {result['outcome']}")
        write_page(args.out, available, args.folder, identity)
    write_page(args.out, available, args.folder, identity)
    harness.echo(f"wrote {args.out}")


def write_page(
    path: pathlib.Path,
    available: Sequence[Comparison],
    folder: pathlib.Path,
    identity: Mapping[str, object],
) -> None:
    """Writes the page from the stored results."""
    text = comparison_page.render(available, read_results(folder, available), identity)
    path.write_text(text, encoding="utf-8")


def _parse_arguments(available: Sequence[Comparison]) -> argparse.Namespace:
    parser = harness.BenchmarkParser(__doc__, has_json=False)
    here = pathlib.Path(__file__).parent
    parser.add_flag("--only", "", "names of the comparisons to run, separated by commas")
    parser.add_flag("--again", "", "names of comparisons to run even if up to date, or all")
    parser.add_flag("--torch_python", os.environ.get("TORCH_PYTHON", sys.executable))
    parser.add_flag("--folder", here / "kept", "folder of the stored results")
    parser.add_flag("--out", here / "RESULTS.md", "page to write")
    args = parser.parse_args()
    names = sorted(comparison.name for comparison in available)
    for flag in ("only", "again"):
        parser.require_known(f"--{flag}", getattr(args, flag) or "all", [*names, "all"])
    return args


if __name__ == "__main__":
    main()
