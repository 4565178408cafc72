"""What the training loop costs beside its step.

  python -m benchmarks.loop_overhead --json=overhead.json
  python -m benchmarks.loop_overhead --costs

The first command trains from memory: `bare` calls the training step on batches that are kept in
memory, `loop` is `main.py --mode=train` on such batches, with logging at its default interval.
Both do `--steps` after 20 of warm-up, in processes of their own, in turn.

With `--costs`, `main.py --mode=train` runs on the built-in images with an evaluation and a save
every epoch, and the table says what each of them, and a log line, has taken of the loop's time.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time

from benchmarks import harness

_MODULE = "benchmarks.loop_overhead"
_SIDES = ("bare", "loop")
_WARM_UP = 20
_LOG_EVERY = 20  # the default of --log_every
_NUM_CLASSES = 10  # of the built-in set
_NEVER = 10**6


def main():
    """Runs the children and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnetv2_50")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--costs", action="store_true", help="of evaluating, saving and logging")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--side", choices=(*_SIDES, "costs"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    words = [f"--model={args.model}", f"--size={args.size}", f"--batch={args.batch}"]
    words += [f"--steps={args.steps}"]
    if args.side:
        harness.emit(
            {"bare": _measure_bare, "loop": _measure_loop, "costs": _measure_costs}[args.side](args)
        )
        return
    options = [*words, *(["--costs"] if args.costs else [f"--pairs={args.pairs}"])]
    facts = harness.collect_metadata(_MODULE, options, ("tensorflow-cpu", "tensorflow", "keras"))
    for results in [_report_costs(words)] if args.costs else _compare(words, args.pairs):
        if args.json:
            harness.write_json(args.json, {"results": results, **facts})


def _compare(words, pairs):
    """Measures both sides in turn; yields what is known after each pair."""
    rows, ratios = [], []
    for pair in harness.alternate(
        _SIDES, pairs, lambda side: harness.run_child(_MODULE, [*words, f"--side={side}"])
    ):
        speeds = [pair[side]["images_per_second"] for side in _SIDES]
        ratios.append(speeds[1] / speeds[0])
        used = [pair[side]["cpu_seconds"] for side in _SIDES]
        rows.append([len(rows) + 1, *speeds, ratios[-1], used[0] / used[1]])
        yield {"rows": rows, "median_ratio": statistics.median(ratios)}
    header = ["pair", "bare step, images/s", "main.py, images/s", "ratio", "CPU time, bare / main"]
    harness.echo(harness.format_table(header, rows))
    harness.echo(f"median ratio {statistics.median(ratios):.3f}")


def _report_costs(words):
    costs = harness.run_child(_MODULE, [*words, "--side=costs"])
    rows = [
        [what, seconds, 100 * seconds / costs["time/total"]]
        for what, seconds in sorted(costs.items())
    ]
    harness.echo(harness.format_table(["", "seconds", "percent"], rows))
    return costs


def _make_argv(args, *words):
    argv = ["main.py", "--mode=train", f"--model={args.model}", f"--image_size={args.size}"]
    return [*argv, f"--batch_size={args.batch}", "--strategy=one", *words]


def _measure_bare(args):
    """Images per second of the step, called for the log interval of steps at a time."""
    from benchmarks.workloads.bare_step import BareStep

    return BareStep(_make_argv(args), _NUM_CLASSES).measure_speed(_WARM_UP, args.steps, _LOG_EVERY)


def _measure_loop(args):
    """Images per second of main.py, from the log lines of its run folder."""
    from benchmarks.workloads import bare_step
    from input_pipeline import pipeline
    from loops.monitoring import metric_writer

    used, write_scalars = {}, metric_writer.MetricWriter.write_scalars

    def noting(self, split, step, values):
        used.setdefault(step, time.process_time())
        write_scalars(self, split, step, values)

    def kept(source, config, seed, first_sample, batch_size, replica_slice=None):
        return bare_step.make_random_batches(args.size, batch_size, _NUM_CLASSES)

    pipeline.train_dataset = kept
    metric_writer.MetricWriter.write_scalars = noting
    never = [f"--{name}={_NEVER}" for name in ("eval_every", "save_every")]
    lines = _train(_make_argv(args, f"--steps={_WARM_UP + args.steps}", *never))
    times = {line["step"]: line["time/total"] for line in lines}
    first, last = _WARM_UP, max(times)
    seconds = times[last] - times[first]
    return {
        "images_per_second": (last - first) * args.batch / seconds,
        "cpu_seconds": (used[last] - used[first]) / (last - first),
    }


def _measure_costs(args):
    """Seconds of a run by what they went into, from the first log line to the last."""
    first, *_, last = _train(_make_argv(args, f"--steps={args.steps}"))
    tags = (tag for tag in last if tag.startswith("time/"))
    return {tag: last[tag] - first.get(tag, 0.0) for tag in tags}


def _train(argv):
    """Trains as main.py does; returns the lines of `metrics.jsonl` that are about training."""
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
