"""`--mode=predict` against `--mode=eval` on the same small images.

    python -m benchmarks.predict_vs_eval

draws 1,000 pictures of the built-in set, makes a run with fresh weights, and times both modes of
the program from the parsed command to the last line written, in processes of their own: reading
weights, tracing, decoding, the net, and what each does with its logits. What predict does besides,
it should do beside the net: at least 80 % of eval's images per second is the goal.
"""

import argparse
import contextlib
import io
import os
import pathlib
import statistics
import tempfile
import time

from benchmarks import harness

_SIDES = ("predict", "eval")
_PER_CLASS = 100
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy")


def prepare(folder, model):
    """Makes FOLDER/val/CLASS/*, 1,000 pictures of 96 px, and FOLDER/run with fresh weights."""
    from input_pipeline.sources import shapes
    from loops.checkpointing import checkpoint, restore, run_folder
    from loops.config import resolve
    from loops.config.config import Config
    from loops.distribution import strategies

    shapes.make("data/shapes")
    for name in shapes.CLASSES:
        pictures = sorted(pathlib.Path("data/shapes/train", name).iterdir())[:_PER_CLASS]
        (folder / "val" / name).mkdir(parents=True)
        for picture in pictures:
            os.symlink(picture.absolute(), folder / "val" / name / picture.name)
    values = {"model": model, "dataset": "folder", "data_dir": str(folder), "image_size": 64}
    config = resolve.resolve(Config().replace(**values))
    (folder / "run").mkdir()
    run_folder.write_record(folder / "run", run_folder.Record(config, shapes.CLASSES, {}))
    strategy = strategies.make_strategy(config.distribution)
    net = restore.build_model(strategy, config.net, len(shapes.CLASSES), "float32")
    checkpoint.save(folder / "run", 1, {"model": restore.variables_by_path(net)})


def measure(side, folder, crops):
    """Runs one mode; returns a dict of seconds, images_per_second and cpu_seconds (of all threads).

    Another program on the machine takes its share of the seconds, and hardly any of cpu_seconds.
    """
    import flags
    from loops import evaluate
    from loops.tools.predict import predict

    words = ["main.py", f"--mode={side}", f"--ckpt={folder / 'run'}", f"--crops={crops}"]
    words += [f"--image={folder / 'val'}", f"--csv={folder / 'out.csv'}"] * (side == "predict")
    mode = {"predict": predict.run, "eval": evaluate.run}[side]
    started, before = time.perf_counter(), harness.get_resource_usage()
    with contextlib.redirect_stdout(io.StringIO()):
        results = mode(flags.parse(words))
    seconds, used = time.perf_counter() - started, harness.get_resource_usage()
    cpu = sum(used[name] - before[name] for name in ("user_seconds", "system_seconds"))
    total = len(results["images"]) if side == "predict" else results["num_examples"]
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "images": total,
        "images_per_second": total / seconds,
    }


def main():
    """Compares the modes, or with `--side` measures one of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="resnetv2_18", help="architecture")
    parser.add_argument("--crops", type=int, default=10, choices=(10, 1), help="views per image")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each side")
    parser.add_argument("--json", default="", help="write the result to this file")
    parser.add_argument("--side", choices=(*_SIDES, "prepare"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        if args.side == "prepare":
            prepare(args.folder, args.model)
            harness.emit({})
        else:
            harness.emit(measure(args.side, args.folder, args.crops))
        return

    command = [f"--{name}={getattr(args, name)}" for name in ("model", "crops", "pairs")]
    module = "benchmarks.predict_vs_eval"
    report = harness.collect_metadata(module, command, _PACKAGES)
    harness.echo(f"{report['command']}\non {report['machine']}")
    with tempfile.TemporaryDirectory() as folder:

        def run(side):
            return harness.run_child(module, [f"--side={side}", f"--folder={folder}", *command])

        run("prepare")
        pairs = list(harness.alternate(_SIDES, args.pairs, run))
    rates = {side: [pair[side]["images_per_second"] for pair in pairs] for side in _SIDES}
    medians = {side: statistics.median(values) for side, values in rates.items()}
    ratio = medians["predict"] / medians["eval"]
    work = {side: [pair[side]["cpu_seconds"] for pair in pairs] for side in _SIDES}
    cpu_ratio = statistics.median(work["eval"]) / statistics.median(work["predict"])
    report["results"] = {"runs": pairs, "medians": medians, "ratio": ratio, "cpu_ratio": cpu_ratio}
    header = ["mode", "images/s", *(f"pair {n + 1}" for n in range(args.pairs))]
    harness.echo(
        harness.format_table(header, [[side, medians[side], *rates[side]] for side in _SIDES])
    )
    harness.echo(f"predict / eval: {ratio:.3f}; by CPU time {cpu_ratio:.3f}")
    if args.json:
        harness.write_json(args.json, report)


if __name__ == "__main__":
    main()
