"""`--mode=benchmark`: measures the speed of a part of the program on this machine."""

from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import UsageError
from input_pipeline.sources import source
from input_pipeline.user_code import display_name
from loops.checkpointing import run_folder
from loops.config import config_json, dataset_flags, resolve
from loops.config.config import Config, all_flags
from loops.distribution import strategies
from loops.monitoring import console
from loops.runtime import output_files, peak_memory
from loops.tools.benchmark import input_stages, net_benchmarks

_SECONDS_PER_RUN = 2.0


def run(config: Config) -> dict:
    """Measures what `--benchmark` names; returns the results as in the JSON file.

    Args:
      config: config of the command line.

    Raises:
      UsageError: flags that the benchmark does not use.
    """
    kind = config.measurement.benchmark
    _check_flags(config)
    results, config, title, rows = BENCHMARKS[kind](config)
    results = {"benchmark": kind, "peak_memory_bytes": peak_memory.peak_bytes(), **results}
    results |= {
        "config": config_json.to_json(config),
        "versions": run_folder.get_package_versions(),
    }
    console.print_summary(title, rows)
    output_files.write_json_output(config.evaluation.json, results)
    return results


def _check_flags(config: Config) -> None:
    """Raises UsageError for a typed flag that the benchmark does not use."""
    kind = config.measurement.benchmark
    for name in sorted(config.typed):
        flag = all_flags()[name]
        if kind in flag.benchmarks:
            continue
        where = f"--benchmark={kind}" if flag.benchmarks else "--mode=benchmark"
        raise UsageError(
            f"--{name}: {where} does not use it; {flag.hints.get('benchmark', 'leave it out')}"
        )


def _measure_input(config: Config) -> tuple[dict, Config, str, list[tuple[str, str]]]:
    """Times the stages of the input pipeline up to a normalized batch."""
    config = dataset_flags.resolve_dataset(config)
    dataset_flags.require_named_dataset(config)
    config = resolve.resolve(config)
    data = config.data
    batch_augment.require_even_batch(data, data.batch_size)
    strategies.set_up_gpus()
    split = source.open_split(data, "train")
    results = input_stages.measure(split, data, config.length.seed, _SECONDS_PER_RUN)
    rows = [
        (
            row["stage"],
            f"{row['images_per_second']:9.1f} images/s up to here, "
            f"{row['added_ms_per_image']:7.3f} ms per image for this stage",
        )
        for row in results["stages"]
    ]
    rows.append(("slowest", f"{results['slowest']}: {results['advice']}"))
    title = f"input of {data.dataset}, {display_name(data.augment)}, {data.image_size} px, batch"
    return results, config, f"{title} {data.batch_size}, {results['cores']} cores", rows


# Each takes (config); returns its figures, the config that it ran, a title and rows.
BENCHMARKS = {
    "step": net_benchmarks.measure_step,
    "input": _measure_input,
    "eval": net_benchmarks.measure_evaluation,
    "train": net_benchmarks.measure_training,
}
