"""`make bench`: runs every comparison and writes one table, benchmarks/RESULTS.md.

    python -m benchmarks.run_all [--only=step_vs_keras,...] [--again=all] [--torch_python=PYTHON]

The JSON of each comparison is kept in benchmarks/kept/. One that has run on this machine with
this code is not run again unless `--again` names it; one that was ended by its budget is.
"""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys

from benchmarks import harness
from benchmarks.speed_page import comparison_page, comparisons

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_ROOMS = ("benchmarks", "input_pipeline", "loops", "nets", "requirements")


def hash_code(root=_ROOT):
    """Hash over the code that a benchmark runs: every Python file of the product and the locks."""
    files = [*root.glob("*.py"), *(f for room in _ROOMS for f in (root / room).rglob("*"))]
    digest = hashlib.sha256()
    for file in sorted(f for f in files if f.suffix == ".py" or f.parent.name == "requirements"):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def describe_commit(root=_ROOT):
    """Short name of the commit of the code, with a + where files differ from it; "" without git.

    What is written for readers makes no difference, the page of this program among it.
    """

    def git(*words):
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
        return "" if done.returncode else done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!*.md")
    return git("rev-parse", "--short", "HEAD") + "+" * bool(changed)


def fill_placeholders(words, values):
    """The words of a command with this machine's values in them, or the reason why it has none.

    Args:
      words: of a Comparison.
      values: dict from a placeholder to its value, "" where there is none.

    Returns:
      (list of str, reason): one of them is empty.
    """
    for placeholder, value in values.items():
        if not value and any(placeholder in word for word in words):
            return [], f"{placeholder} is not set"
    done = []
    for word in words:
        for placeholder, value in values.items():
            word = word.replace(placeholder, value)
        done.append(word)
    return done, ""


def run_comparison(comparison, folder, values, identity):
    """Runs a comparison and keeps what it found.

    Args:
      comparison: Comparison.
      folder: pathlib.Path of the results.
      values: see `fill_placeholders`.
      identity: dict: code, commit, machine.

    Returns:
      dict: identity, `outcome` ("done", "over its budget", "failed", "skipped"), `said` (the end of
      its output), `date`, `report` (its JSON, of what was done so far; None where there is none).
    """
    words, reason = fill_placeholders(comparison.words, values)
    kept = {**identity, "outcome": "skipped", "said": reason, "report": None}
    if not reason:
        output = folder / f".{comparison.name}.json"
        output.unlink(missing_ok=True)
        takes_json = comparison.rows is not None
        # A command that begins with an interpreter of its own brings it along.
        interpreter = [] if comparison.words[0] in values else [sys.executable]
        command = [*interpreter, *words, *([f"--json={output}"] if takes_json else [])]
        kept |= _run_with_budget(command, 60 * comparison.minutes)
        kept["said"] = _replace_paths(kept["said"], values)
        if output.exists():
            kept["report"] = json.loads(_replace_paths(output.read_text(), values))
            output.unlink()
    kept["date"] = harness.utc_now()
    harness.write_json(folder / f"{comparison.name}.json", kept)
    return kept


def _replace_paths(text, values):
    """Names places as the commands do: what is kept and shown means the same everywhere."""
    for placeholder, value in {**values, ".": str(_ROOT)}.items():
        text = text.replace(value, placeholder) if value else text
    return text


def _run_with_budget(command, seconds):
    """Runs a command in a process group of its own, which is ended whole after so many seconds."""
    child = subprocess.Popen(
        command,
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = child.communicate(timeout=seconds)
        outcome = "failed" if child.returncode else "done"
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        said, _ = child.communicate()
        outcome = "over its budget"
    except BaseException:
        os.killpg(child.pid, 9)
        raise
    return {"outcome": outcome, "said": said[-20000:]}


def is_up_to_date(kept, identity):
    """Whether a kept result is of this code and this machine, and whole, with all of its peers."""
    same = all(kept.get(key) == identity[key] for key in ("code", "machine"))
    lacks_peers = (kept.get("report") or {}).get("skipped")
    return same and kept["outcome"] == "done" and not lacks_peers


def read_results(folder, every):
    """The kept results by name, in order; a file that does not parse counts as not there."""
    found = {}
    for comparison in every:
        try:
            found[comparison.name] = json.loads((folder / f"{comparison.name}.json").read_text())
        except (OSError, ValueError):
            continue
    return found


def main(every=comparisons.ALL):
    """Runs what is not known yet, and writes the page after each comparison."""
    args = _parse_arguments(every)
    names = [comparison.name for comparison in every]
    only = args.only.split(",") if args.only else names
    again = names if args.again == "all" else args.again.split(",")
    images = os.environ.get("REAL_IMAGES_DIR", "")
    values = {comparisons.TORCH_PYTHON: args.torch_python, comparisons.IMAGES: images}
    machine = harness.describe_machine()
    machine.pop("load_before")
    identity = {"code": hash_code(), "commit": describe_commit(), "machine": machine}
    args.folder.mkdir(parents=True, exist_ok=True)
    for comparison in (c for c in every if c.name in only):
        kept = read_results(args.folder, [comparison]).get(comparison.name)
        if kept and is_up_to_date(kept, identity) and comparison.name not in again:
            harness.echo(f"{comparison.name}: known, of {kept['date']}")
            continue
        harness.echo(f"{comparison.name}: runs, for {comparison.minutes:g} minutes at most")
        kept = run_comparison(comparison, args.folder, values, identity)
        harness.echo(f"{comparison.name}: {kept['outcome']}")
        write_page(args.out, every, args.folder, identity)
    write_page(args.out, every, args.folder, identity)
    harness.echo(f"{args.out} is written")


def write_page(path, every, folder, identity):
    """Writes what is kept so far: a `make bench` that is cut short has not been for nothing."""
    path.write_text(
        comparison_page.render(every, read_results(folder, every), identity), encoding="utf-8"
    )


def _parse_arguments(every):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    here = pathlib.Path(__file__).parent
    parser.add_argument("--only", default="", help="these, separated by commas")
    parser.add_argument("--again", default="", help="run these although they are known; or all")
    parser.add_argument(
        "--torch_python",
        default=os.environ.get("TORCH_PYTHON", sys.executable),
        help="interpreter that has torch and timm besides",
    )
    parser.add_argument("--folder", type=pathlib.Path, default=here / "kept")
    parser.add_argument("--out", type=pathlib.Path, default=here / "RESULTS.md")
    args = parser.parse_args()
    names = {comparison.name for comparison in every}
    for flag in ("only", "again"):
        unknown = {name for name in getattr(args, flag).split(",") if name} - names - {"all"}
        if unknown:
            parser.error(f"--{flag}: no {sorted(unknown)[0]} among {', '.join(sorted(names))}")
    return args


if __name__ == "__main__":
    main()
