"""Checks of what needs a GPU: precision, replicas, memory and speed, as one table.

  python -m benchmarks.gpu_check --json=gpu.json
  python -m benchmarks.gpu_check --allow_cpu

Each check is a process of its own. On a machine without a GPU the command says so and ends with
exit code 2; with `--allow_cpu` it does the same on two halves of the CPU at a tiny size, which
shows that the script runs and nothing about GPUs. Exit code 1: a check failed.
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


def main():
    """Runs every check in a child of its own and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--allow_cpu", action="store_true", help="without a GPU, on the CPU")
    parser.add_argument("--only", help="checks whose names begin so")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    place = "cpu" if args.allow_cpu else "gpu"
    if args.child:
        name, replicas = args.child.split(",")
        check = gpu_checks.CHECKS[name]
        harness.emit(check(place, int(replicas), pathlib.Path(args.folder)))
        return 0
    gpus = 0 if args.allow_cpu else _count_gpus()
    if not gpus and not args.allow_cpu:
        sys.stderr.write("no GPU that TensorFlow sees; --allow_cpu tries the checks on the CPU\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        results = _run_checks(args, 2 if args.allow_cpu else gpus, folder)
    rows = [
        [f"{name}, {replicas} replica(s)", "ok" if found["ok"] else "FAILED", found["what"]]
        for (name, replicas), found in results.items()
    ]
    harness.echo(harness.format_table(["check", "outcome", "figures"], rows))
    if args.json:
        words = ["--allow_cpu"] * args.allow_cpu + [f"--only={args.only}"] * bool(args.only)
        facts = harness.collect_metadata(_MODULE, words, ("tensorflow-cpu", "tensorflow", "keras"))
        named = {f"{name},{replicas}": found for (name, replicas), found in results.items()}
        harness.write_json(args.json, {"gpus": gpus, "results": named, **facts})
    return 0 if all(found["ok"] for found in results.values()) else 1


def _run_checks(args, devices, folder):
    """Outcome of each check by (name, replicas)."""
    results = {}
    for name in gpu_checks.CHECKS:
        if args.only and not name.startswith(args.only):
            continue
        # Memory and speed of one device tell enough.
        both = name in gpu_checks.MULTI_REPLICA_CHECKS and devices > 1
        for replicas in (1, devices) if both else (1,):
            words = [f"--child={name},{replicas}", f"--folder={folder}"]
            try:
                found = harness.run_child(_MODULE, words + ["--allow_cpu"] * args.allow_cpu)
            except SystemExit as failure:
                # The end is the command; what the child died of stands before it.
                said = [line for line in str(failure).splitlines() if line.strip()]
                found = {"ok": False, "what": said[-2:][0][:120]}
            harness.echo(f"{name}, {replicas} replica(s): {found}")
            results[name, replicas] = found
    return results


def _count_gpus():
    """GPUs that TensorFlow sees, counted in another process: this one must stay small."""
    command = [sys.executable, "-c", _COUNT_GPUS_CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    sys.exit(main())
