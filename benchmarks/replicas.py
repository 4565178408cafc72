"""Two replicas on two halves of the CPU against one on all of it, at the same global batch.

  python -m benchmarks.replicas --json=replicas.json

Both sides call the training step of `main.py --mode=train` on batches in memory, in processes of
their own, in turn. What is above a ratio of 1 is the price of the second replica: two half batches
in place of one, the sum of gradients, the update of both copies of the weights.
"""

import argparse
import statistics

from benchmarks import harness

_MODULE = "benchmarks.replicas"
_SIDES = {"one": ["--strategy=one"], "two": ["--strategy=mirrored", "--cpu_devices=2"]}
_NUM_CLASSES = 10
_WARM_UP = 4
_STEPS_PER_CALL = 5


def main():
    """Runs the children and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnetv2_50")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64, help="images of a step, of all replicas")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--side", choices=_SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    words = [f"--model={args.model}", f"--size={args.size}", f"--batch={args.batch}"]
    words += [f"--steps={args.steps}"]
    if args.side:
        harness.emit(_measure(args))
        return
    pairs = harness.alternate(
        _SIDES, args.pairs, lambda side: harness.run_child(_MODULE, [*words, f"--side={side}"])
    )
    facts = harness.collect_metadata(_MODULE, words, ("tensorflow-cpu", "tensorflow", "keras"))
    rows = []
    for pair in pairs:
        speeds = [pair[side]["images_per_second"] for side in _SIDES]
        ratio = speeds[0] / speeds[1]
        used = pair["two"]["cpu_seconds"] / pair["one"]["cpu_seconds"]
        rows.append([len(rows) + 1, *speeds, ratio, used, 100 * pair["two"]["data_wait"]])
        median = statistics.median(row[3] for row in rows)
        if args.json:
            result = {"rows": rows, "median": median, "size": args.size}
            harness.write_json(args.json, {**result, **facts})
    header = ["pair", "one, images/s", "two, images/s", "times as long", "CPU time"]
    header.append("two wait for data, %")
    harness.echo(harness.format_table(header, rows))
    harness.echo(f"the step of two replicas takes {median:.3f} times as long (median)")


def _measure(args):
    from benchmarks.workloads.bare_step import BareStep

    argv = ["main.py", f"--model={args.model}", f"--image_size={args.size}"]
    argv += [f"--batch_size={args.batch}", *_SIDES[args.side]]
    return BareStep(argv, _NUM_CLASSES).measure_speed(_WARM_UP, args.steps, _STEPS_PER_CALL)


if __name__ == "__main__":
    main()
