"""Tests and measures training on the GPUs of this machine in eight minutes.

    python -m benchmarks.gpu_check --json=gpu.json --page=gpu.md
    python -m benchmarks.gpu_check --allow_cpu

The most informative parts run first, each in a new process. JSON and page are written after
each part. Parts that do not fit into `--minutes` are listed as not run. Exit code 1: a part failed.
Exit code 2: the machine has no GPU.

`--allow_cpu` runs the same code at a tiny size, on two halves of the CPU. This shows that the
program works, but nothing about GPUs.
"""

import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

from benchmarks import harness
from benchmarks.workloads import gpu_parts, gpu_place
from benchmarks.workloads.gpu_place import Place

_MODULE = "benchmarks.gpu_check"
_COUNT_GPUS_CODE = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
_MIN_SECONDS = 5


def main() -> int:
    """Runs each part in a child process, writes the results, and returns the exit code."""
    parser = harness.BenchmarkParser(__doc__)
    parser.add_flag("--page", "", "file for the results as Markdown")
    parser.add_flag("--minutes", 8.0, "time for all parts")
    parser.add_flag("--allow_cpu", False, "run tiny checks on the CPU")
    parser.add_flag("--only", "", "run only the parts whose names start like this")
    parser.add_hidden("--child")
    parser.add_hidden("--folder", type=pathlib.Path)
    args = parser.parse_args()
    if args.child:
        name, replicas = args.child.split(",")
        place = Place(not args.allow_cpu, int(replicas), args.folder)
        harness.emit(gpu_parts.PARTS[name].run(place))
        return 0

    gpus = 0 if args.allow_cpu else _count_gpus()
    if not gpus and not args.allow_cpu:
        sys.stderr.write("TensorFlow sees no GPU; use --allow_cpu to try the checks on the CPU\n")
        return 2
    words = parser.format_flags(args, omit=["page"])
    report = harness.start_report(_MODULE, words) | {"gpus": gpus, "results": {}}
    deadline = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as folder:
        child_words = [f"--folder={folder}", *["--allow_cpu"] * args.allow_cpu]
        for name, part in gpu_parts.PARTS.items():
            if not name.startswith(args.only):
                continue
            for replicas in part.list_replicas(2 if args.allow_cpu else gpus):
                child = f"{name},{replicas}"
                result = _run_part(child, child_words, deadline - time.monotonic())
                report["results"][child] = result
                harness.echo(f"{_describe_outcome(result)}: {name} ({result['seconds']:.0f} s)")
                harness.echo(harness.format_table(result["header"], result["rows"]) + "\n")
                harness.save_report(args.json, report)
                if args.page:
                    pathlib.Path(args.page).write_text(format_page(report))
    return 0 if all(result["ok"] is not False for result in report["results"].values()) else 1


def _run_part(child: str, words: list[str], seconds_left: float) -> dict:
    """Runs a part; returns its result with the seconds, or why there is none."""
    started = time.monotonic()
    result = gpu_place.not_run("no time was left")
    if seconds_left >= _MIN_SECONDS:
        try:
            result = harness.run_child(
                _MODULE, [f"--child={child}", *words], timeout_seconds=seconds_left
            )
        except SystemExit as failure:
            # The last line is the command; the line before it is the child's error.
            lines = [line for line in str(failure).splitlines() if line.strip()]
            result = {"ok": False, "header": ["error"], "rows": [[lines[-2:][0][:200]]]}
            result["output"] = str(failure)
        except subprocess.TimeoutExpired:
            result["rows"] = [["stopped at the end of --minutes"]]
    return {**result, "seconds": time.monotonic() - started}


def _describe_outcome(result: Mapping) -> str:
    return {True: "ok", False: "FAILED", None: "not run"}[result["ok"]]


def format_page(report: Mapping) -> str:
    """Formats a report as Markdown: the machine, then a heading and a table for each part."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    place = f"{report['gpus']} GPU(s)" if report["gpus"] else "the CPU, at a tiny size"
    lines = [
        f"Made by `{report['command']}` on {report['date'][:10]} on {place}, {versions},",
        f"{report['machine']['cpu']}, {report['machine']['cores']} cores.",
    ]
    for child, result in report["results"].items():
        name, replicas = child.split(",")
        title = gpu_parts.PARTS[name].title
        where = f", {replicas} replicas" if replicas != "1" else ""
        lines += ["", f"### {title}{where}: {_describe_outcome(result)}", ""]
        lines += [f"| {' | '.join(result['header'])} |", "|---" * len(result["header"]) + "|"]
        for row in result["rows"]:
            cells = [cell if isinstance(cell, str) else f"{cell:,.4g}" for cell in row]
            lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _count_gpus() -> int:
    """Counts the GPUs that TensorFlow sees, in a child process: this process must stay small."""
    command = [sys.executable, "-c", _COUNT_GPUS_CODE]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(process.stdout.split()[-1])


if __name__ == "__main__":
    sys.exit(main())
