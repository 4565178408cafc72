"""Our ten-crop evaluation against the same network of Keras layers and `predict`.

    python -m benchmarks.eval_vs_keras --data_dir=FOLDER

scores all photographs in FOLDER with a ResNetV2-50 of 1,000 classes. On one side the Evaluator of
`main.py --mode=eval`, with its input pipeline and the mean over views; on the other the net of
`sides/keras_resnetv2.py` (both as initialised) and `model.predict` on a tf.data pipeline of the
very same crops, normalised, in batches of the same number of views. Both start at encoded files.
The pipeline alone is measured too: the input side should never be the limit.
"""

import argparse
import pathlib
import statistics
import time

from benchmarks import harness

_SIDES = ("ours", "keras")
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy")


def compare(args):
    """Measures both sides in turn; yields what is known after each pair.

    Yields:
      dict: ratios (ours / keras, one for each pair) and median_ratio of images per second;
      cpu_ratios (keras / ours) and median_cpu_ratio of CPU seconds per image, which another
      program on the machine hardly moves; medians and runs (by side).
    """
    runs = {side: [] for side in _SIDES}

    def run(side):
        words = [f"--side={side}", f"--data_dir={args.data_dir}", f"--dtype={args.dtype}"]
        words += [f"--size={args.size}", f"--crops={args.crops}", f"--images={args.images}"]
        return harness.run_child("benchmarks.eval_vs_keras", words)

    for pair in harness.alternate(_SIDES, args.pairs, run):
        for side in _SIDES:
            runs[side].append(pair[side])
        both = zip(runs["ours"], runs["keras"], strict=True)
        ratios, cpu_ratios = [], []
        for our, their in both:
            ratios.append(our["images_per_second"] / their["images_per_second"])
            cpu_ratios.append(their["cpu_seconds_per_image"] / our["cpu_seconds_per_image"])
        medians = {
            side: {k: statistics.median(run[k] for run in of_side) for k in of_side[0]}
            for side, of_side in runs.items()
        }
        yield {
            "medians": medians,
            "ratios": ratios,
            "median_ratio": statistics.median(ratios),
            "cpu_ratios": cpu_ratios,
            "median_cpu_ratio": statistics.median(cpu_ratios),
            "runs": runs,
        }


def measure(evaluate, input_alone, num_images):
    """Times one side: a pass to trace and to warm up on a part, then the pass that counts.

    Args:
      evaluate: function of a number of images that evaluates them.
      input_alone: function of a number of images that only reads them.
      num_images: of the timed pass.

    Returns:
      dict of float: images_per_second, cpu_seconds_per_image (of all threads: where the two
      disagree, something else had the processors), page_faults_per_image,
      input_images_per_second, first_batch_seconds, peak_memory_mb.
    """

    def timed(function, count):
        started = time.perf_counter()
        function(count)
        return time.perf_counter() - started

    first = timed(evaluate, min(25, num_images))
    timed(evaluate, min(25, num_images))
    before = harness.get_resource_usage()
    seconds = timed(evaluate, num_images)
    used = {name: value - before[name] for name, value in harness.get_resource_usage().items()}
    return {
        "images_per_second": num_images / seconds,
        "cpu_seconds_per_image": (used["user_seconds"] + used["system_seconds"]) / num_images,
        "page_faults_per_image": used["page_faults"] / num_images,
        "input_images_per_second": num_images / timed(input_alone, num_images),
        "first_batch_seconds": first,
        "peak_memory_mb": harness.peak_memory_mb(),
    }


def format_rows(result):
    """Rows of the table: quantity, side, the median, and every pair."""
    for name in result["medians"]["ours"]:
        for side in _SIDES:
            values = [run[name] for run in result["runs"][side]]
            yield [name.replace("_", " "), side, result["medians"][side][name], *values]
    yield ["ratio of speeds", "ours / keras", result["median_ratio"], *result["ratios"]]
    yield ["ratio of CPU time", "keras / ours", result["median_cpu_ratio"], *result["cpu_ratios"]]


def main():
    """Compares the sides, or with `--side` measures one of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data_dir", required=True, help="folder of photographs, also nested")
    parser.add_argument("--images", type=int, default=200, help="at most so many of them")
    parser.add_argument("--size", type=int, default=224, help="side of a crop in pixels")
    parser.add_argument("--crops", type=int, default=10, choices=(10, 1))
    parser.add_argument(
        "--dtype", default=harness.default_dtypes()[0], choices=("bfloat16", "float32")
    )
    parser.add_argument("--pairs", type=int, default=3, help="runs of each side")
    parser.add_argument("--json", default="", help="write the result to this file")
    parser.add_argument("--side", choices=_SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not pathlib.Path(args.data_dir).is_dir() or min(args.images, args.pairs) < 1:
        parser.error("--data_dir is a folder, --images and --pairs are at least 1")
    if args.side:
        from benchmarks.workloads import eval_workloads

        build = {"ours": eval_workloads.build_ours, "keras": eval_workloads.build_keras}[args.side]
        side = build(args.data_dir, args.images, args.size, args.crops, args.dtype)
        harness.emit(measure(*side))
        return

    given = {n: getattr(args, n) for n in ("images", "size", "crops", "dtype", "pairs")}
    command = ["--data_dir=FOLDER", *(f"--{name}={value}" for name, value in given.items())]
    report = harness.collect_metadata("benchmarks.eval_vs_keras", command, _PACKAGES)
    report["dtype"] = args.dtype
    harness.echo(f"{report['command']}\non {report['machine']}")
    for result in compare(args):
        report["result"] = result
        harness.echo(f"pair {len(result['ratios'])} of {args.pairs}: {result['ratios'][-1]:.3f}")
        if args.json:
            harness.write_json(args.json, report)
    header = ["", "", "median", *(f"pair {n + 1}" for n in range(args.pairs))]
    harness.echo("\n" + harness.format_table(header, list(format_rows(report["result"]))))


if __name__ == "__main__":
    main()
