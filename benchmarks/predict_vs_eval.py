"""Compares the speed of `--mode=predict` with `--mode=eval` on the same small images.

    python -m benchmarks.predict_vs_eval

Uses 1,000 images of the built-in data set and a run with fresh weights. Each mode runs in new
processes and is timed from the parsed command to the last line written. This includes reading
weights, tracing, decoding, inference and the work on the logits.

Predictions involve more work per image, which should overlap with inference. The goal is at least
80 % of the images per second of eval.
"""

import contextlib
import io
import os
import pathlib
import tempfile
import time

from benchmarks import harness

_MODULE = "benchmarks.predict_vs_eval"
_SIDES = ("predict", "eval")
_IMAGES_PER_CLASS = 100


def prepare(folder: pathlib.Path, model: str) -> None:
    """Creates FOLDER/val/CLASS/* with 1,000 images of 96 px, and FOLDER/run with fresh weights."""
    from input_pipeline.sources import shapes
    from loops.checkpointing import checkpoint, restore, run_folder
    from loops.config import resolve
    from loops.config.config import Config
    from loops.distribution import strategies

    shapes.make("data/shapes")
    for name in shapes.CLASSES:
        images = sorted(pathlib.Path("data/shapes/train", name).iterdir())[:_IMAGES_PER_CLASS]
        (folder / "val" / name).mkdir(parents=True)
        for image in images:
            os.symlink(image.absolute(), folder / "val" / name / image.name)
    values = {"model": model, "dataset": "folder", "data_dir": str(folder), "image_size": 64}
    config = resolve.resolve(Config().replace(**values))
    (folder / "run").mkdir()
    run_folder.write_record(folder / "run", run_folder.Record(config, shapes.CLASSES, {}))
    strategy = strategies.make_strategy(config.distribution)
    net = restore.build_model(strategy, config.net, len(shapes.CLASSES), "float32")
    checkpoint.save(folder / "run", 1, {"model": restore.variables_by_path(net)})


def measure(side: str, folder: pathlib.Path, crops: int) -> dict[str, float]:
    """Runs one mode; returns seconds, cpu_seconds (of all threads), images, images_per_second.

    Other programs on the machine affect the seconds, but hardly the cpu_seconds.
    """
    import flags
    from loops import evaluate
    from loops.tools.predict import predict

    words = ["main.py", f"--mode={side}", f"--ckpt={folder / 'run'}", f"--crops={crops}"]
    words += [f"--image={folder / 'val'}", f"--csv={folder / 'out.csv'}"] * (side == "predict")
    run_mode = {"predict": predict.run, "eval": evaluate.run}[side]
    started, before = time.perf_counter(), harness.get_resource_usage()
    with contextlib.redirect_stdout(io.StringIO()):
        results = run_mode(flags.parse(words))
    seconds, after = time.perf_counter() - started, harness.get_resource_usage()
    cpu_seconds = sum(after[name] - before[name] for name in ("user_seconds", "system_seconds"))
    images = len(results["images"]) if side == "predict" else results["num_examples"]
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "images": images,
        "images_per_second": images / seconds,
    }


def summarize(runs: harness.PairedRuns) -> dict:
    """Returns the runs by pair, median images per second by mode, and the ratios of medians."""
    medians = {side: runs.median(side, "images_per_second") for side in _SIDES}
    cpu_seconds = {side: runs.median(side, "cpu_seconds") for side in _SIDES}
    return {
        "runs": runs.pairs(),
        "medians": medians,
        "ratio": medians["predict"] / medians["eval"],
        "cpu_ratio": cpu_seconds["eval"] / cpu_seconds["predict"],
    }


def main() -> None:
    """Compares the modes, or measures the one that `--side` names."""
    parser = harness.BenchmarkParser(__doc__, sides=(*_SIDES, "prepare"))
    parser.add_flag("--model", "resnetv2_18")
    parser.add_flag("--crops", 10, "crops per image", choices=(10, 1))
    parser.add_flag("--pairs", 3)
    parser.add_hidden("--folder", type=pathlib.Path)
    args = parser.parse_args()
    if args.side == "prepare":
        prepare(args.folder, args.model)
        harness.emit({})
        return
    if args.side:
        harness.emit(measure(args.side, args.folder, args.crops))
        return

    words = parser.format_flags(args)
    report = harness.start_report(_MODULE, words, (*harness.PACKAGES, "numpy"))
    with tempfile.TemporaryDirectory() as folder:
        child_words = [f"--folder={folder}", *words]
        harness.run_child(_MODULE, ["--side=prepare", *child_words])
        for runs in harness.run_pairs(_MODULE, _SIDES, args.pairs, child_words):
            report["results"] = summarize(runs)
            harness.save_report(args.json, report)
    results = report["results"]
    header = ["mode", "images/s", *(f"pair {n + 1}" for n in range(args.pairs))]
    rows = [
        [side, results["medians"][side], *runs.values(side, "images_per_second")] for side in _SIDES
    ]
    harness.echo(harness.format_table(header, rows))
    harness.echo(f"predict / eval: {results['ratio']:.3f}; by CPU time {results['cpu_ratio']:.3f}")


if __name__ == "__main__":
    main()
