"""Measures peak memory and time of a training step with accumulation and recomputation.

  python -m benchmarks.memory_table --json=memory.json
  python -m benchmarks.memory_table --dtypes=float32 --cases=plain,accumulate --batch=64

Each case runs two steps on random images in a new process. The second step is timed. `peak` is the
peak resident memory of the process, or of the allocator on a GPU. `of the step` is the increase
over the peak before the first step: it excludes TensorFlow, weights and momentum.
"""

import time
from collections.abc import Mapping

from benchmarks import harness
from benchmarks.workloads.gpu_place import precision_flags

_MODULE = "benchmarks.memory_table"
CASES = {
    "plain": [],
    "accumulate": ["--accumulate=4"],
    "recompute": ["--recompute"],
    "both": ["--accumulate=4", "--recompute"],
}
_NUM_CLASSES = 1000


def main() -> None:
    """Measures each case in a child process and prints a table."""
    parser = harness.BenchmarkParser(__doc__)
    parser.add_flag("--model", "resnetse_50")
    parser.add_flag("--size", 224)
    parser.add_flag("--batch", 128)
    parser.add_flag("--dtypes", ",".join(harness.default_dtypes()))
    parser.add_flag("--cases", ",".join(CASES), "cases, separated by commas")
    parser.add_hidden("--child")
    args = parser.parse_args()
    if args.child:
        dtype, case = args.child.split(",")
        harness.emit(measure(args.model, args.size, args.batch, dtype, case))
        return

    words = parser.format_flags(args)
    report = harness.start_report(_MODULE, words)
    children = [f"{d},{c}" for d in args.dtypes.split(",") for c in args.cases.split(",")]
    results = harness.run_cases(_MODULE, children, words)
    report["results"] = {child.replace(",", " "): result for child, result in results.items()}
    harness.echo(_format_table(report["results"]))
    harness.save_report(args.json, report)


def _format_table(results: Mapping[str, Mapping[str, float]]) -> str:
    rows = []
    for name, result in results.items():
        plain = results.get(f"{name.split()[0]} plain")
        ratios = [result[k] / plain[k] if plain else 0.0 for k in ("peak_gb", "step_seconds")]
        rows.append([name, *result.values(), *ratios])
    header = ["case", "peak, GB", "of the step, GB", "step, s", "peak / plain", "time / plain"]
    return harness.format_table(header, rows)


def measure(model: str, size: int, batch_size: int, dtype: str, case: str) -> dict[str, float]:
    """Runs two steps in this process.

    Args:
      model: architecture.
      size: image size in pixels.
      batch_size: images per step.
      dtype: "float32", "bfloat16" or "float16".
      case: a key of CASES.

    Returns:
      A dict: peak_gb, step_gb (increase over the peak before the first step), step_seconds.
    """
    from benchmarks.workloads.bare_step import BareStep
    from loops.runtime import peak_memory

    argv = ["main.py", f"--model={model}", f"--image_size={size}", f"--batch_size={batch_size}"]
    argv += [*precision_flags(dtype), *CASES[case], "--strategy=one"]
    step = BareStep(argv, _NUM_CLASSES)
    before = peak_memory.peak_bytes()
    step(1)
    started = time.perf_counter()
    step(1)
    seconds = time.perf_counter() - started
    peak = peak_memory.peak_bytes()
    return {"peak_gb": peak / 1e9, "step_gb": (peak - before) / 1e9, "step_seconds": seconds}


if __name__ == "__main__":
    main()
