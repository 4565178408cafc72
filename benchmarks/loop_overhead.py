"""Measures the overhead of the training loop over its step.

  python -m benchmarks.loop_overhead --json=overhead.json
  python -m benchmarks.loop_overhead --costs

The first command trains on batches in memory. The side `bare` only calls the training step. The
side `loop` is `main.py --mode=train` on such batches, with logging at its default interval. Both
time `--steps` steps after 20 warm-up steps, alternately and in new processes.

With `--costs`, `main.py --mode=train` runs on the built-in images and evaluates and saves every
epoch. The table shows how much of the loop's time went into evaluating, saving and logging.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import harness

_MODULE = "benchmarks.loop_overhead"
_SIDES = ("bare", "loop")
_WARM_UP = 20
_LOG_EVERY = 20  # the default of --log_every
_NUM_CLASSES = 10  # of the built-in data set
_NEVER = 10**6


def summarize(runs: harness.PairedRuns) -> dict:
    """Returns a row per pair and the median ratio.

    Each row has the number of the pair, images per second of both sides, their ratio
    (loop / bare), and the ratio of CPU time per step (bare / loop).
    """
    ratios = runs.ratios("images_per_second", "loop", "bare")
    speeds = [runs.values(side, "images_per_second") for side in _SIDES]
    cpu_ratios = runs.ratios("cpu_seconds", *_SIDES)
    columns = zip(*speeds, ratios, cpu_ratios, strict=True)
    rows = [[number, *values] for number, values in enumerate(columns, 1)]
    return {"rows": rows, "median_ratio": statistics.median(ratios)}


def main() -> None:
    """Compares the sides or reports the costs, or measures what `--side` names."""
    parser = harness.BenchmarkParser(__doc__, sides=(*_SIDES, "costs"))
    parser.add_flag("--model", "resnetv2_50")
    parser.add_flag("--size", 64)
    parser.add_flag("--batch", 32)
    parser.add_flag("--steps", 200)
    parser.add_flag("--pairs", 3)
    parser.add_flag("--costs", False, "measure the costs of evaluating, saving and logging")
    args = parser.parse_args()
    if args.side:
        measure = {"bare": _measure_bare, "loop": _measure_loop, "costs": _measure_costs}
        harness.emit(measure[args.side](args))
        return

    words = parser.format_flags(args, omit=["pairs"] if args.costs else [])
    report = harness.start_report(_MODULE, words)
    if args.costs:
        report["results"] = harness.run_child(_MODULE, [*words, "--side=costs"])
        harness.save_report(args.json, report)
        _print_costs(report["results"])
        return
    for runs in harness.run_pairs(_MODULE, _SIDES, args.pairs, words):
        report["results"] = summarize(runs)
        harness.save_report(args.json, report)
    header = ["pair", "bare step, images/s", "main.py, images/s", "ratio", "CPU time, bare / main"]
    harness.echo(harness.format_table(header, report["results"]["rows"]))
    harness.echo(f"median ratio {report['results']['median_ratio']:.3f}")


def _print_costs(costs: dict[str, float]) -> None:
    rows = [
        [tag, seconds, 100 * seconds / costs["system/time/total"]]
        for tag, seconds in sorted(costs.items())
    ]
    harness.echo(harness.format_table(["", "seconds", "percent"], rows))


def _make_argv(args: argparse.Namespace, *words: str) -> list[str]:
    argv = ["main.py", "--mode=train", f"--model={args.model}", f"--image_size={args.size}"]
    return [*argv, f"--batch_size={args.batch}", "--strategy=one", *words]


def _measure_bare(args: argparse.Namespace) -> dict[str, float]:
    """Measures the step alone, with as many steps per call as the loop has per log interval."""
    from benchmarks.workloads.bare_step import BareStep

    return BareStep(_make_argv(args), _NUM_CLASSES).measure_speed(_WARM_UP, args.steps, _LOG_EVERY)


def _measure_loop(args: argparse.Namespace) -> dict[str, float]:
    """Measures main.py, from the log lines of its run folder."""
    from benchmarks.workloads import bare_step
    from input_pipeline import pipeline
    from loops.monitoring import metric_writer

    cpu_seconds, measure = {}, metric_writer.MetricWriter.write_scalars

    def measure_and_record(self: Any, split: str, step: int, values: Any) -> None:
        cpu_seconds.setdefault(step, time.process_time())
        measure(self, split, step, values)

    def make_dataset(
        source: Any, config: Any, seed: int, first_sample: int, batch_size: int, *_: Any, **__: Any
    ) -> Any:
        return bare_step.make_random_batches(args.size, batch_size, _NUM_CLASSES)

    pipeline.train_dataset = make_dataset
    metric_writer.MetricWriter.write_scalars = measure_and_record
    never = [f"--{name}={_NEVER}" for name in ("eval_every", "save_every")]
    lines = _train(_make_argv(args, f"--steps={_WARM_UP + args.steps}", *never))
    times = {line["step"]: line["system/time/total"] for line in lines}
    first, last = _WARM_UP, max(times)
    seconds = times[last] - times[first]
    return {
        "images_per_second": (last - first) * args.batch / seconds,
        "cpu_seconds": (cpu_seconds[last] - cpu_seconds[first]) / (last - first),
    }


def _measure_costs(args: argparse.Namespace) -> dict[str, float]:
    """Returns the seconds of each phase of a run, from the first log line to the last."""
    first, *_, last = _train(_make_argv(args, f"--steps={args.steps}"))
    tags = (tag for tag in last if tag.startswith("system/time/"))
    return {tag: last[tag] - first.get(tag, 0.0) for tag in tags}


def _train(argv: Sequence[str]) -> list[dict]:
    """Trains as main.py does; returns the lines of `metrics.jsonl` of the train split."""
    import flags
    from loops import train
    from loops.runtime import log_format

    log_format.set_up()
    with tempfile.TemporaryDirectory() as folder:
        argv = [*argv, f"--checkpoint_dir={folder}", "--run_name=r", "--crops=1"]
        train.run(flags.parse(argv))
        text = pathlib.Path(folder, "r/metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if line["split"] == "train"]


if __name__ == "__main__":
    main()
