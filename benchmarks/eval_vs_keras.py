"""Compares our ten-crop evaluation with the same network in plain Keras and `predict`.

    python -m benchmarks.eval_vs_keras --data_dir=FOLDER

Both sides score all photos in FOLDER with a ResNetV2-50 of 1,000 classes with initial weights.
Both start from the encoded files.

Our side is the Evaluator of `main.py --mode=eval`, with its input pipeline and the mean over
crops. The other side is the network of `workloads/keras_resnetv2.py`. Its `model.predict` reads a
tf.data pipeline of the same normalized crops, with the same number of crops per batch.

The input pipeline is also measured alone, to show that it does not limit the speed.
"""

import argparse
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator

from benchmarks import harness

_MODULE = "benchmarks.eval_vs_keras"
_SIDES = ("ours", "keras")
_WARM_UP_IMAGES = 25


def summarize(runs: harness.PairedRuns) -> dict:
    """Summarizes the pairs so far.

    Returns:
      A dict: medians and runs (by side), ratios of images per second (ours / keras of each pair),
      cpu_ratios of CPU seconds per image (keras / ours), median_ratio and median_cpu_ratio. Other
      programs on the machine hardly affect CPU seconds.
    """
    ratios = runs.ratios("images_per_second", "ours", "keras")
    cpu_ratios = runs.ratios("cpu_seconds_per_image", "keras", "ours")
    return {
        "medians": runs.medians(),
        "ratios": ratios,
        "median_ratio": statistics.median(ratios),
        "cpu_ratios": cpu_ratios,
        "median_cpu_ratio": statistics.median(cpu_ratios),
        "runs": runs.by_side,
    }


def measure(
    evaluate: Callable[[int], None], read_input: Callable[[int], None], num_images: int
) -> dict[str, float]:
    """Times one side: two passes over a few images for tracing and warm-up, then the timed pass.

    Args:
      evaluate: evaluates a number of images.
      read_input: reads a number of images without evaluating them.
      num_images: images of the timed pass.

    Returns:
      A dict: images_per_second, cpu_seconds_per_image (of all threads), page_faults_per_image,
      input_images_per_second, first_batch_seconds, peak_memory_mb. If speed and CPU time
      disagree, other programs used the CPU.
    """

    def time_pass(function: Callable[[int], None], count: int) -> float:
        started = time.perf_counter()
        function(count)
        return time.perf_counter() - started

    first = time_pass(evaluate, min(_WARM_UP_IMAGES, num_images))
    time_pass(evaluate, min(_WARM_UP_IMAGES, num_images))
    before = harness.get_resource_usage()
    seconds = time_pass(evaluate, num_images)
    usage = {name: value - before[name] for name, value in harness.get_resource_usage().items()}
    return {
        "images_per_second": num_images / seconds,
        "cpu_seconds_per_image": (usage["user_seconds"] + usage["system_seconds"]) / num_images,
        "page_faults_per_image": usage["page_faults"] / num_images,
        "input_images_per_second": num_images / time_pass(read_input, num_images),
        "first_batch_seconds": first,
        "peak_memory_mb": harness.peak_memory_mb(),
    }


def format_rows(result: dict) -> Iterator[list]:
    """Yields rows of the table: quantity, side, median, and the value of every pair."""
    for name in result["medians"]["ours"]:
        for side in _SIDES:
            values = [run[name] for run in result["runs"][side]]
            yield [name.replace("_", " "), side, result["medians"][side][name], *values]
    yield ["ratio of speeds", "ours / keras", result["median_ratio"], *result["ratios"]]
    yield ["ratio of CPU time", "keras / ours", result["median_cpu_ratio"], *result["cpu_ratios"]]


def main() -> None:
    """Compares the sides, or measures the one that `--side` names."""
    parser = harness.BenchmarkParser(__doc__, sides=_SIDES)
    parser.add_argument("--data_dir", required=True, help="folder of photos, searched recursively")
    parser.add_flag("--images", 200, "number of photos to use at most")
    parser.add_flag("--size", 224)
    parser.add_flag("--crops", 10, "crops per image", choices=(10, 1))
    parser.add_flag("--dtype", harness.default_dtypes()[0], choices=harness.DTYPES)
    parser.add_flag("--pairs", 3)
    args = parser.parse_args()
    parser.require_positive(args, "images", "pairs")
    if not pathlib.Path(args.data_dir).is_dir():
        parser.error(f"--data_dir={args.data_dir}: no such folder")
    if args.side:
        harness.emit(_measure_side(args))
        return

    words = parser.format_flags(args, omit=["data_dir"])
    packages = (*harness.PACKAGES, "numpy")
    report = harness.start_report(_MODULE, ["--data_dir=FOLDER", *words], packages)
    report["dtype"] = args.dtype
    for runs in harness.run_pairs(
        _MODULE, _SIDES, args.pairs, [f"--data_dir={args.data_dir}", *words]
    ):
        report["result"] = summarize(runs)
        harness.save_report(args.json, report)
    header = ["", "", "median", *(f"pair {n + 1}" for n in range(args.pairs))]
    harness.echo("\n" + harness.format_table(header, list(format_rows(report["result"]))))


def _measure_side(args: argparse.Namespace) -> dict[str, float]:
    from benchmarks.workloads import eval_workloads

    build = {"ours": eval_workloads.build_ours, "keras": eval_workloads.build_keras}[args.side]
    return measure(*build(args.data_dir, args.images, args.size, args.crops, args.dtype))


if __name__ == "__main__":
    main()
