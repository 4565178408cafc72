"""`--mode=benchmark`: how fast a part of the program runs on this machine."""

import dataclasses
import importlib.metadata
import resource
import sys

from input_pipeline import source, stage_timing
from loops import image_folders, validation
from loops.run import report

_SECONDS = 2.0


def run(config, given):
    """Measures what `--benchmark` names.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.

    Returns:
      dict as in the JSON file.
    """
    results = BENCHMARKS[config.measurement.benchmark](config, given)
    results |= {"benchmark": config.measurement.benchmark, "peak_memory_bytes": _peak_memory()}
    results |= {"config": dataclasses.asdict(config), "versions": _versions()}
    if config.evaluation.json:
        report.write_json(config.evaluation.json, results)
    return results


def _input(config, given):
    """Times the stages of the input pipeline, until a normalised batch is ready."""
    config = dataclasses.replace(config, data=image_folders.with_dataset(config.data, given))
    config = validation.resolve(config)
    data = config.data
    split = source.open_split(data, "train")
    results = stage_timing.measure(split, data, config.length.seed, _SECONDS)
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
    report.summary(f"{title} {data.batch_size}, {results['cores']} cores", rows)
    return results


# Each takes (config, given), prints its summary and returns its figures.
BENCHMARKS = {"input": _input}


def _peak_memory():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _versions():
    """Versions of Python and of the packages that the figures depend on."""
    found = {"python": sys.version.split()[0]}
    for name in ("tensorflow", "tensorflow-cpu", "keras", "numpy", "opencv-python-headless"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
