"""Shared code of the benchmarks: flags, child processes, paired runs, metadata and tables.

Each run of a side is a new process, so that it inherits no threads, memory or compiled functions.
The sides alternate, so that a machine that slows down slows all of them. The parent process never
imports TensorFlow (see `peak_memory_mb`).
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from input_pipeline.errors import UsageError
from loops.config import local_paths
from loops.runtime import environment

DTYPES = ("bfloat16", "float32")
PACKAGES = ("tensorflow", "tensorflow-cpu", "keras")
_START_TIME_VARIABLE = "BENCHMARK_STARTED"
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16")
_PATH_FLAGS = ("--data_dir", "--folder", "--json", "--out", "--page", "--records", "--torch_python")
# Help texts of the flags that several benchmarks have.
_HELP = {
    "batch": "images per step",
    "data_dir": "folder of JPEG files, searched recursively",
    "dtype": "compute dtype",
    "dtypes": "compute dtypes, separated by commas",
    "json": "write the results to this file",
    "model": "architecture",
    "models": "architectures, separated by commas",
    "pairs": "runs of each side",
    "rounds": "runs of each side",
    "seconds": "duration of each timed run",
    "size": "image size in pixels",
    "steps": "timed steps per run",
    "threads": "threads that load images",
    "torch_python": "Python interpreter that has torch and timm",
}


class BenchmarkParser(argparse.ArgumentParser):
    """Command-line parser of a benchmark.

    Args:
      doc: docstring of the module; its first line is the description in `--help`.
      sides: values of the hidden flag `--side`, which selects what a child process measures.
      has_json: whether to add `--json`.
    """

    def __init__(self, doc: str, sides: Iterable[str] = (), has_json: bool = True) -> None:
        super().__init__(description=doc.split("\n", 1)[0])
        self._internal: set[str] = {"json"}
        if has_json:
            self.add_flag("--json", "")
        if sides:
            self.add_hidden("--side", choices=sides)

    def add_flag(
        self,
        flag: str,
        default: str | int | float | pathlib.Path,
        help: str = "",
        choices: Sequence | None = None,
    ) -> None:
        """Adds a flag of the type of its default; a bool is a switch.

        Args:
          flag: with its dashes.
          default: False for a switch.
          help: needed for a flag that is not shared by several benchmarks.
          choices: allowed values.
        """
        help = help or _HELP[flag.removeprefix("--")]
        if isinstance(default, bool):
            self.add_argument(flag, action="store_true", help=help)
            return
        kind = pathlib.Path if isinstance(default, pathlib.Path) else type(default)

        def parse_path(text: str) -> str | pathlib.Path:
            try:
                return kind(local_paths.expand(flag.removeprefix("--"), text) if text else text)
            except UsageError as error:
                raise argparse.ArgumentTypeError(str(error)) from None

        parse = parse_path if flag in _PATH_FLAGS else kind
        self.add_argument(flag, type=parse, default=default, choices=choices, help=help)

    def add_hidden(self, flag: str, **options: Any) -> None:
        """Adds a flag that only the benchmark passes to its child processes."""
        self._internal.add(flag.removeprefix("--"))
        self.add_argument(flag, help=argparse.SUPPRESS, **options)

    def format_flags(self, args: argparse.Namespace, omit: Sequence[str] = ()) -> list[str]:
        """Returns the flags that repeat a command, in the order of their definition.

        Args:
          args: the parsed command line.
          omit: names of flags to leave out, in addition to `--json` and hidden ones.
        """
        words = []
        for name, value in vars(args).items():
            if name in self._internal or name in omit or value in ("", None) or value is False:
                continue
            words.append(f"--{name}" if value is True else f"--{name}={value}")
        return words

    def require_positive(self, args: argparse.Namespace, *names: str) -> None:
        """Exits with an error unless each of these flags is at least 1."""
        for name in names:
            value = getattr(args, name)
            if value < 1:
                self.error(f"--{name}={value}: must be at least 1")

    def require_known(self, flag: str, value: str, known: Iterable[str]) -> None:
        """Exits with an error if a comma-separated value has an unknown item."""
        known = list(known)
        if unknown := sorted(set(value.split(",")) - set(known)):
            self.error(f"{flag}={value}: unknown {unknown[0]!r}; use {', '.join(known)}")


def echo(text: str = "") -> None:
    """Prints text to stdout without buffering."""
    print(text, flush=True)


def report_progress(text: str) -> None:
    """Prints text to stderr without buffering."""
    print(text, file=sys.stderr, flush=True)


def run_child(
    module: str,
    arguments: Sequence[str],
    python: str = sys.executable,
    timeout_seconds: float | None = None,
) -> dict:
    """Runs `python -m module arguments` and returns what the child passed to `emit`.

    Args:
      module: dotted name of a benchmark.
      arguments: flags of the child.
      python: interpreter; a peer may be installed in another environment.
      timeout_seconds: after this time the child, and what it has started, is killed.

    Raises:
      subprocess.TimeoutExpired: the child was killed.
      SystemExit: the child failed; the message ends with its last output and its exit code.
    """
    environment = {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        _START_TIME_VARIABLE: repr(time.time()),
    }
    command = [python, "-m", module, *arguments]
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        stdout, stderr = child.communicate(timeout=timeout_seconds)
    except BaseException:  # also Ctrl-C, which a new session does not get
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise
    lines = stdout.splitlines()
    if child.returncode or not lines:
        output = (stdout + stderr)[-3000:]
        shown = " ".join(["python", *command[1:]])
        raise SystemExit(f"{output}\n{shown}: exit code {child.returncode}")
    return json.loads(lines[-1])


def emit(result: dict) -> None:
    """Passes a child's result to its parent, as one line of JSON at the end of stdout."""
    echo(json.dumps(result))


class PairedRuns:
    """Results of all sides; the nth result of each side belongs to the nth pair.

    Attributes:
      by_side: results of each side, in order.
    """

    def __init__(self, sides: Iterable[str]) -> None:
        self.by_side: dict[str, list[dict]] = {side: [] for side in sides}

    def pairs(self) -> list[dict[str, dict]]:
        """Returns the result of each side by name, for each pair."""
        return [
            dict(zip(self.by_side, results, strict=True))
            for results in zip(*self.by_side.values(), strict=True)
        ]

    def values(self, side: str, quantity: str) -> list[float]:
        """Returns one quantity of all runs of a side."""
        return [result[quantity] for result in self.by_side[side]]

    def median(self, side: str, quantity: str) -> float:
        """Returns the median of one quantity over the runs of a side."""
        return statistics.median(self.values(side, quantity))

    def medians(self) -> dict[str, dict[str, float]]:
        """Returns the medians of all quantities, by side."""
        return {
            side: {name: self.median(side, name) for name in results[0]}
            for side, results in self.by_side.items()
        }

    def ratios(self, quantity: str, numerator: str, denominator: str) -> list[float]:
        """Returns the ratio of a quantity between two sides, for each pair."""
        numerators = self.values(numerator, quantity)
        denominators = self.values(denominator, quantity)
        return [a / b for a, b in zip(numerators, denominators, strict=True)]


def run_pairs(
    module: str,
    sides: Iterable[str],
    num_pairs: int,
    words: Sequence[str],
    *,
    quantity: str = "images_per_second",
    label: str = "",
    warm_up_pairs: int = 0,
    interpreters: Mapping[str, str] | None = None,
) -> Iterator[PairedRuns]:
    """Runs the sides of a benchmark alternately, each time in a new process.

    Args:
      module: dotted name of the benchmark.
      sides: values of `--side`, in the order of the runs within a pair.
      num_pairs: runs of each side.
      words: flags of every child, without `--side`.
      quantity: key of a child's result that the progress on stderr shows.
      label: start of each line of progress.
      warm_up_pairs: pairs to run first and to discard.
      interpreters: Python interpreters of the sides that need another one than this process.

    Yields:
      The results so far, after each pair: the caller can store them in case the run is cut short.
    """
    sides = tuple(sides)
    interpreters = interpreters or {}
    runs = PairedRuns(sides)
    for number in range(1 - warm_up_pairs, num_pairs + 1):
        results = {
            side: run_child(
                module, [f"--side={side}", *words], interpreters.get(side, sys.executable)
            )
            for side in sides
        }
        if number < 1:
            continue
        for side, result in results.items():
            runs.by_side[side].append(result)
        shown = ", ".join(f"{s} {_format_cell(r.get(quantity, '-'))}" for s, r in results.items())
        report_progress(f"{label}pair {number} of {num_pairs}: {shown} ({quantity})")
        yield runs


def run_cases(module: str, cases: Iterable[str], words: Sequence[str] = ()) -> dict[str, dict]:
    """Runs each case of a benchmark in a new process.

    Args:
      module: dotted name of the benchmark.
      cases: values of its hidden flag `--child`.
      words: further flags of every child.

    Returns:
      The result of each case.
    """
    results = {}
    for case in cases:
        results[case] = run_child(module, [*words, f"--child={case}"])
        report_progress(f"{case}: {results[case]}")
    return results


def get_seconds_since_start() -> float:
    """Returns the seconds since the parent started this child, including interpreter start-up."""
    return time.time() - float(os.environ[_START_TIME_VARIABLE])


def peak_memory_mb() -> float:
    """Returns the peak resident memory of this process so far, in 10^6 bytes.

    On Linux a child starts with its parent's peak, so the parent must stay small.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def get_resource_usage() -> dict[str, float]:
    """Returns what this process has used so far: CPU user_seconds, system_seconds, page_faults.

    Many page faults per step mean that freed memory is returned to the system and fetched again.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "user_seconds": usage.ru_utime,
        "system_seconds": usage.ru_stime,
        "page_faults": usage.ru_minflt,
    }


def start_report(module: str, words: Sequence[str], packages: Iterable[str] = PACKAGES) -> dict:
    """Prints the command and the machine; returns them as `collect_metadata` does."""
    report = collect_metadata(module, words, packages)
    echo(f"{report['command']}\non {report['machine']}")
    return report


def collect_metadata(module: str, arguments: Sequence[str], packages: Iterable[str]) -> dict:
    """Returns what a reader needs to repeat a measurement: command, date, machine, versions.

    Args:
      module: dotted name of the benchmark.
      arguments: its command line.
      packages: names of distributions; those that are not installed are left out.
    """
    return {
        "command": " ".join(["python", "-m", module, *arguments]),
        "date": utc_now(),
        "machine": describe_machine(),
        "versions": {"python": platform.python_version(), **_find_versions(packages)},
    }


def utc_now() -> str:
    """Returns the date and time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def describe_machine() -> dict[str, Any]:
    """Returns a dict of the machine: cpu, cores, cpu_flags, system, load_before."""
    cpu = environment.read_cpuinfo()
    model, flags = (cpu.model, cpu.flags) if cpu else ("", frozenset())
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": model or platform.processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "cpu_flags": [flag for flag in _CPU_FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.machine()}",
        # Above about 0.3, other programs were running and the results are unreliable.
        "load_before": round(os.getloadavg()[0], 2),
    }


def default_dtypes() -> tuple[str, ...]:
    """Returns the dtypes to measure by default: bfloat16 only if the CPU computes in it."""
    return DTYPES if has_bfloat16(describe_machine()) else ("float32",)


def default_photo_folder() -> str:
    """Returns the folder of ILSVRC photos below the folder that REAL_IMAGES_DIR names."""
    return os.path.join(os.environ.get("REAL_IMAGES_DIR", ""), "ilsvrc_sample")


def has_bfloat16(machine: Mapping[str, Any]) -> bool:
    """Returns whether the CPU of `describe_machine` computes in bfloat16."""
    return bool({"avx512_bf16", "amx_bf16"} & set(machine["cpu_flags"]))


def _find_versions(packages: Iterable[str]) -> dict[str, str]:
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def format_table(header: Sequence[str], rows: Sequence[Sequence[str | int | float]]) -> str:
    """Formats rows as aligned columns: text to the left, numbers to the right.

    Floats get two decimals, or none from 100 upward.
    """
    cells = [[_format_cell(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    is_number = [isinstance(cell, int | float) for cell in rows[0]]

    def format_line(line: Sequence[str]) -> str:
        aligned = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, is_number, strict=True)
        ]
        return "  ".join(aligned).rstrip()

    rule = ["-" * width for width in widths]
    return "\n".join(map(format_line, [header, rule, *cells]))


def _format_cell(cell: str | int | float) -> str:
    return f"{cell:.{0 if cell >= 100 else 2}f}" if isinstance(cell, float) else str(cell)


def save_report(path: str, report: dict) -> None:
    """Writes a report as JSON if `--json` names a file."""
    if path:
        write_json(path, report)


def write_json(path: str | os.PathLike, result: Any) -> None:
    """Writes a result to a file atomically; creates its folder."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(temporary, path)
