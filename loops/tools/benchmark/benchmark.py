"""`--mode=benchmark`: how fast a part of the program runs on this machine."""

import dataclasses

from input_pipeline.augmentation import batch_augment
from input_pipeline.config import DataConfig
from input_pipeline.errors import UsageError
from input_pipeline.sources import source
from loops.checkpointing import run_folder
from loops.config import dataset_flags, flag_fields, mode_flags, validation
from loops.distribution import strategies
from loops.monitoring import console
from loops.runtime import output_files, peak_memory
from loops.tools.benchmark import input_stages, net_benchmarks

_SECONDS_PER_RUN = 2.0
# Of the flags that training or evaluation reads. Those that neither reads are refused as well.
_UNSUPPORTED_FLAGS = {
    *("ckpt", "init_from", "logits", "save_logits", "watch", "watch_patience", "test_size"),
    *("members", "real_labels", "split", "run_name", "epochs", "steps", "examples", "profile"),
    *("auto_batch", "image_size_schedule", "save_every", "eval_every"),
}
_INPUT_FLAGS = {
    "mode",
    "json",
    "seed",
    *(field.name for field in flag_fields.iter_fields(DataConfig)),
}


def run(config, given):
    """Measures what `--benchmark` names.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.

    Returns:
      dict as in the JSON file.

    Raises:
      UsageError: flags that no benchmark follows.
    """
    kind = config.measurement.benchmark
    _require_supported_flags(kind, given)
    results, config, title, rows = BENCHMARKS[kind](config, given)
    results = {"benchmark": kind, "peak_memory_bytes": peak_memory.peak_bytes(), **results}
    results |= {"config": dataclasses.asdict(config), "versions": run_folder.get_package_versions()}
    console.print_summary(title, rows)
    output_files.write_json_output(config.evaluation.json, results)
    return results


def _require_supported_flags(kind, given):
    """Raises UsageError for a flag that a benchmark does not follow."""
    for name in sorted(given - {"benchmark"}):
        is_read = {"train", "eval"} & {*mode_flags.get_modes(name)}
        if name in _UNSUPPORTED_FLAGS or not is_read:
            raise UsageError(f"--{name} is not for --mode=benchmark; leave it out")
        if kind == "eval" and name == "batch_size":
            raise UsageError("--batch_size with --benchmark=eval: give --eval_batch_size")
        if kind == "input" and name not in _INPUT_FLAGS:
            raise UsageError(f"--{name} is not for --benchmark=input; leave it out")


def _measure_input(config, given):
    """Times the stages of the input pipeline, until a normalised batch is ready."""
    config = dataclasses.replace(config, data=dataset_flags.resolve_dataset(config.data, given))
    dataset_flags.require_named_dataset(config.data, given)
    config = validation.resolve(config)
    data = config.data
    batch_augment.require_even_batch(data, data.batch_size)
    strategies.set_up_gpus()
    split = source.open_split(data, "train")
    results = input_stages.measure(split, data, config.length.seed, _SECONDS_PER_RUN)
    rows = [
        (
            row["stage"],
            f"{row['images_per_second']:9.1f} images/s so far, "
            f"{row['added_ms_per_image']:7.3f} ms an image for it alone",
        )
        for row in results["stages"]
    ]
    rows.append(("slowest", f"{results['slowest']}: {results['advice']}"))
    title = f"input of {data.dataset}, {data.augment}, {data.image_size} px, batch"
    return results, config, f"{title} {data.batch_size}, {results['cores']} cores", rows


# Each takes (config, given); returns its figures, the config that it ran, a title and rows.
BENCHMARKS = {
    "step": net_benchmarks.measure_step,
    "input": _measure_input,
    "eval": net_benchmarks.measure_evaluation,
    "train": net_benchmarks.measure_training,
}
