"""Peak memory and time of a training step: plain, in micro-batches, recomputing, and both.

  python -m benchmarks.memory_table --json=memory.json
  python -m benchmarks.memory_table --dtypes=float32 --cases=plain,accumulate --batch=64

Each case is a process of its own that does two steps on noise; the second one is timed. `peak` is
the process's largest resident size (on a GPU, the allocator's peak), `of the step` what is above
the peak before the first step: without TensorFlow, its libraries, weights and momentum.
"""

import argparse
import time

from benchmarks import harness

_MODULE = "benchmarks.memory_table"
CASES = {
    "plain": [],
    "accumulate": ["--accumulate=4"],
    "recompute": ["--recompute"],
    "both": ["--accumulate=4", "--recompute"],
}
_HALF = ["--mixed_precision"]
_NUM_CLASSES = 1000


def main():
    """Measures every case in a child of its own and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnetse_50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dtypes", default=",".join(harness.default_dtypes()))
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    words = [f"--model={args.model}", f"--size={args.size}", f"--batch={args.batch}"]
    if args.child:
        dtype, case = args.child.split(",")
        harness.emit(measure(args.model, args.size, args.batch, dtype, case))
        return
    results = {}
    for dtype in args.dtypes.split(","):
        for case in args.cases.split(","):
            results[f"{dtype} {case}"] = harness.run_child(
                _MODULE, [*words, f"--child={dtype},{case}"]
            )
            harness.echo(f"{dtype} {case}: {results[f'{dtype} {case}']}")
    harness.echo(_format_table(results))
    if args.json:
        words += [f"--dtypes={args.dtypes}", f"--cases={args.cases}"]
        facts = harness.collect_metadata(_MODULE, words, ("tensorflow-cpu", "tensorflow", "keras"))
        harness.write_json(args.json, {"results": results, **facts})


def _format_table(results):
    rows = []
    for name, figures in results.items():
        plain = results.get(f"{name.split()[0]} plain")
        ratios = [figures[k] / plain[k] if plain else 0.0 for k in ("peak_gb", "step_seconds")]
        rows.append([name, *figures.values(), *ratios])
    header = ["case", "peak, GB", "of the step, GB", "step, s", "peak / plain", "time / plain"]
    return harness.format_table(header, rows)


def measure(model, size, batch_size, dtype, case, more=()):
    """Does two steps in this process.

    Args:
      model: name of the net.
      size, batch_size: of the images.
      dtype: "float32", "bfloat16" or "float16".
      case: a key of CASES.
      more: further words of the command line.

    Returns:
      dict: peak_gb, step_gb (above the peak before the first step), step_seconds.
    """
    from benchmarks.workloads.bare_step import BareStep
    from loops.runtime import peak_memory

    # A loss scale at which no step of noise is skipped; bfloat16 has none.
    scaled = ["--initial_loss_scale=128"]
    half = [] if dtype == "float32" else [*_HALF, f"--half_dtype={dtype}", *scaled]
    argv = ["main.py", f"--model={model}", f"--image_size={size}", f"--batch_size={batch_size}"]
    step = BareStep([*argv, *half, *CASES[case], *(more or ["--strategy=one"])], _NUM_CLASSES)
    before = peak_memory.peak_bytes()
    step(1)
    started = time.perf_counter()
    step(1)
    seconds = time.perf_counter() - started
    peak = peak_memory.peak_bytes()
    return {"peak_gb": peak / 1e9, "step_gb": (peak - before) / 1e9, "step_seconds": seconds}


if __name__ == "__main__":
    main()
