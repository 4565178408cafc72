"""Runs checks that need a GPU: precision, replicas, memory and speed.

  python -m benchmarks.gpu_check --json=gpu.json
  python -m benchmarks.gpu_check --allow_cpu

Each check runs in a new process. Exit code 1: a check failed. Exit code 2: the machine has no GPU.

`--allow_cpu` runs the same checks on two halves of the CPU at a tiny size. This shows that the
script works, but nothing about GPUs.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

from benchmarks import harness
from benchmarks.workloads import gpu_checks

_MODULE = "benchmarks.gpu_check"
_COUNT_GPUS_CODE = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"


def main() -> int:
    """Runs each check in a child process, prints a table, and returns the exit code."""
    parser = harness.BenchmarkParser(__doc__)
    parser.add_flag("--allow_cpu", False, "run tiny checks on the CPU")
    parser.add_flag("--only", "", "run only the checks whose names start like this")
    parser.add_hidden("--child")
    parser.add_hidden("--folder", type=pathlib.Path)
    args = parser.parse_args()
    if args.child:
        name, replicas = args.child.split(",")
        place = "cpu" if args.allow_cpu else "gpu"
        harness.emit(gpu_checks.CHECKS[name](place, int(replicas), args.folder))
        return 0

    gpus = 0 if args.allow_cpu else _count_gpus()
    if not gpus and not args.allow_cpu:
        sys.stderr.write("TensorFlow sees no GPU; use --allow_cpu to try the checks on the CPU\n")
        return 2
    report = harness.start_report(_MODULE, parser.format_flags(args)) | {"gpus": gpus}
    with tempfile.TemporaryDirectory() as folder:
        results = _run_checks(args, 2 if args.allow_cpu else gpus, folder)
    report["results"] = {f"{name},{replicas}": r for (name, replicas), r in results.items()}
    rows = [
        [f"{name}, {replicas} replica(s)", "ok" if result["ok"] else "FAILED", result["what"]]
        for (name, replicas), result in results.items()
    ]
    harness.echo(harness.format_table(["check", "outcome", "details"], rows))
    harness.save_report(args.json, report)
    return 0 if all(result["ok"] for result in results.values()) else 1


def _run_checks(args: argparse.Namespace, devices: int, folder: str) -> dict[tuple[str, int], dict]:
    """Runs the checks; returns the result of each by (name, replicas)."""
    results = {}
    for name in gpu_checks.CHECKS:
        if args.only and not name.startswith(args.only):
            continue
        # The other checks, of memory and speed, need only one device.
        is_multi_replica = name in gpu_checks.MULTI_REPLICA_CHECKS and devices > 1
        for replicas in (1, devices) if is_multi_replica else (1,):
            words = [f"--child={name},{replicas}", f"--folder={folder}"]
            try:
                result = harness.run_child(_MODULE, words + ["--allow_cpu"] * args.allow_cpu)
            except SystemExit as failure:
                # The last line is the command; the line before it is the child's error.
                lines = [line for line in str(failure).splitlines() if line.strip()]
                result = {"ok": False, "what": lines[-2:][0][:120]}
            harness.report_progress(f"{name}, {replicas} replica(s): {result}")
            results[name, replicas] = result
    return results


def _count_gpus() -> int:
    """Counts the GPUs that TensorFlow sees, in a child process: this process must stay small."""
    command = [sys.executable, "-c", _COUNT_GPUS_CODE]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(process.stdout.split()[-1])


if __name__ == "__main__":
    sys.exit(main())
