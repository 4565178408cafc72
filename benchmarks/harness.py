"""What all benchmarks share: a process for every run, runs in turn, the machine's facts, a table.

Each side of a comparison runs in a process of its own, so that neither inherits the other's
threads, memory or compiled functions, and the sides take turns, so that a machine that slows down
slows both. The parent process never imports TensorFlow: see `peak_memory_mb`.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time

from loops.runtime import environment

_START_TIME_VARIABLE = "BENCHMARK_STARTED"
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16")


def echo(text=""):
    """Prints text to stdout at once, also into a pipe."""
    print(text, flush=True)


def run_child(module, arguments, python=sys.executable):
    """Runs `python -m module arguments` and returns what it handed to `emit`.

    Args:
      module: dotted name of a benchmark.
      arguments: list of str.
      python: interpreter; a peer may need another environment.

    Returns:
      dict.

    Raises:
      SystemExit: the child failed; with the end of what it said.
    """
    environment = {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        _START_TIME_VARIABLE: repr(time.time()),
    }
    command = [python, "-m", module, *arguments]
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = child.stdout.splitlines()
    if child.returncode or not lines:
        said = (child.stdout + child.stderr)[-3000:]
        shown = " ".join(["python", *command[1:]])
        raise SystemExit(f"{said}\n{shown}: exit code {child.returncode}")
    return json.loads(lines[-1])


def emit(result):
    """Hands a child's result, a dict, to its parent: one line of JSON, the last one on stdout."""
    echo(json.dumps(result))


def seconds_since_start():
    """Seconds since the parent started this child; the interpreter's own start is among them."""
    return time.time() - float(os.environ[_START_TIME_VARIABLE])


def peak_memory_mb():
    """Most resident memory of this process so far, in 10^6 bytes.

    Linux lets a child begin with its parent's peak, so the parent must stay small.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def get_resource_usage():
    """What this process has used so far: user_seconds and system_seconds of CPU, page_faults.

    A step that faults much gives its memory back to the system and fetches it again every time.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "user_seconds": used.ru_utime,
        "system_seconds": used.ru_stime,
        "page_faults": used.ru_minflt,
    }


def alternate(sides, pairs, run):
    """Yields `{side: run(side)}` for each of so many pairs, the sides in turn: A B A B."""
    for _ in range(pairs):
        yield {side: run(side) for side in sides}


def collect_metadata(module, arguments, packages):
    """What a reader needs to judge or repeat a measurement: where, when, with what.

    Args:
      module: dotted name of the benchmark.
      arguments: its command line as a list of str.
      packages: names of distributions; those that are not installed are left out.
    """
    return {
        "command": " ".join(["python", "-m", module, *arguments]),
        "date": utc_now(),
        "machine": describe_machine(),
        "versions": {"python": platform.python_version(), **_find_versions(packages)},
    }


def utc_now():
    """The date and time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def describe_machine():
    """What the machine is: cpu, cores, cpu_flags, system, load_before."""
    model, flags = environment.read_cpuinfo() or ("", ())
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": model or platform.processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "cpu_flags": [flag for flag in _CPU_FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.machine()}",
        # Above about 0.3, something else was running and the figures are worth little.
        "load_before": round(os.getloadavg()[0], 2),
    }


def default_dtypes():
    """What is measured where nobody says in what: bfloat16 only where the CPU computes in it."""
    return ("bfloat16", "float32") if has_bfloat16(describe_machine()) else ("float32",)


def has_bfloat16(facts):
    """Whether the CPU of `describe_machine` computes in bfloat16."""
    return bool({"avx512_bf16", "amx_bf16"} & set(facts["cpu_flags"]))


def _find_versions(packages):
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def format_table(header, rows):
    """Lays out rows of str and numbers: text to the left, numbers to the right.

    Args:
      header: list of str.
      rows: lists of the same length; floats get two digits after the point, above 100 none.

    Returns:
      str of several lines.
    """

    def show(cell):
        return f"{cell:.{0 if cell >= 100 else 2}f}" if isinstance(cell, float) else str(cell)

    shown = [[show(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *shown, strict=True)]
    is_number = [isinstance(cell, int | float) for cell in rows[0]]

    def line(cells):
        aligned = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(cells, widths, is_number, strict=True)
        ]
        return "  ".join(aligned).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, shown)])


def write_json(path, result):
    """Writes a result to a file, whole or not at all; makes its folder."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(temporary, path)
